//! Rebalance: moves live connections to backends that were added or have come back, in the pools
//! that have `rebalance`.
//!
//! It watches which backends take new connections. When a new one is among them, it plans
//! (`balance::level`) and starts jobs until the pool is balanced. A pool that becomes uneven by
//! itself is left alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::jobs::{DrainRate, Job, JobPhase, JobRequest, OverloadedBackend, RebalancePlan};
use crate::balance::{NodeLoad, level};
use crate::base::close_code::SERVICE_RESTART;
use crate::config::{Rebalance, UntoldSessions};
use crate::pool::{Backend, BackendLoad, Pool};
use crate::relay::CloseFrame;
use crate::server::state::Server;
use crate::server::watch::pools::PoolWatcher;

/// Between the end of a job and the next plan, at least: clients that were moved are not counted
/// anywhere until they are back.
const RETURN_WAIT: Duration = Duration::from_secs(10);
/// Reason in the Close that a client gets.
const REASON: &str = "rebalance";

/// Rebalance of one pool.
#[derive(Default)]
pub(super) struct RebalanceWatch {
    /// Backends that took new connections at the latest look; none before the first.
    takers: Option<Vec<Arc<Backend>>>,
    /// A new backend is among them, and the pool is not balanced yet.
    is_due: bool,
    job: Option<Arc<Job>>,
    not_before: Option<Instant>,
}

impl PoolWatcher for RebalanceWatch {
    const NAME: &str = "rebalance";
    /// Short beside the time that moving takes.
    const SPACING: Duration = Duration::from_secs(2);

    fn begin(server: &Server, pool: &Arc<Pool>) -> Option<RebalanceWatch> {
        settings(server, pool).map(|_| RebalanceWatch::default())
    }

    fn goes_on(&self, server: &Server, pool: &Arc<Pool>) -> bool {
        settings(server, pool).is_some()
    }

    async fn look(&mut self, server: &Server, pool: &Arc<Pool>) {
        let Some(settings) = pool.settings().rebalance else {
            return;
        };
        if let Some(job) = self.job.take_if(|job| job.is_over()) {
            self.not_before = Some(Instant::now() + settings.min_age.max(RETURN_WAIT));
            // An abort by the operator holds until another backend is new.
            self.is_due &= job.phase() != JobPhase::Aborted;
        }
        let loads = pool.loads();
        self.note_takers(pool, &loads);
        let waits = self.not_before.is_some_and(|at| Instant::now() < at);
        // A backend in its slow start is to get its share step by step.
        let is_busy = self.job.is_some();
        if !self.is_due || is_busy || waits || loads.iter().any(|load| load.is_growing) {
            return;
        }
        match plan(pool, &loads, &settings) {
            None => self.is_due = false,
            Some(plan) => self.job = begin_job(server, plan, &settings).await,
        }
    }

    fn end(self, server: &Server) {
        if let Some(job) = self.job {
            server.jobs().abort(job.id);
        }
    }
}

/// The settings of a pool that is to be rebalanced.
fn settings(server: &Server, pool: &Pool) -> Option<Rebalance> {
    let settings = pool.settings().rebalance;
    settings.filter(|_| !server.is_removed(pool))
}

impl RebalanceWatch {
    /// Notes the backends that take new connections now.
    fn note_takers(&mut self, pool: &Pool, loads: &[BackendLoad]) {
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
}

/// Plans how many connections each backend gives or gets; `None`: the pool is balanced. In a
/// cluster all balancers plan alike, by the connections of all, and each moves its part.
fn plan(pool: &Arc<Pool>, loads: &[BackendLoad], settings: &Rebalance) -> Option<RebalancePlan> {
    let counts: Vec<_> = loads.iter().map(count).collect();
    let shares = level(&counts, settings.threshold_percent)?;
    let pairs = || loads.iter().zip(&shares);
    let surplus = |load: &BackendLoad, share: u64| load.live.all().saturating_sub(share);
    let above = pairs().filter(|(load, share)| surplus(load, **share) > 0);
    let overloaded: Vec<OverloadedBackend> = above
        .map(|(load, share)| {
            let count = load.live.part_of(surplus(load, *share));
            OverloadedBackend {
                backend: Arc::clone(&load.backend),
                share: load.live.own - count,
                count,
            }
        })
        .collect();
    let all: u64 = pairs().map(|(load, share)| surplus(load, *share)).sum();
    let own: u64 = overloaded.iter().map(|one| one.count).sum();
    let underloaded = pairs().filter(|(load, share)| load.live.all() < **share);
    Some(RebalancePlan {
        pool: Arc::clone(pool),
        overloaded,
        underloaded: underloaded
            .map(|(load, share)| (Arc::clone(&load.backend), *share))
            .collect(),
        part: own as f64 / all.max(1) as f64,
        min_age: settings.min_age,
        untold: settings.tcp == UntoldSessions::Close,
    })
}

fn count(load: &BackendLoad) -> NodeLoad {
    NodeLoad {
        live: load.live.all(),
        weight: load.weight.into(),
        max: load.max_connections,
    }
}

/// Starts the job, if there are sessions that may be moved.
async fn begin_job(
    server: &Server,
    mut plan: RebalancePlan,
    settings: &Rebalance,
) -> Option<Arc<Job>> {
    for index in 0..plan.overloaded.len() {
        let backend = Arc::clone(&plan.overloaded[index].backend);
        let (movable, _) = plan.movable(&backend, server.relay()).await;
        let one = &mut plan.overloaded[index];
        one.count = one.count.min(movable.len() as u64);
    }
    plan.overloaded.retain(|one| one.count > 0);
    if plan.overloaded.is_empty() {
        return None;
    }
    let pace = DrainRate {
        rate: Some(settings.rate),
        deadline: None,
        after: Duration::ZERO,
        close_frame: Arc::new(CloseFrame::new(SERVICE_RESTART, REASON)),
        is_local: false,
    };
    let (pool, connections) = (Arc::clone(plan.pool.name()), plan.count());
    // As many jobs run as may: there is another look.
    let job = server
        .jobs()
        .start(JobRequest::rebalance(plan, pace))
        .ok()?;
    tracing::info!(job = job.id, %pool, connections, "moves connections to backends below their share");
    Some(job)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::pool::{BackendRequest, ClusterExchange, Lease};

    const SETTINGS: Rebalance = Rebalance {
        threshold_percent: 20,
        rate: crate::base::rate::Rate::per_second(10),
        min_age: Duration::ZERO,
        tcp: UntoldSessions::Keep,
    };

    fn pool() -> Arc<Pool> {
        let text = "[[listener]]\nname = \"l\"\nbind = \"[::]:80\"\nprotocol = \"tcp\"\npool = \"p\"\n\
            [pool.p]\nbalance = \"least_conn\"\nbackend = [\n\
            { name = \"a\", address = \"10.0.0.1:80\" },\n\
            { name = \"b\", address = \"10.0.0.2:80\" },\n\
            { name = \"c\", address = \"10.0.0.3:80\" },\n]\n";
        let config = config::parse(text, Path::new("balancer.toml")).unwrap();
        Pool::new(&config.pools["p"])
    }

    /// A balancer with that many connections on `a`, `b` and `c`.
    fn balancer(counts: [u64; 3]) -> (Arc<Pool>, Vec<Lease>) {
        let pool = pool();
        let mut leases = Vec::new();
        for (backend, count) in pool.backends().iter().zip(counts) {
            let request = BackendRequest {
                preferred: Some(backend),
                ..BackendRequest::default()
            };
            let taken = || pool.acquire_now(&request).unwrap().unwrap();
            leases.extend((0..count).map(|_| taken()));
        }
        (pool, leases)
    }

    /// Two balancers with 30 and 10 connections on each full backend move a quarter of each, to the
    /// third one, at the parts of one rate.
    #[test]
    fn balancers_plan_alike_and_each_moves_its_part() {
        let counts = [[30, 30, 0], [10, 10, 0]];
        let balancers = counts.map(balancer);
        let mut moved = 0;
        let mut parts = 0.0;
        for (at, (pool, _leases)) in balancers.iter().enumerate() {
            let others = counts[1 - at];
            pool.set_cluster_loads(&ClusterExchange {
                members: 2,
                others: &|name| others["abc".find(name).unwrap()],
                shares_load: true,
                shares_drain: true,
            });
            let plan = plan(pool, &pool.loads(), &SETTINGS).unwrap();
            let shares: Vec<u64> = plan.underloaded.iter().map(|(_, share)| *share).collect();
            assert_eq!(shares, [26]);
            assert!(plan.helps());
            assert!(
                plan.overloaded
                    .iter()
                    .all(|one| one.share + one.count == counts[at][0])
            );
            moved += plan.count();
            parts += plan.part;
        }
        // Of 26 two may be one more, as each balancer rounds up.
        assert!((26..=28).contains(&moved), "{moved}");
        assert!((1.0..1.1).contains(&parts), "{parts}");
    }

    #[test]
    fn what_is_even_over_all_is_left_alone() {
        let (pool, _leases) = balancer([20, 0, 0]);
        pool.set_cluster_loads(&ClusterExchange {
            members: 2,
            others: &|name| u64::from(name != "a") * 20,
            shares_load: true,
            shares_drain: true,
        });
        assert!(plan(&pool, &pool.loads(), &SETTINGS).is_none());
    }
}
