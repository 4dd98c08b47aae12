//! What brings a client back to its backend: the pool's keys, and finding the backend that a cookie means.

use std::sync::Arc;

use crate::pool::{Backend, Pool};
use crate::wire::sticky::StickyKeys;

impl Pool {
    /// The keys that a reload has read; `None` without stickiness.
    pub fn set_sticky_keys(&self, keys: Option<Arc<StickyKeys>>) {
        self.sticky_keys.store(keys);
    }

    pub fn sticky_keys(&self) -> Option<Arc<StickyKeys>> {
        self.sticky_keys.load_full()
    }

    /// The present backend whose name passes.
    pub fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Option<Arc<Backend>> {
        let view = self.view.load();
        let mut present = view.present.iter();
        present.find(|one| is_wanted(one.name())).cloned()
    }
}
