//! Counters of a pool. They survive every reload.

use std::sync::atomic::Ordering::Relaxed;

use super::request::AcquireError;
use crate::observe::{Metric, counters};

counters! {
    /// Counters of one pool. The data path adds to `retries` and `redispatches`.
    pub(crate) struct PoolCounters {}

    /// Values of [`PoolCounters`] at one moment.
    pub(crate) struct PoolValues {
        /// Refused, as no backend can be used
        refused_no_backend = Metric::counter("pool_refused_connections")
            .label("reason", "no_backend")
            .help("Given no backend, by reason"),
        /// Refused, as every backend is full and there is no queue
        refused_full = Metric::counter("pool_refused_connections").label("reason", "full"),
        /// Refused, as the queue is full
        refused_queue_full = Metric::counter("pool_refused_connections")
            .label("reason", "queue_full"),
        /// Waited `queue_timeout` in vain
        queue_timeouts = Metric::counter("pool_refused_connections")
            .label("reason", "queue_timeout"),
        /// Further tries after a failed connect
        retries = Metric::counter("pool_retries"),
        /// Looked up in the cluster's store, and known there
        affinity_known = Metric::counter("pool_affinity_lookups")
            .label("result", "known")
            .help("Clients looked up in the cluster's store, by result"),
        /// Looked up, and not known
        affinity_new = Metric::counter("pool_affinity_lookups").label("result", "new"),
        /// Not looked up, or without an answer in time
        affinity_failed = Metric::counter("pool_affinity_lookups").label("result", "failed"),
        /// Retries on another backend
        redispatches = Metric::counter("pool_redispatches"),
    }
}

impl Default for PoolCounters {
    fn default() -> PoolCounters {
        PoolCounters::zero()
    }
}

impl PoolCounters {
    /// Counts a look-up of affinity; `None`: the store did not answer.
    pub(super) fn looked_up(&self, answer: Option<&Option<String>>) {
        let counter = match answer {
            Some(Some(_)) => &self.affinity_known,
            Some(None) => &self.affinity_new,
            None => &self.affinity_failed,
        };
        counter.fetch_add(1, Relaxed);
    }

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
