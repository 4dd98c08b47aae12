//! Sessions of backends that discovery drains, or has given up: jobs end them at the pace of the
//! pool's `drain`. A backend that is listed as ready again keeps those that are left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;

use super::jobs::{DrainRate, Job, JobTarget};
use crate::config::{self, defaults};
use crate::pool::{Backend, DiscoveryState, Pool};
use crate::relay::CloseFrame;
use crate::server::state::Server;
use crate::server::watch::pools::PoolWatcher;

/// Departures of a pool with `discover`.
pub(super) struct DepartureWatch {
    pool: Arc<Pool>,
    /// Jobs by backend, running or over: one for each time that it leaves.
    jobs: BTreeMap<Arc<str>, Arc<Job>>,
    /// Changes of the pool's membership, what discovery says of a backend among them.
    changes: Receiver<u64>,
    /// A job is still to begin: as many run as may, or the operator drains the backend.
    is_pending: bool,
}

impl PoolWatcher for DepartureWatch {
    const NAME: &str = "departures";
    /// Little beside any `remove_after`.
    const SPACING: Duration = Duration::from_millis(250);

    fn begin(_server: &Server, pool: &Arc<Pool>) -> Option<DepartureWatch> {
        pool.settings().discover.as_ref()?;
        Some(DepartureWatch {
            pool: Arc::clone(pool),
            jobs: BTreeMap::new(),
            changes: pool.changed(),
            is_pending: true,
        })
    }

    fn goes_on(&self, _server: &Server, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool) && pool.settings().discover.is_some()
    }

    async fn look(&mut self, server: &Server, pool: &Arc<Pool>) {
        let has_changed = self.changes.has_changed().unwrap_or(false);
        if !has_changed && !self.is_pending {
            return;
        }
        self.changes.borrow_and_update();
        self.is_pending = false;
        let settings = pool.settings();
        let all: Vec<_> = pool.backends().into_iter().chain(pool.retired()).collect();
        for backend in &all {
            match pace(backend, &settings) {
                Some(pace) => self.end_sessions(server, backend, pace),
                None => self.keep_sessions(server, backend),
            }
        }
        self.jobs
            .retain(|name, _| all.iter().any(|one| one.name() == name));
    }

    fn end(self, _server: &Server) {}
}

impl DepartureWatch {
    fn end_sessions(&mut self, server: &Server, backend: &Arc<Backend>, pace: DrainRate) {
        let live = backend.live();
        if live == 0 || self.jobs.contains_key(backend.name()) {
            return;
        }
        let Some(job) = server.jobs().start_for_discovery(backend, pace) else {
            self.is_pending = true;
            return;
        };
        tracing::info!(
            job = job.id, pool = %backend.pool(), backend = %backend.name(), live,
            discovery = backend.discovery().as_str(), "backend leaves: its connections are ended"
        );
        self.jobs.insert(Arc::clone(backend.name()), job);
    }

    fn keep_sessions(&mut self, server: &Server, backend: &Arc<Backend>) {
        let Some(job) = self.jobs.remove(backend.name()) else {
            return;
        };
        // The operator's own job on it, begun since, goes on.
        let target = JobTarget::Backend(Arc::clone(backend));
        let runs = server.jobs().of(&target);
        if runs.is_none_or(|runs| runs.id == job.id) {
            server.jobs().abort_of(&target);
        }
    }
}

/// Pace at which the sessions of a backend are to be ended. `None`: they stay.
fn pace(backend: &Backend, settings: &config::Pool) -> Option<DrainRate> {
    let configured = settings.drain.as_ref().map(DrainRate::from);
    match backend.discovery() {
        DiscoveryState::Ready => None,
        // Absent and still a member: `remove_after` is not over.
        DiscoveryState::Absent if !backend.is_retired() => None,
        DiscoveryState::Drain if !backend.is_retired() => configured,
        _ => Some(configured.unwrap_or_else(usual)),
    }
}

/// Pace where the pool has no `drain`.
fn usual() -> DrainRate {
    DrainRate {
        rate: Some(defaults::DRAIN_RATE),
        deadline: None,
        after: Duration::ZERO,
        close_frame: Arc::new(CloseFrame::new(defaults::CLOSE_CODE as u16, "")),
        is_local: false,
    }
}
