//! Ending connections at a pace: jobs of the operator, on a backend or a listener that is drained or on what a filter finds, of
//! a rebalance, and those that failover begins, whose every portion their pool's guard has to grant.
//!
//! A job asks the relay's table who is there, quiet ones first, and ends a few at a time. It lives in the server, not in a
//! configuration: a reload does not touch it.

mod budget;
mod guard;
mod phase;
mod quota;
mod surplus;
mod target;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lock;
use crate::base::rate::Rate;
use crate::config;
use crate::pool::{Backend, OperatorState};
use crate::relay::Relay;
use crate::relay::{self, CloseFrame, SessionInfo};
pub use guard::{EndReason, Guard, Panic};
pub use phase::JobPhase;
use quota::Quota;
pub use surplus::{OverloadedBackend, RebalancePlan};
pub use target::JobTarget;

/// Jobs of one origin at once: each asks for the whole table now and then.
pub const MAX_RUNNING: usize = 32;
/// Jobs that are over and still listed.
const KEPT: usize = 32;
/// Between two portions, give or take a half: what is ended in one moment comes back in one moment.
const PORTION_SPACING: Duration = Duration::from_millis(100);
/// A look at the table is used for so long: who is quiet changes.
const LOOK_GOOD_FOR: Duration = Duration::from_secs(5);
/// Between two looks when nobody is there to be ended: what is left is in set-up, or is an HTTP request.
const LOOK_SPACING: Duration = Duration::from_secs(1);
/// Between two progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

/// How connections are ended.
#[derive(Debug, Clone)]
pub struct DrainRate {
    /// One of both is there.
    pub rate: Option<Rate>,
    pub deadline: Option<Duration>,
    /// They may end by themselves for so long.
    pub after: Duration,
    pub goodbye: Arc<CloseFrame>,
}

impl From<&config::Drain> for DrainRate {
    fn from(drain: &config::Drain) -> DrainRate {
        let config::Drain {
            rate,
            deadline,
            after,
            close,
        } = drain;
        DrainRate {
            rate: *rate,
            deadline: *deadline,
            after: *after,
            goodbye: Arc::new(CloseFrame::new(close.code, &close.reason)),
        }
    }
}

/// Who began a job.
#[derive(Debug, Clone)]
pub enum JobOrigin {
    Operator,
    /// Failover; each portion is granted by the guard of its pool.
    Health(Arc<Guard>, EndReason),
}

impl JobOrigin {
    pub fn as_str(&self) -> &'static str {
        match self {
            JobOrigin::Operator => "operator",
            JobOrigin::Health(..) => "health",
        }
    }

    fn is_health(&self) -> bool {
        matches!(self, JobOrigin::Health(..))
    }
}

/// One job.
#[derive(Debug)]
pub struct Job {
    pub id: u64,
    pub origin: JobOrigin,
    pub target: JobTarget,
    pub pace: DrainRate,
    pub started_at: SystemTime,
    /// Connections that were told to end.
    ended: AtomicU64,
    /// Connections still to end, as of the latest look.
    left: AtomicU64,
    /// And when it will be over, as it looks now.
    progress: Mutex<(JobPhase, Option<Instant>)>,
    /// It has counted its connections for the first time.
    counted: CancellationToken,
    stop: CancellationToken,
}

impl Job {
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn left(&self) -> u64 {
        match (self.target.live(), self.phase().is_over()) {
            (Some(live), false) => live,
            _ => self.left.load(Ordering::Relaxed),
        }
    }

    pub fn phase(&self) -> JobPhase {
        lock(&self.progress).0
    }

    /// Until it is over, as it looks now.
    pub fn left_in(&self) -> Option<Duration> {
        let over_at = lock(&self.progress).1?;
        Some(over_at.saturating_duration_since(Instant::now()))
    }

    /// Returns once it is known how many are left.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn counted(&self) {
        self.counted.cancelled().await;
    }

    /// Ends no more; those that are told already are ended.
    fn abort(&self) {
        self.stop.cancel();
    }

    pub fn is_over(&self) -> bool {
        self.phase().is_over()
    }

    /// It was told to end no more, whether it has come to that or not.
    pub fn is_aborted(&self) -> bool {
        self.stop.is_cancelled()
    }

    fn is_running(&self) -> bool {
        !self.is_over() && !self.is_aborted()
    }

    fn enter(&self, phase: JobPhase, left_in: Option<Duration>) {
        let over_at = left_in.and_then(|left_in| Instant::now().checked_add(left_in));
        *lock(&self.progress) = (phase, over_at);
    }

    fn count_one(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, left: u64, left_in: Option<Duration>) {
        self.left.store(left, Ordering::Relaxed);
        self.enter(JobPhase::Ending, left_in);
    }

    async fn run(self: Arc<Self>, relay: Arc<Relay>) {
        let is_stopped = tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = self.work(&relay) => false,
        };
        let left = match is_stopped {
            true => self.untold(&relay).await,
            false => self.left(),
        };
        let phase = match is_stopped && (left > 0 || self.phase() != JobPhase::Ending) {
            true => JobPhase::Aborted,
            false => JobPhase::Done,
        };
        self.left.store(left, Ordering::Relaxed);
        self.enter(phase, None);
        self.counted.cancel();
        tracing::info!(
            job = self.id,
            ended = self.ended(),
            left = self.left(),
            "{}",
            phase.as_str()
        );
    }

    async fn work(&self, relay: &Relay) {
        let DrainRate {
            rate,
            deadline,
            after,
            ..
        } = self.pace;
        self.count(relay).await;
        if let JobTarget::Surplus(surplus) = &self.target {
            return surplus.work(self, relay).await;
        }
        let _ = tokio::time::timeout(after, self.target.emptied()).await;
        let began = Instant::now();
        let mut seen = began;
        let mut quota = Quota::new(rate, deadline);
        let mut told = began;
        let mut standing = self.look(relay).await;
        loop {
            let looked = Instant::now();
            while !standing.is_empty() && looked.elapsed() < LOOK_GOOD_FOR {
                self.end_some(relay, &mut standing, &mut quota, began);
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    let (ended, left) = (self.ended(), self.left());
                    tracing::info!(job = self.id, ended, left, "ending connections");
                }
                tokio::time::sleep(PORTION_SPACING.mul_f64(0.5 + fastrand::f64())).await;
            }
            match &self.target {
                JobTarget::Filter(_) | JobTarget::Move(_) if standing.is_empty() => return,
                // The same ones, in the order of now.
                JobTarget::Filter(_) | JobTarget::Move(_) => {
                    let now = self.look(relay).await;
                    let still: HashSet<relay::Handle> =
                        standing.iter().map(|one| one.handle).collect();
                    standing = now
                        .into_iter()
                        .filter(|one| still.contains(&one.handle))
                        .collect();
                }
                whole => {
                    if standing.is_empty() {
                        // What nobody was there for is not made up for.
                        quota.take(0, began.elapsed());
                        let _ = tokio::time::timeout(LOOK_SPACING, whole.emptied()).await;
                    }
                    if whole.is_empty(seen.elapsed()) {
                        return;
                    }
                    standing = self.look(relay).await;
                    if !standing.is_empty() {
                        seen = Instant::now();
                    }
                }
            }
        }
    }

    /// Says how many are meant and how long they will take, before the first is told.
    async fn count(&self, relay: &Relay) {
        match &self.target {
            JobTarget::Surplus(surplus) => self.left.store(surplus.count(), Ordering::Relaxed),
            _ => drop(self.look(relay).await),
        }
        let DrainRate {
            rate,
            deadline,
            after,
            ..
        } = self.pace;
        let ending = Quota::new(rate, deadline).left_in(self.left(), Duration::ZERO);
        self.enter(
            JobPhase::Waiting,
            ending.map(|ending| after.saturating_add(ending)),
        );
        self.counted.cancel();
    }

    /// Who is there and not told yet; the quietest stand last.
    async fn look(&self, relay: &Relay) -> Vec<SessionInfo> {
        let mut standing = relay.list_all(self.target.filter()).await;
        standing.retain(|one| self.target.means(one));
        standing.sort_by_key(|one| one.idle);
        self.left.store(standing.len() as u64, Ordering::Relaxed);
        standing
    }

    /// How many it leaves when it is stopped: who was told is on its way out, and who came since is not meant.
    async fn untold(&self, relay: &Relay) -> u64 {
        if self.target.live().is_none() {
            return self.left.load(Ordering::Relaxed);
        }
        let stopped = Instant::now();
        let standing = relay.list_all(self.target.filter()).await;
        let since = stopped.elapsed();
        let is_left = |one: &&SessionInfo| one.age >= since && self.target.means(one);
        standing.iter().filter(is_left).count() as u64
    }

    fn end_some(
        &self,
        relay: &Relay,
        standing: &mut Vec<SessionInfo>,
        quota: &mut Quota,
        began: Instant,
    ) {
        let now = began.elapsed();
        let due = quota.take(standing.len() as u64, now);
        let granted = match (&self.origin, &self.target) {
            (JobOrigin::Health(guard, why), JobTarget::Backend(backend)) => {
                guard.grant(due, backend, *why)
            }
            _ => due,
        };
        for _ in 0..granted {
            if let Some(one) = standing.pop() {
                self.target.end(relay, one.handle, &self.pace.goodbye);
                self.count_one();
            }
        }
        let left = standing.len() as u64;
        // Nobody knows when what is held back may go.
        let left_in = quota.left_in(left, now).filter(|_| granted == due);
        self.tell(left, left_in);
    }
}

/// The jobs of a server, the latest last.
#[derive(Debug, Default)]
pub struct Jobs {
    latest: AtomicU64,
    jobs: Mutex<VecDeque<Arc<Job>>>,
}

/// As many jobs run as may.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_RUNNING} jobs are running already; abort one or wait")]
pub struct TooMany;

impl Jobs {
    /// Begins a job of the operator, or of a rebalance; one on the same backend or listener is aborted.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn start(
        &self,
        target: JobTarget,
        pace: DrainRate,
        relay: &Arc<Relay>,
        runtime: &Handle,
    ) -> Result<Arc<Job>, TooMany> {
        let mut jobs = lock(&self.jobs);
        abort(&jobs, &target);
        let job = self.add(&mut jobs, JobOrigin::Operator, target, pace)?;
        runtime.spawn(Arc::clone(&job).run(Arc::clone(relay)));
        Ok(job)
    }

    /// Begins a job of failover. `None` where the operator has the backend, one runs on it, or as many run as may.
    pub(super) fn start_for_health(
        &self,
        backend: &Arc<Backend>,
        pace: DrainRate,
        origin: JobOrigin,
        relay: &Arc<Relay>,
        runtime: &Handle,
    ) -> Option<Arc<Job>> {
        let mut jobs = lock(&self.jobs);
        let target = JobTarget::Backend(Arc::clone(backend));
        let is_on_it = |job: &Arc<Job>| job.target.is(&target) && job.is_running();
        // Asked under the lock that the operator's word takes behind its change: that aborts what is begun before it.
        if jobs.iter().any(is_on_it) || backend.operator() != OperatorState::Ready {
            return None;
        }
        let job = self.add(&mut jobs, origin, target, pace).ok()?;
        runtime.spawn(Arc::clone(&job).run(Arc::clone(relay)));
        Some(job)
    }

    fn add(
        &self,
        jobs: &mut VecDeque<Arc<Job>>,
        origin: JobOrigin,
        target: JobTarget,
        pace: DrainRate,
    ) -> Result<Arc<Job>, TooMany> {
        let is_alike = |job: &&Arc<Job>| job.origin.is_health() == origin.is_health();
        let running = jobs.iter().filter(is_alike).filter(|job| job.is_running());
        if running.count() >= MAX_RUNNING {
            return Err(TooMany);
        }
        // Nobody comes back to a backend that is down.
        if !origin.is_health() {
            target.set_emptying(true);
        }
        let job = Arc::new(Job {
            id: self.latest.fetch_add(1, Ordering::Relaxed) + 1,
            origin,
            target,
            pace,
            started_at: SystemTime::now(),
            ended: AtomicU64::new(0),
            left: AtomicU64::new(0),
            progress: Mutex::new((JobPhase::Waiting, None)),
            counted: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        while jobs.len() >= 2 * MAX_RUNNING + KEPT {
            let Some(oldest) = jobs.iter().position(|job| job.is_over()) else {
                break;
            };
            jobs.remove(oldest);
        }
        jobs.push_back(Arc::clone(&job));
        Ok(job)
    }

    /// What is left of its connections stays.
    pub fn abort_of(&self, target: &JobTarget) {
        let jobs = lock(&self.jobs);
        abort(&jobs, target);
        target.set_emptying(false);
    }

    /// Ends no more by that job; those that are told already are ended. `None`: there is no such job.
    pub fn abort(&self, id: u64) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        let job = jobs.iter().find(|job| job.id == id)?;
        if !job.phase().is_over() {
            job.abort();
            let is_replaced = |later: &Arc<Job>| later.id > id && later.target.is(&job.target);
            if !jobs.iter().any(is_replaced) {
                job.target.set_emptying(false);
            }
        }
        Some(Arc::clone(job))
    }

    /// The same of what failover began; the operator's goes on.
    pub(super) fn abort_health_of(&self, backend: &Arc<Backend>) {
        let jobs = lock(&self.jobs);
        let target = JobTarget::Backend(Arc::clone(backend));
        let is_meant = |job: &&Arc<Job>| job.target.is(&target) && job.origin.is_health();
        jobs.iter().filter(is_meant).for_each(|job| job.abort());
    }

    pub fn list(&self) -> Vec<Arc<Job>> {
        lock(&self.jobs).iter().cloned().collect()
    }

    pub fn find(&self, id: u64) -> Option<Arc<Job>> {
        lock(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    /// What is being done to the connections of that backend or listener.
    pub fn of(&self, target: &JobTarget) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        let is_of = |job: &&Arc<Job>| job.target.is(target) && job.is_running();
        jobs.iter().rev().find(is_of).cloned()
    }
}

fn abort(jobs: &VecDeque<Arc<Job>>, target: &JobTarget) {
    for job in jobs.iter().filter(|job| job.target.is(target)) {
        job.abort();
    }
}
