//! Moves live connections to backends that were added or have come back, in the pools that have `rebalance`.
//!
//! It looks at who takes new connections; where somebody new is among them, it plans (`balance::level`) and begins a job,
//! until the pool stands level. What has grown uneven by itself is left alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Server;
use super::jobs::{DrainRate, Job, JobPhase, JobTarget, OverloadedBackend, RebalancePlan};
use crate::balance::{self, level};
use crate::base::close_code::SERVICE_RESTART;
use crate::config::{Rebalance, UntoldSessions};
use crate::pool::{Backend, BackendLoad, Pool, supervise};
use crate::relay::CloseFrame;

/// Between two looks: soon beside the time that moving takes.
const LOOK_SPACING: Duration = Duration::from_secs(2);
/// Between the end of a job and the next plan, at least: who was told is not counted anywhere until it is back.
const RETURN_WAIT: Duration = Duration::from_secs(10);
/// What a client is told.
const REASON: &str = "rebalance";

impl Server {
    /// Starts to look at the pools; ends with the server.
    pub(super) fn follow_balance(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let committed = self.committed.subscribe();
        let looks = move || follow(Weak::clone(&server), committed.clone());
        self.watch().spawn(supervise("rebalance".to_owned(), looks));
    }
}

async fn follow(server: Weak<Server>, mut committed: watch::Receiver<()>) {
    let mut watched: BTreeMap<Arc<str>, RebalanceWatch> = BTreeMap::new();
    while let Some(server) = server.upgrade() {
        let pools = server.pools();
        watched.retain(|name, one| {
            let of = pools.iter().find(|pool| pool.name() == name);
            let stays = of.is_some_and(|pool| is_of(&server, pool).is_some());
            if !stays {
                one.abort(&server);
            }
            stays
        });
        for pool in pools {
            if let Some(settings) = is_of(&server, &pool) {
                let known = watched.entry(Arc::clone(pool.name())).or_default();
                known.look(&server, &pool, &settings).await;
            }
        }
        drop(server);
        if !watched.is_empty() {
            tokio::time::sleep(LOOK_SPACING).await;
        } else {
            // Until a reload no pool wants to be looked at. Fails when the server is gone.
            let _ = committed.changed().await;
        }
    }
}

/// The settings of a pool that is to be looked at.
fn is_of(server: &Server, pool: &Pool) -> Option<Rebalance> {
    let settings = pool.settings().rebalance;
    settings.filter(|_| !server.is_removed(pool))
}

/// What is known of one pool.
#[derive(Default)]
struct RebalanceWatch {
    /// Who took new connections at the latest look; none before the first.
    takers: Option<Vec<Arc<Backend>>>,
    /// Somebody new is among them, and the pool does not stand level yet.
    is_due: bool,
    job: Option<Arc<Job>>,
    not_before: Option<Instant>,
}

impl RebalanceWatch {
    async fn look(&mut self, server: &Server, pool: &Arc<Pool>, settings: &Rebalance) {
        if let Some(job) = self.job.take_if(|job| job.phase().is_over()) {
            self.not_before = Some(Instant::now() + settings.min_age.max(RETURN_WAIT));
            // The operator's word holds until somebody else is new.
            self.is_due &= job.phase() != JobPhase::Aborted;
        }
        let loads = pool.loads();
        self.note(pool, &loads);
        let waits = self.not_before.is_some_and(|at| Instant::now() < at);
        // A backend in its slow start is to get its share step by step.
        let is_busy = self.job.is_some();
        if !self.is_due || is_busy || waits || loads.iter().any(|load| load.is_growing) {
            return;
        }
        match plan(pool, &loads, settings) {
            None => self.is_due = false,
            Some(surplus) => self.job = begin(server, surplus, settings).await,
        }
    }

    /// Notes who takes new connections now.
    fn note(&mut self, pool: &Pool, loads: &[BackendLoad]) {
        let takers: Vec<_> = loads.iter().map(|load| Arc::clone(&load.backend)).collect();
        let before = self.takers.as_deref();
        let is_known = |one: &Arc<Backend>, among: &[Arc<Backend>]| {
            among.iter().any(|other| Arc::ptr_eq(other, one))
        };
        let is_new = |one: &Arc<Backend>| before.is_some_and(|before| !is_known(one, before));
        let somebody_is_new = takers.iter().any(is_new);
        if somebody_is_new {
            self.is_due = true;
            self.not_before = None;
        }
        if somebody_is_new || before.is_none_or(|before| before.len() != takers.len()) {
            let (pool, backends) = (pool.name(), takers.len());
            tracing::debug!(%pool, backends, somebody_is_new, "other backends take new connections");
        }
        self.takers = Some(takers);
    }

    fn abort(&self, server: &Server) {
        if let Some(job) = &self.job {
            server.jobs().abort(job.id);
        }
    }
}

/// Who gives how many, and who lacks some; `None`: it stands level.
fn plan(pool: &Arc<Pool>, loads: &[BackendLoad], settings: &Rebalance) -> Option<RebalancePlan> {
    let counts: Vec<_> = loads.iter().map(count).collect();
    let targets = level(&counts, settings.threshold_percent)?;
    let pairs = || loads.iter().zip(&targets);
    let donors = pairs().filter(|(load, keep)| load.live > **keep);
    let takers = pairs().filter(|(load, share)| load.live < **share);
    Some(RebalancePlan {
        pool: Arc::clone(pool),
        donors: donors
            .map(|(load, keep)| OverloadedBackend {
                backend: Arc::clone(&load.backend),
                keep: *keep,
                count: load.live - keep,
            })
            .collect(),
        takers: takers
            .map(|(load, share)| (Arc::clone(&load.backend), *share))
            .collect(),
        min_age: settings.min_age,
        untold: settings.tcp == UntoldSessions::Close,
    })
}

fn count(load: &BackendLoad) -> balance::NodeLoad {
    balance::NodeLoad {
        live: load.live,
        weight: load.weight.into(),
        max: load.max_connections,
    }
}

/// Begins, if somebody is there who may be moved.
async fn begin(
    server: &Server,
    mut surplus: RebalancePlan,
    settings: &Rebalance,
) -> Option<Arc<Job>> {
    for at in 0..surplus.donors.len() {
        let backend = Arc::clone(&surplus.donors[at].backend);
        let (movable, _) = surplus.movable(&backend, server.relay()).await;
        let donor = &mut surplus.donors[at];
        donor.count = donor.count.min(movable.len() as u64);
    }
    surplus.donors.retain(|donor| donor.count > 0);
    if surplus.donors.is_empty() {
        return None;
    }
    let pace = DrainRate {
        rate: Some(settings.rate),
        deadline: None,
        after: Duration::ZERO,
        goodbye: Arc::new(CloseFrame::new(SERVICE_RESTART, REASON)),
    };
    let (pool, connections) = (Arc::clone(surplus.pool.name()), surplus.count());
    let target = JobTarget::Surplus(Arc::new(surplus));
    // As many jobs run as may: there is another look.
    let job = server.end_connections(target, pace).ok()?;
    tracing::info!(job = job.id, %pool, connections, "moves connections to backends below their share");
    Some(job)
}
