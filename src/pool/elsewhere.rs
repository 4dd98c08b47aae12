//! Connections of a backend that the process before this one still has.

use std::sync::atomic::{AtomicU64, Ordering};

/// Connections that another process has on a backend.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(AtomicU64);

impl Elsewhere {
    /// Sets the count and returns the one before.
    pub(super) fn set(&self, count: u64) -> u64 {
        self.0.swap(count, Ordering::Relaxed)
    }
}
