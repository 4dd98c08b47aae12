//! Observer: looks at the server again and again, and tells what differs from the look before.
//!
//! Looking costs the same however much happens, and nothing that changes has to know of events. A
//! state that lasts shorter than the time between two looks shows in `changes` alone.

use std::sync::Arc;
use std::time::Instant;

use super::feed::data;
use super::kind::{EventKind, Events};
use super::marks::{Difference, Marks};
use super::rates::RateMeter;
use crate::admin::view::*;
use crate::admin::{cluster, snapshot};
use crate::pool::{Backend, Pool};
use crate::server::jobs::JobPhase;
use crate::server::{ListenerStatus, Server};

type BackendKey = (Arc<str>, Arc<str>);

/// The marks of the latest look.
#[derive(Default)]
pub(super) struct Observer {
    has_looked: bool,
    backends: Marks<BackendKey, BackendMarks>,
    checks: Marks<BackendKey, CheckMarks>,
    pools: Marks<String, PoolMarks>,
    discoveries: Marks<String, DiscoveryMarks>,
    listeners: Marks<String, ListenerMarks>,
    jobs: Marks<u64, JobMarks>,
    process: Option<ProcessEvent>,
    reloads: Option<(u64, u64)>,
    upgrade: Option<UpgradeMarks>,
    cluster: Option<ClusterView>,
    rates: RateMeter,
}

#[derive(PartialEq)]
struct BackendMarks {
    state: &'static str,
    reason: String,
    changes: u64,
    words: [&'static str; 2],
    numbers: (u16, u64),
    is_removed: bool,
}

#[derive(PartialEq)]
struct CheckMarks {
    check: &'static str,
    reason: String,
    /// Failed checks of a backend that is up: each may be the beginning of an outage.
    failed: u64,
}

#[derive(PartialEq)]
struct PoolMarks {
    balance: String,
    is_removed: bool,
    panic: Option<String>,
    file_errors: Vec<FileErrorView>,
}

#[derive(PartialEq)]
struct DiscoveryMarks {
    /// Without its age.
    discovery: Option<DiscoveryView>,
    failing: Vec<LookupView>,
}

#[derive(PartialEq)]
struct ListenerMarks {
    state: &'static str,
    bind: String,
    certificates: Vec<CertificateView>,
    certificate_error: Option<String>,
}

#[derive(PartialEq)]
struct JobMarks {
    phase: JobPhase,
    progress: (u64, u64),
}

#[derive(PartialEq)]
struct UpgradeMarks {
    handing_over: bool,
    /// Without what differs at every look while a process before drains.
    upgrade: UpgradeView,
}

impl Observer {
    /// Looks at the server. The first look is what others are compared with, and has no events.
    pub(super) fn look(&mut self, server: &Server, with_rates: bool) -> Events {
        let pools = server.pools();
        let mut events = Events::new();
        self.look_at_process(server, &mut events);
        self.look_at_listeners(server, &mut events);
        self.look_at_pools(server, &pools, &mut events);
        self.look_at_backends(&pools, &mut events);
        self.look_at_checks(&pools, &mut events);
        self.look_at_reloads(server, &mut events);
        self.look_at_jobs(server, with_rates, &mut events);
        self.look_at_upgrade(server, &mut events);
        self.look_at_cluster(server, &mut events);
        if with_rates {
            self.rates
                .measure(server, &pools, Instant::now(), &mut events);
        }
        if !std::mem::replace(&mut self.has_looked, true) {
            events.clear();
        }
        events
    }

    fn look_at_process(&mut self, server: &Server, events: &mut Events) {
        let now = ProcessEvent {
            ready: server.ready(),
            about_to_stop: server.accepts() && !server.ready(),
            short_of_memory: server.limits().is_short_of_memory(),
        };
        if self.process.as_ref() != Some(&now) {
            events.push((EventKind::Process, data(&now)));
            self.process = Some(now);
        }
    }

    fn look_at_listeners(&mut self, server: &Server, events: &mut Events) {
        let all = server.listeners();
        let seen = all
            .iter()
            .map(|one| (one.name.clone(), ListenerMarks::of(one), one));
        for difference in self.listeners.replace(seen) {
            events.push(match difference {
                Difference::Seen(one, before) => {
                    let event = ListenerEvent {
                        from: before.map(|before| before.state.to_owned()),
                        listener: snapshot::listener(one),
                    };
                    (EventKind::Listener, data(&event))
                }
                Difference::Gone(name) => gone("listener", name),
            });
        }
    }

    fn look_at_pools(&mut self, server: &Server, pools: &[Arc<Pool>], events: &mut Events) {
        let views = pools
            .iter()
            .map(|pool| snapshot::pool_without_backends(server, pool));
        let views: Vec<PoolView> = views.collect();
        let seen = views
            .iter()
            .map(|view| (view.name.clone(), PoolMarks::of(view), view));
        for difference in self.pools.replace(seen) {
            events.push(match difference {
                Difference::Seen(view, _) => {
                    let pool = view.clone();
                    (EventKind::Pool, data(&PoolEvent { pool }))
                }
                Difference::Gone(name) => gone("pool", name),
            });
        }
        let seen = views
            .iter()
            .map(|view| (view.name.clone(), DiscoveryMarks::of(view), view));
        for difference in self.discoveries.replace(seen) {
            // A new pool's event has it.
            if let Difference::Seen(view, Some(_)) = difference {
                let event = DiscoveryEvent {
                    pool: view.name.clone(),
                    discovery: view.discovery.clone(),
                    failing_lookups: view.failing_lookups.clone(),
                };
                events.push((EventKind::Discovery, data(&event)));
            }
        }
    }

    fn look_at_backends(&mut self, pools: &[Arc<Pool>], events: &mut Events) {
        let seen = backends(pools).map(|(key, pool, backend)| {
            let marks = BackendMarks::of(&backend);
            let changes = marks.changes;
            (key, marks, (pool, backend, changes))
        });
        for difference in self.backends.replace(seen) {
            events.push(match difference {
                Difference::Seen((pool, backend, changes), before) => {
                    let known = before.as_ref().map_or(changes, |before| before.changes);
                    let event = BackendEvent {
                        from: before.map(|before| before.state.to_owned()),
                        changes: changes.saturating_sub(known),
                        backend: snapshot::backend(pool, &backend),
                    };
                    (EventKind::Backend, data(&event))
                }
                Difference::Gone((pool, name)) => gone("backend", format!("{pool}/{name}")),
            });
        }
    }

    fn look_at_checks(&mut self, pools: &[Arc<Pool>], events: &mut Events) {
        let seen = backends(pools).map(|(key, pool, backend)| {
            let marks = CheckMarks::of(pool, &backend);
            (key, marks, (pool, backend))
        });
        for difference in self.checks.replace(seen) {
            // A new backend's event has it.
            if let Difference::Seen((pool, backend), Some(_)) = difference {
                let event = CheckEvent {
                    pool: pool.name().to_string(),
                    backend: backend.name().to_string(),
                    check: snapshot::check_word(pool, &backend).to_owned(),
                    reason: backend.check_reason(),
                };
                events.push((EventKind::Check, data(&event)));
            }
        }
    }

    fn look_at_reloads(&mut self, server: &Server, events: &mut Events) {
        let reloads = server.reloads();
        let now = (reloads.ok, reloads.failed);
        if self.reloads.replace(now) != Some(now) {
            let in_force = server.configuration();
            let event = ReloadEvent {
                ok: reloads.last_error.is_none(),
                number: in_force.number,
                hash: in_force.hash.clone(),
                error: reloads.last_error,
            };
            events.push((EventKind::Reload, data(&event)));
        }
    }

    /// Jobs that begin or enter another phase are told at once, their progress once a second.
    fn look_at_jobs(&mut self, server: &Server, with_progress: bool, events: &mut Events) {
        let jobs = server.jobs().list();
        let seen = jobs.iter().map(|job| {
            let known = self.jobs.of(&job.id).map(|marks| marks.progress);
            let known = known.filter(|_| !with_progress && !job.is_over());
            let marks = JobMarks {
                phase: job.phase(),
                progress: known.unwrap_or((job.ended(), job.left())),
            };
            (job.id, marks, job)
        });
        let seen: Vec<_> = seen.collect();
        for difference in self.jobs.replace(seen) {
            if let Difference::Seen(job, _) = difference {
                events.push((EventKind::Job, data(&snapshot::job(job))));
            }
        }
    }

    fn look_at_upgrade(&mut self, server: &Server, events: &mut Events) {
        let (handing_over, upgrade) = (server.is_handing_over(), snapshot::upgrade(server));
        let now = UpgradeMarks::of(handing_over, &upgrade);
        if self.upgrade.as_ref() != Some(&now) {
            let event = UpgradeEvent {
                handing_over,
                upgrade,
            };
            events.push((EventKind::Upgrade, data(&event)));
            self.upgrade = Some(now);
        }
    }

    fn look_at_cluster(&mut self, server: &Server, events: &mut Events) {
        let now = cluster::status(server);
        let marks = now.as_ref().map(ClusterView::without_numbers);
        if self.cluster != marks {
            events.push((EventKind::Cluster, data(&ClusterEvent { cluster: now })));
            self.cluster = marks;
        }
    }
}

/// Every backend that is listed, with its pool.
fn backends(pools: &[Arc<Pool>]) -> impl Iterator<Item = (BackendKey, &Arc<Pool>, Arc<Backend>)> {
    let of = |pool: &Arc<Pool>| pool.backends().into_iter().chain(pool.retired());
    let all = pools
        .iter()
        .flat_map(move |pool| of(pool).map(move |one| (pool, one)));
    all.map(|(pool, one)| {
        let key = (Arc::clone(pool.name()), Arc::clone(one.name()));
        (key, pool, one)
    })
}

fn gone(part: &'static str, name: String) -> (EventKind, String) {
    (EventKind::Gone, data(&GoneEvent { part, name }))
}

impl ClusterView {
    /// The view without all that differs at every look.
    fn without_numbers(&self) -> ClusterView {
        let member = |one: &MemberView| MemberView {
            age_seconds: 0.0,
            connections: 0,
            ..one.clone()
        };
        ClusterView {
            age_seconds: None,
            exchanges: 0,
            failures: 0,
            members: self.members.iter().map(member).collect(),
            ..self.clone()
        }
    }
}

impl UpgradeMarks {
    fn of(handing_over: bool, upgrade: &UpgradeView) -> UpgradeMarks {
        let predecessor = |one: &PredecessorView| PredecessorView {
            connections: 0,
            ..one.clone()
        };
        UpgradeMarks {
            handing_over,
            upgrade: UpgradeView {
                longest_freeze_seconds: 0.0,
                predecessor: upgrade.predecessor.as_ref().map(predecessor),
                ..upgrade.clone()
            },
        }
    }
}

impl BackendMarks {
    fn of(backend: &Backend) -> BackendMarks {
        BackendMarks {
            state: backend.state(Instant::now()).as_str(),
            reason: backend.reason(),
            changes: backend.counters().values().state_changes,
            words: [backend.operator().as_str(), backend.discovery().as_str()],
            numbers: (backend.weight(), backend.max_connections()),
            is_removed: backend.is_retired(),
        }
    }
}

impl CheckMarks {
    fn of(pool: &Pool, backend: &Backend) -> CheckMarks {
        let check = snapshot::check_word(pool, backend);
        let failed = backend.counters().values().checks_failed;
        CheckMarks {
            check,
            reason: backend.check_reason(),
            failed: if check == "up" { failed } else { 0 },
        }
    }
}

impl PoolMarks {
    fn of(view: &PoolView) -> PoolMarks {
        PoolMarks {
            balance: view.balance.clone(),
            is_removed: view.removed,
            panic: view.panic.clone(),
            file_errors: view.file_errors.clone(),
        }
    }
}

impl DiscoveryMarks {
    fn of(view: &PoolView) -> DiscoveryMarks {
        let discovery = view.discovery.clone().map(|discovery| DiscoveryView {
            age_seconds: None,
            errors: Vec::new(),
            ..discovery
        });
        DiscoveryMarks {
            discovery,
            failing: view.failing_lookups.clone(),
        }
    }
}

impl ListenerMarks {
    fn of(status: &ListenerStatus) -> ListenerMarks {
        ListenerMarks {
            state: snapshot::listener_word(status.state),
            bind: status.bind.to_string(),
            certificates: snapshot::certificates(status),
            certificate_error: status.certificate_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_drains_for_hours_is_no_event_each_second() {
        let upgrade = |process, connections| UpgradeView {
            predecessor: Some(PredecessorView {
                process,
                version: "1".into(),
                connections,
            }),
            longest_freeze_seconds: connections as f64,
            ..UpgradeView::default()
        };
        let marks = |process, left| UpgradeMarks::of(false, &upgrade(process, left));
        assert!(marks(7, 9000) == marks(7, 8999));
        assert!(marks(7, 9000) != marks(8, 9000));
        assert!(marks(7, 9000) != UpgradeMarks::of(true, &upgrade(7, 9000)));
        assert!(marks(7, 0) != UpgradeMarks::of(false, &UpgradeView::default()));
    }
}
