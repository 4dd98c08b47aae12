//! Counters of a pool. Totals since the pool was created; they survive every reload.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::request::AcquireError;

/// Counters of one pool. The data path adds `retries` and `redispatches`.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Refused because no backend can be used.
    pub refused_no_backend: AtomicU64,
    /// Refused because every backend is full and there is no queue.
    pub refused_full: AtomicU64,
    /// Refused because the queue is full.
    pub refused_queue_full: AtomicU64,
    /// Waited `queue_timeout` in vain.
    pub queue_timeouts: AtomicU64,
    /// Further tries after a failed connect.
    pub retries: AtomicU64,
    /// Those of them that went to another backend.
    pub redispatches: AtomicU64,
}

impl PoolCounters {
    pub(super) fn refused(&self, error: AcquireError) {
        let counter = match error {
            AcquireError::NoBackend => &self.refused_no_backend,
            AcquireError::Full => &self.refused_full,
            AcquireError::QueueFull => &self.refused_queue_full,
            AcquireError::QueueTimeout(_) => &self.queue_timeouts,
        };
        counter.fetch_add(1, Relaxed);
    }
}
