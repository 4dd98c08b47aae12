//! The number of connections in a pool's queue, readable without the queue's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Length of the queue. Backends read it: a dropped lease needs no lock while nobody waits.
#[derive(Debug, Clone, Default)]
pub(super) struct WaitingCount(Arc<AtomicUsize>);

impl WaitingCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    pub(super) fn set(&self, count: usize) {
        self.0.store(count, SeqCst);
    }
}
