//! Plan of a rebalance: which backends give connections, and which ones lack some.

use std::sync::Arc;
use std::time::Duration;

use super::target::backend_filter;
use crate::pool::{Backend, Pool};
use crate::relay::{Relay, SessionInfo, SessionState};

/// Plan of a rebalance; at most what it says is done.
#[derive(Debug, Clone)]
pub(crate) struct RebalancePlan {
    pub pool: Arc<Pool>,
    pub overloaded: Vec<OverloadedBackend>,
    /// Backends below their share, each with its share of all balancers' connections.
    pub underloaded: Vec<(Arc<Backend>, u64)>,
    /// The fraction of the connections to be moved that this balancer moves.
    pub part: f64,
    pub min_age: Duration,
    /// Whether sessions whose clients cannot be told a reason are moved, too.
    pub untold: bool,
}

/// A backend above its share.
#[derive(Debug, Clone)]
pub(crate) struct OverloadedBackend {
    pub backend: Arc<Backend>,
    /// The part of its share that this balancer's connections are.
    pub share: u64,
    /// Connections to be moved, at most.
    pub count: u64,
}

impl RebalancePlan {
    /// Connections to be moved, at most.
    pub(crate) fn count(&self) -> u64 {
        self.overloaded.iter().map(|one| one.count).sum()
    }

    /// Sessions of a backend that may be moved, the quietest last; and how many are leaving.
    pub(crate) async fn movable(
        &self,
        backend: &Backend,
        relay: &Relay,
    ) -> (Vec<SessionInfo>, u64) {
        let is_leaving = |one: &SessionInfo| one.state != SessionState::Relaying;
        let mut sessions = relay.list_all(backend_filter(backend)).await;
        let leaving = sessions.iter().filter(|one| is_leaving(one)).count() as u64;
        sessions.retain(|one| {
            !is_leaving(one) && one.age >= self.min_age && (one.takes_close_frame || self.untold)
        });
        sessions.sort_by_key(|one| one.idle);
        (sessions, leaving)
    }

    /// Whether a backend that can take connections lacks some.
    pub(crate) fn helps(&self) -> bool {
        let lacks = |(backend, share): &(Arc<Backend>, u64)| {
            backend.takes_new() && backend.shared_load().all() < *share
        };
        self.underloaded.iter().any(lacks)
    }
}
