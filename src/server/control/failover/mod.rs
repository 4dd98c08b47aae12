//! Failover: acts on live sessions as backends go down and come back. Looks at the pools a few
//! times a second and has jobs end what the policy says. A job that it began is aborted when its
//! cause has gone; the operator's jobs are left alone.

pub(in crate::server) mod guards;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::policy::{BackendObservation, FailoverAction, FailoverPolicy, Health, Work};
use super::jobs::{DrainRate, EndReason, FailoverGuard, Job, Panic};
use crate::config::{self, OnDown, defaults};
use crate::pool::{Backend, Pool};
use crate::relay::CloseFrame;
use crate::server::state::Server;
use crate::server::watch::pools::PoolWatcher;

/// Time in which `on_down = "close"` ends the sessions: "at once", without all of them in one
/// moment.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Failover of a pool that has, or had, settings for it.
pub(super) struct FailoverWatch {
    guard: Arc<FailoverGuard>,
    policy: FailoverPolicy,
    /// Jobs by backend.
    jobs: BTreeMap<String, Arc<Job>>,
}

impl PoolWatcher for FailoverWatch {
    const NAME: &str = "failover";
    /// Little beside any grace, and nothing to a pool of thousands.
    const SPACING: Duration = Duration::from_millis(250);

    fn begin(server: &Server, pool: &Arc<Pool>) -> Option<FailoverWatch> {
        if pool.settings().failover.keeps_all() {
            return None;
        }
        Some(FailoverWatch {
            guard: server.failover.begin(pool),
            policy: FailoverPolicy::default(),
            jobs: BTreeMap::new(),
        })
    }

    /// Settings that keep all sessions do not end the watch: its jobs are to be aborted.
    fn goes_on(&self, _server: &Server, pool: &Arc<Pool>) -> bool {
        self.guard.is_of(pool)
    }

    async fn look(&mut self, server: &Server, pool: &Arc<Pool>) {
        let (settings, now) = (pool.settings(), Instant::now());
        let kept = self.guard.take_kept();
        let backends: Vec<_> = pool.backends().into_iter().chain(pool.retired()).collect();
        let seen = self.observe(&backends, &kept);
        for action in self
            .policy
            .decide(&settings.failover, &seen, now.into_std())
        {
            match action {
                FailoverAction::End(index, reason) => {
                    self.begin_job(server, &backends[index], &settings, reason);
                }
                FailoverAction::Abort(index) => {
                    if let Some(job) = self.jobs.remove(seen[index].name) {
                        server.jobs().abort(job.id);
                    }
                }
            }
        }
        self.jobs
            .retain(|name, _| seen.iter().any(|one| *one.name == **name));
        let is_stranded = settings.failover.on_down != OnDown::Keep && are_stranded(&seen);
        if is_stranded {
            self.guard.hold(Panic::NoBackend);
        }
        let is_busy = self.jobs.values().any(|job| !job.is_over());
        self.guard.calm(!is_busy && !is_stranded);
    }

    fn end(self, server: &Server) {
        server.failover.end(&self.guard);
    }
}

/// Whether sessions live on backends that are down, and no backend can be used.
fn are_stranded(seen: &[BackendObservation<'_>]) -> bool {
    let is_stranded =
        |one: &BackendObservation<'_>| matches!(one.health, Health::Down(_)) && one.live > 0;
    !seen.iter().any(BackendObservation::is_usable) && seen.iter().any(is_stranded)
}

impl FailoverWatch {
    fn observe<'a>(
        &mut self,
        backends: &'a [Arc<Backend>],
        kept: &[Arc<Backend>],
    ) -> Vec<BackendObservation<'a>> {
        let observe = |backend: &'a Arc<Backend>| BackendObservation {
            name: backend.name(),
            health: health(backend),
            backup: backend.backup(),
            live: backend.live(),
            work: self.work(backend),
            kept: kept.iter().any(|one| Arc::ptr_eq(one, backend)),
        };
        backends.iter().map(observe).collect()
    }

    /// State of the job on a backend. Forgets a job that is over.
    fn work(&mut self, backend: &Backend) -> Work {
        let name = &**backend.name();
        let Some(job) = self.jobs.get(name) else {
            return Work::None;
        };
        if job.is_running() {
            return Work::Running;
        }
        // Aborted by somebody else: a job that is aborted here is forgotten at once.
        let is_aborted = job.is_aborted();
        self.jobs.remove(name);
        if is_aborted {
            Work::Stopped
        } else {
            Work::None
        }
    }

    fn begin_job(
        &mut self,
        server: &Server,
        backend: &Arc<Backend>,
        settings: &config::Pool,
        reason: EndReason,
    ) {
        let (guard, pace) = (Arc::clone(&self.guard), pace(settings, reason));
        let jobs = server.jobs();
        // As many run as may, or the operator has begun one: the next look sees.
        let Some(job) = jobs.start_for_health(backend, pace, guard, reason) else {
            return;
        };
        let (pool, live) = (backend.pool(), backend.live());
        match reason {
            EndReason::Down => {
                tracing::warn!(job = job.id, %pool, backend = %backend.name(), live, "backend stays down: its connections are ended");
            }
            EndReason::Return => {
                tracing::info!(job = job.id, %pool, backend = %backend.name(), live, "primaries are back: connections of the backup are ended");
            }
        }
        self.jobs.insert(backend.name().to_string(), job);
    }
}

/// Health of a backend. No check decides anything about a backend that is drained, not listed any
/// more, or removed.
fn health(backend: &Backend) -> Health {
    if backend.is_leaving() {
        return Health::Apart;
    }
    // Read first: an ejection may be over.
    let since = backend.since();
    if backend.takes_new() {
        Health::Usable(since)
    } else if backend.check_up() {
        Health::Apart
    } else {
        Health::Down(since)
    }
}

/// Rate of the pool's drains, without their `after`: that was the grace.
fn pace(settings: &config::Pool, reason: EndReason) -> DrainRate {
    let usual = || DrainRate {
        rate: Some(defaults::DRAIN_RATE),
        deadline: None,
        after: Duration::ZERO,
        close_frame: Arc::new(CloseFrame::new(defaults::CLOSE_CODE as u16, "")),
        is_local: false,
    };
    let pace = settings.drain.as_ref().map_or_else(usual, DrainRate::from);
    let at_once = reason == EndReason::Down && settings.failover.on_down == OnDown::Close;
    let (rate, deadline) = if at_once {
        (None, Some(CLOSE_WITHIN))
    } else {
        (pace.rate, pace.deadline)
    };
    DrainRate {
        rate,
        deadline,
        after: Duration::ZERO,
        close_frame: pace.close_frame,
        is_local: pace.is_local,
    }
}
