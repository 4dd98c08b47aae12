//! Stickiness: the pool's cookie keys, and the backend that a cookie names.

use std::sync::Arc;

use super::backend::Backend;
use super::backend_pool::Pool;
use crate::wire::sticky::StickyKeys;

impl Pool {
    /// Sets the keys that a reload has read; `None` without stickiness.
    pub fn set_sticky_keys(&self, keys: Option<Arc<StickyKeys>>) {
        self.sticky_keys.store(keys);
    }

    pub fn sticky_keys(&self) -> Option<Arc<StickyKeys>> {
        self.sticky_keys.load_full()
    }

    /// The first present backend whose name passes.
    pub fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Option<Arc<Backend>> {
        let view = self.view.load();
        let mut present = view.present.iter();
        present.find(|one| is_wanted(one.name())).cloned()
    }
}
