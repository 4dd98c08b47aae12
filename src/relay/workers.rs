//! State that the workers of a relay share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::inbox::Inbox;
use super::scratch::BufferBudget;

/// Inboxes and counts of all workers.
pub(super) struct Workers {
    /// In the order of the workers.
    pub inboxes: Box<[Arc<Inbox>]>,
    pub live: AtomicU64,
    /// Bytes that the sessions of one worker may hold.
    pub max_held: Arc<AtomicUsize>,
    /// Bytes that connections in set-up hold, which count for the same bound.
    pub set_up_held: Arc<AtomicUsize>,
    /// Pipes of each worker.
    pub pipes: usize,
}

impl Workers {
    /// The worker with fewer live sessions of two candidates: connections that last must stay
    /// balanced over the threads.
    pub(super) fn lighter_of_two(&self) -> &Arc<Inbox> {
        let (one, other) = (self.candidate(), self.candidate());
        if one.live.load(Ordering::Relaxed) <= other.live.load(Ordering::Relaxed) {
            one
        } else {
            other
        }
    }

    fn candidate(&self) -> &Arc<Inbox> {
        match &*self.inboxes {
            [only] => only,
            inboxes => &inboxes[fastrand::usize(..inboxes.len())],
        }
    }

    /// The account of the bytes that one worker holds.
    pub(super) fn buffer_budget(&self) -> BufferBudget {
        let (max, set_up_held) = (Arc::clone(&self.max_held), Arc::clone(&self.set_up_held));
        BufferBudget::new(max, set_up_held, self.inboxes.len())
    }

    /// Counts one session of a worker.
    pub(super) fn count(&self, worker: &Inbox) {
        worker.live.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uncount(&self, worker: &Inbox) {
        worker.live.fetch_sub(1, Ordering::Relaxed);
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}
