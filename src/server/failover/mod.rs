//! Acts on live sessions as backends go down and come back: looks at the pools a few times a second and has jobs end what
//! the policy says. A job that it began is aborted when its cause has gone; the operator's jobs are left alone.

mod policy;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::policy::{BackendObservation, FailoverAction, FailoverPolicy, Health, Work};
use super::jobs::{DrainRate, EndReason, Guard, Job, Panic};
use super::{Server, lock};
use crate::config::{self, OnDown, defaults};
use crate::pool::{Backend, OperatorState, Pool, supervise};
use crate::relay::CloseFrame;

/// Between two looks: little beside any grace, and nothing to a pool of thousands.
const LOOK: Duration = Duration::from_millis(250);
/// "At once", without the whole of it in one moment.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What is known of it elsewhere in the server.
#[derive(Debug, Default)]
pub(super) struct FailoverStatus {
    guards: Mutex<BTreeMap<String, Arc<Guard>>>,
    /// Backends of which the operator has said `ready` since the last look.
    kept: Mutex<Vec<Arc<Backend>>>,
}

impl FailoverStatus {
    /// The operator wants the sessions of that backend kept.
    pub fn keep(&self, backend: &Arc<Backend>) {
        let mut kept = lock(&self.kept);
        // Bounded by the backends there are: each look takes them.
        if !kept.iter().any(|one| Arc::ptr_eq(one, backend)) {
            kept.push(Arc::clone(backend));
        }
    }

    /// What was said while nobody looked counts for nothing.
    fn forget_kept(&self) {
        lock(&self.kept).clear();
    }

    fn guard_of(&self, pool: &Arc<Pool>) -> Arc<Guard> {
        let mut guards = lock(&self.guards);
        let known = guards.get(&**pool.name());
        if let Some(guard) = known.filter(|guard| guard.is_of(pool)) {
            return Arc::clone(guard);
        }
        let guard = Guard::new(pool);
        guards.insert(pool.name().to_string(), Arc::clone(&guard));
        guard
    }
}

impl Server {
    /// What a pool's failover may end, and has ended; `None` where it was never asked to.
    pub fn guard(&self, pool: &Pool) -> Option<Arc<Guard>> {
        let guards = lock(&self.failover.guards);
        let guard = guards.get(&**pool.name())?;
        guard.is_of(pool).then(|| Arc::clone(guard))
    }

    /// Starts to follow the health of all pools; ends with the server.
    pub(super) fn follow_health(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let committed = self.committed.subscribe();
        let follow = move || follow(server.clone(), committed.clone());
        self.watch().spawn(supervise("failover".to_owned(), follow));
    }
}

async fn follow(server: Weak<Server>, mut committed: watch::Receiver<()>) {
    let mut watched = BTreeMap::new();
    while let Some(running) = server.upgrade() {
        // A process that stops ends all sessions anyway, at its own pace.
        let is_ready = running.ready();
        if is_ready {
            look(&running, &mut watched);
        }
        drop(running);
        if !is_ready || !watched.is_empty() {
            tokio::time::sleep(LOOK).await;
        } else {
            // Until a reload no pool wants to be looked at. Fails when the server is gone.
            let _ = committed.changed().await;
            if let Some(server) = server.upgrade() {
                server.failover.forget_kept();
            }
        }
    }
}

fn look(server: &Server, watched: &mut BTreeMap<String, FailoverWatch>) {
    let kept = std::mem::take(&mut *lock(&server.failover.kept));
    let pools = server.pools();
    let is_there = |name: &str| pools.iter().any(|pool| **pool.name() == *name);
    watched.retain(|name, _| is_there(name));
    lock(&server.failover.guards).retain(|name, _| is_there(name));
    for pool in pools {
        let name = &**pool.name();
        let is_known = watched.get(name).is_some_and(|one| one.guard.is_of(&pool));
        if !is_known {
            if pool.settings().failover.keeps_all() {
                continue;
            }
            let guard = server.failover.guard_of(&pool);
            watched.insert(name.to_owned(), FailoverWatch::new(guard));
        }
        if let Some(one) = watched.get_mut(name) {
            one.look(server, &pool, &kept);
        }
    }
}

/// A pool that has, or had, something to be done.
struct FailoverWatch {
    guard: Arc<Guard>,
    policy: FailoverPolicy,
    /// By backend.
    jobs: BTreeMap<String, Arc<Job>>,
}

impl FailoverWatch {
    fn new(guard: Arc<Guard>) -> FailoverWatch {
        FailoverWatch {
            guard,
            policy: FailoverPolicy::default(),
            jobs: BTreeMap::new(),
        }
    }

    fn look(&mut self, server: &Server, pool: &Arc<Pool>, kept: &[Arc<Backend>]) {
        let (settings, now) = (pool.settings(), Instant::now());
        let backends: Vec<_> = pool.backends().into_iter().chain(pool.retired()).collect();
        let seen: Vec<BackendObservation<'_>> = backends
            .iter()
            .map(|backend| BackendObservation {
                name: backend.name(),
                health: health(backend),
                backup: backend.backup(),
                live: backend.live(),
                work: self.work(backend),
                kept: kept.iter().any(|one| Arc::ptr_eq(one, backend)),
            })
            .collect();
        let failover = &settings.failover;
        for order in self.policy.decide(failover, &seen, now.into_std()) {
            match order {
                FailoverAction::End(index, why) => {
                    self.begin(server, &backends[index], &settings, why)
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
        let is_stranded =
            |one: &BackendObservation<'_>| matches!(one.health, Health::Down(_)) && one.live > 0;
        let nobody = !seen.iter().any(|one| one.is_usable());
        let stranded = failover.on_down != OnDown::Keep && nobody && seen.iter().any(is_stranded);
        if stranded {
            self.guard.hold(Panic::NoBackend);
        }
        let busy = self.jobs.values().any(|job| !job.is_over());
        self.guard.settle(!busy && !stranded);
    }

    /// Forgets a job that is over.
    fn work(&mut self, backend: &Backend) -> Work {
        let name = &**backend.name();
        let Some(job) = self.jobs.get(name) else {
            return Work::None;
        };
        let work = match (job.is_aborted(), job.is_over()) {
            // By somebody else: what is aborted here is forgotten at once.
            (true, _) => Work::Stopped,
            (false, true) => Work::None,
            (false, false) => return Work::Running,
        };
        self.jobs.remove(name);
        work
    }

    fn begin(
        &mut self,
        server: &Server,
        backend: &Arc<Backend>,
        settings: &config::Pool,
        why: EndReason,
    ) {
        let guard = Arc::clone(&self.guard);
        // As many run as may, or the operator has begun one: the next look sees.
        let Some(job) = server.end_for_health(backend, pace(settings, why), guard, why) else {
            return;
        };
        let (pool, live) = (backend.pool(), backend.live());
        match why {
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

/// Of a backend that the operator has, or that is removed, no check decides anything.
fn health(backend: &Backend) -> Health {
    if backend.is_retired() || backend.operator() != OperatorState::Ready {
        return Health::Apart;
    }
    // Its time first: an ejection may be over.
    let since = backend.since();
    match (backend.takes_new(), backend.check_up()) {
        (true, _) => Health::Usable(since),
        (false, false) => Health::Down(since),
        (false, true) => Health::Apart,
    }
}

/// The pool's own pace, without a wait of its own: that was the grace.
fn pace(settings: &config::Pool, why: EndReason) -> DrainRate {
    let usual = || DrainRate {
        rate: Some(defaults::DRAIN_RATE),
        deadline: None,
        after: Duration::ZERO,
        goodbye: Arc::new(CloseFrame::new(defaults::CLOSE_CODE as u16, "")),
    };
    let pace = settings.drain.as_ref().map_or_else(usual, DrainRate::from);
    let at_once = why == EndReason::Down && settings.failover.on_down == OnDown::Close;
    DrainRate {
        rate: pace.rate.filter(|_| !at_once),
        deadline: if at_once {
            Some(CLOSE_WITHIN)
        } else {
            pace.deadline
        },
        after: Duration::ZERO,
        goodbye: pace.goodbye,
    }
}
