//! Loads of the backends that take new connections, and the shift of new connections away from
//! some of them.

use std::sync::Arc;

use super::backend::{Backend, BackendOwner as _};
use super::backend_pool::Pool;
use super::clock::clock;
use super::connection_counter::AdmitMode;
use crate::balance::SharedLoad;

/// Load of a backend that takes new connections.
#[derive(Debug, Clone)]
pub struct BackendLoad {
    pub backend: Arc<Backend>,
    /// Connections now, those being set up included; and those of the other balancers.
    pub live: SharedLoad,
    /// The weight in force; above 0.
    pub weight: u16,
    /// 0 = no own limit.
    pub max_connections: u64,
    /// `slow_start` has not brought the weight to its full value yet.
    pub is_growing: bool,
}

/// Keeps new connections away from some backends, as far as others can take them, until dropped.
#[derive(Debug)]
pub struct TrafficShift {
    pool: Arc<Pool>,
    backends: Vec<Arc<Backend>>,
}

impl Pool {
    /// The primaries that take new connections, or the backups while they stand in for them.
    pub fn loads(&self) -> Vec<BackendLoad> {
        let now = clock();
        self.refresh(now);
        let view = self.view.load();
        let candidates = view.in_use().into_iter().flatten();
        let open = candidates.filter(|candidate| candidate.mode == AdmitMode::Open);
        open.map(|candidate| BackendLoad {
            backend: candidate.backend.clone(),
            live: candidate.backend.shared_load(),
            weight: candidate.weight,
            max_connections: candidate.backend.max_connections(),
            is_growing: candidate.is_growing(now),
        })
        .collect()
    }

    /// Sends new connections to other backends than these for a while.
    pub fn shift_traffic_from(self: &Arc<Self>, backends: Vec<Arc<Backend>>) -> TrafficShift {
        self.set_avoided(&backends, true);
        TrafficShift {
            pool: Arc::clone(self),
            backends,
        }
    }

    fn set_avoided(&self, backends: &[Arc<Backend>], avoided: bool) {
        for backend in backends {
            backend.status().avoided = avoided;
        }
        self.recompute(clock());
    }
}

impl Drop for TrafficShift {
    fn drop(&mut self) {
        self.pool.set_avoided(&self.backends, false);
    }
}
