//! Connections of a backend that another process has: the one before this one, or the next.

use std::sync::atomic::{AtomicU64, Ordering};

/// Connections that another process has on a backend.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(AtomicU64);

impl Elsewhere {
    /// Takes one from the count; false where there is none.
    pub(super) fn take_one(&self) -> bool {
        let less = |count: u64| count.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the count and returns the one before.
    pub(super) fn set(&self, count: u64) -> u64 {
        self.0.swap(count, Ordering::Relaxed)
    }
}
