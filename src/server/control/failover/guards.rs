//! The guards of all pools whose health is watched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::pool::{Backend, Pool};
use crate::server::control::jobs::FailoverGuard;
use crate::server::lock::lock;

/// Guards by pool; a pool that failover never watched has none.
#[derive(Debug, Default)]
pub(in crate::server) struct FailoverGuards(Mutex<BTreeMap<String, Arc<FailoverGuard>>>);

impl FailoverGuards {
    /// The guard of a pool, if failover watches it.
    pub(crate) fn of(&self, pool: &Pool) -> Option<Arc<FailoverGuard>> {
        let guards = lock(&self.0);
        let guard = guards.get(&**pool.name())?;
        guard.is_of(pool).then(|| Arc::clone(guard))
    }

    /// The guard of a pool that failover begins to watch.
    pub(crate) fn begin(&self, pool: &Arc<Pool>) -> Arc<FailoverGuard> {
        self.of(pool).unwrap_or_else(|| {
            let guard = FailoverGuard::new(pool);
            lock(&self.0).insert(pool.name().to_string(), Arc::clone(&guard));
            guard
        })
    }

    /// Forgets the guard of a pool that is gone.
    pub(crate) fn end(&self, guard: &Arc<FailoverGuard>) {
        lock(&self.0).retain(|_, one| !Arc::ptr_eq(one, guard));
    }

    /// Keeps the sessions of that backend, as the operator wants.
    pub(crate) fn keep(&self, backend: &Arc<Backend>) {
        let guard = lock(&self.0).get(&**backend.pool()).cloned();
        if let Some(guard) = guard {
            guard.keep(backend);
        }
    }
}
