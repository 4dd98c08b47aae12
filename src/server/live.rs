//! Configuration, pools and listeners in force, swapped as one by a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::pools::{Pools, RemovedPool, RunningPool};
use super::status::ListenerStatus;
use crate::config::Config;
use crate::pool::Pool;
use crate::proxy::Listening;

/// Guarded by one lock, which is held for a look or a swap, never across a wait.
pub(super) struct Live {
    pub config: Arc<Config>,
    pub pools: BTreeMap<String, RunningPool>,
    removed: Vec<RemovedPool>,
    /// In the order of the file.
    pub listeners: Vec<Arc<Listening>>,
    /// State of the listeners when they stopped; `None` before. Nothing is swapped in any more
    /// then.
    pub stopped: Option<Vec<ListenerStatus>>,
}

impl Live {
    pub(super) fn new(config: Arc<Config>) -> Live {
        Live {
            config,
            pools: BTreeMap::new(),
            removed: Vec::new(),
            listeners: Vec::new(),
            stopped: None,
        }
    }

    /// The pools that keep their identity if the next configuration names them: present, and
    /// removed but still in use.
    pub(super) fn known_pools(&self) -> Pools {
        let pools = self.pools().into_iter();
        pools.map(|pool| (pool.name().to_string(), pool)).collect()
    }

    /// The present pools by name, then the removed ones with live connections.
    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        let present = self.pools.values().map(|running| &running.pool);
        let removed = self.removed.iter().filter(|removed| removed.is_live());
        present
            .chain(removed.map(|removed| &removed.pool))
            .cloned()
            .collect()
    }

    pub(super) fn is_removed(&self, pool: &Pool) -> bool {
        let mut removed = self.removed.iter();
        removed.any(|removed| std::ptr::eq(Arc::as_ptr(&removed.pool), pool))
    }

    /// Makes `wanted` the present pools, with the settings of `config`. Some are `started` already;
    /// `start` starts the others that do not run. Returns the pools that are left over.
    pub(super) fn swap_pools(
        &mut self,
        wanted: Pools,
        mut started: BTreeMap<String, RunningPool>,
        config: &Config,
        start: impl Fn(Arc<Pool>) -> RunningPool,
    ) -> Vec<Arc<Pool>> {
        self.removed.retain(|removed| {
            let back = wanted
                .get(&**removed.pool.name())
                .is_some_and(|pool| Arc::ptr_eq(pool, &removed.pool));
            if back {
                removed.take_back();
            }
            !back && !removed.is_over()
        });
        let mut before = std::mem::take(&mut self.pools);
        for (name, pool) in wanted {
            let known = before.remove(&name);
            if let Some(settings) = config.pools.get(&name)
                && (known.is_none() || *pool.settings() != *settings)
            {
                // A pool that was taken back is retired by now: the same settings mean a change.
                pool.apply(settings);
            }
            let running = known
                .or_else(|| started.remove(&name))
                .unwrap_or_else(|| start(pool));
            self.pools.insert(name, running);
        }
        before.into_values().map(|running| running.pool).collect()
    }

    /// Retires removed pools after `grace`.
    pub(super) fn retire(&mut self, pools: Vec<Arc<Pool>>, grace: Duration, runtime: &Handle) {
        let removed = pools.into_iter();
        self.removed
            .extend(removed.map(|pool| RemovedPool::retire_after(pool, grace, runtime)));
    }
}
