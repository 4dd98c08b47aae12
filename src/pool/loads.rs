//! What the backends carry that take new connections now, and who of them is relieved while connections are moved away.

use std::sync::Arc;

use crate::pool::connection_counter::AdmitMode;
use crate::pool::{Backend, Pool, clock};

/// One backend that takes new connections.
#[derive(Debug, Clone)]
pub struct BackendLoad {
    pub backend: Arc<Backend>,
    /// Connections now, those being set up included.
    pub live: u64,
    /// In force; above 0.
    pub weight: u16,
    /// 0 = no own limit.
    pub max_connections: u64,
    /// `slow_start` has not brought it to its full weight yet.
    pub is_growing: bool,
}

/// As long as it lives, new connections go to those backends only where no other one can take them.
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
        let slots = view.in_use().into_iter().flatten();
        let takes = slots.filter(|slot| slot.mode == AdmitMode::Open);
        takes
            .map(|slot| BackendLoad {
                backend: slot.backend.clone(),
                live: slot.backend.live(),
                weight: slot.weight,
                max_connections: slot.backend.max_connections(),
                is_growing: slot.grows(now),
            })
            .collect()
    }

    /// Spares those `backends` new connections for a while.
    pub fn shift_traffic_from(self: &Arc<Self>, backends: Vec<Arc<Backend>>) -> TrafficShift {
        self.set_avoided(&backends, true);
        TrafficShift {
            pool: Arc::clone(self),
            backends,
        }
    }

    fn set_avoided(&self, backends: &[Arc<Backend>], relieved: bool) {
        self.update(clock(), || {
            for backend in backends {
                backend.status().avoided = relieved;
            }
        });
    }
}

impl Drop for TrafficShift {
    fn drop(&mut self) {
        self.pool.set_avoided(&self.backends, false);
    }
}
