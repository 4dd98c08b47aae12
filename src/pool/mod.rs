//! Pools and their backends: choosing and counting.

mod backend;
mod pick;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use crate::config;
use crate::net::Endpoint;

pub use backend::{Backend, Lease, OperatorState, State};
pub use pick::{AcquireError, Pick};

/// One backend as discovery found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Unique in the snapshot.
    pub name: String,
    pub address: Endpoint,
    /// 0..=256
    pub weight: u16,
    pub backup: bool,
    /// 0 = no own limit.
    pub max_connections: u64,
}

/// What a pool counted; the data path adds `retries` and `redispatches`.
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

/// A named set of backends with one balancing algorithm, its checks and limits.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    settings: Arc<config::Pool>,
    counters: PoolCounters,
    changed: watch::Sender<u64>,
}

#[expect(unused_variables, reason = "signatures first")]
impl Pool {
    pub fn new(config: &config::Pool) -> Arc<Pool> {
        Arc::new(Pool {
            name: Arc::from(config.name.as_str()),
            settings: Arc::new(config.clone()),
            counters: PoolCounters::default(),
            changed: watch::Sender::new(0),
        })
    }
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    /// The present configuration of the pool.
    pub fn settings(&self) -> Arc<config::Pool> {
        self.settings.clone()
    }
    pub fn counters(&self) -> &PoolCounters {
        &self.counters
    }
    /// A reload's configuration.
    pub fn apply(&self, config: &config::Pool) {}
    /// The reload removed the whole pool: every backend becomes retired.
    pub fn retire(&self) {}
    /// A whole snapshot from discovery; true if something changed.
    pub fn discovered(&self, found: Vec<Found>) -> bool {
        false
    }
    /// Present, in file order, discovered ones behind.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        Vec::new()
    }
    /// Removed, with live connections.
    pub fn retired(&self) -> Vec<Arc<Backend>> {
        Vec::new()
    }
    /// Present or retired.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        None
    }
    pub async fn acquire(&self, pick: &Pick<'_>) -> Result<Lease, AcquireError> {
        Err(AcquireError::NoBackend)
    }
    /// Connections waiting now.
    pub fn queued(&self) -> usize {
        0
    }
    /// Bumped when membership, addresses or settings change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
