//! A job: its progress, and the loop that ends connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::balanced::UntilBalanced;
use super::quota::Quota;
use super::request::{DrainRate, JobAction, JobEnd, JobOrigin, JobRequest};
use super::rounds::{Rounds, Sessions, UntilAllEnded, UntilEmpty};
use super::target::JobTarget;
use crate::relay::{Relay, SessionInfo};
use crate::server::lock::lock;

/// Between two portions, give or take a half: clients that are ended in one moment come back in one
/// moment.
const PORTION_SPACING: Duration = Duration::from_millis(100);
/// Between two progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

/// A job that ends connections.
#[derive(Debug)]
pub(crate) struct Job {
    pub id: u64,
    pub origin: JobOrigin,
    pub target: JobTarget,
    pub action: JobAction,
    until: JobEnd,
    pub pace: DrainRate,
    pub started_at: SystemTime,
    /// Connections that were told to end.
    ended: AtomicU64,
    /// Connections still to end, as of the latest list.
    left: AtomicU64,
    progress: Mutex<JobProgress>,
    /// Set when the connections were counted for the first time.
    counted: CancellationToken,
    stop: CancellationToken,
}

#[derive(Debug)]
struct JobProgress {
    phase: JobPhase,
    /// Expected end.
    over_at: Option<Instant>,
}

/// Phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobPhase {
    /// The connections may end by themselves.
    Waiting,
    Ending,
    Done,
    Aborted,
}

impl JobPhase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            JobPhase::Waiting => "waiting",
            JobPhase::Ending => "ending",
            JobPhase::Done => "done",
            JobPhase::Aborted => "aborted",
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, JobPhase::Done | JobPhase::Aborted)
    }
}

impl Job {
    pub(super) fn new(id: u64, origin: JobOrigin, request: JobRequest) -> Job {
        let JobRequest {
            target,
            action,
            until,
            pace,
        } = request;
        Job {
            id,
            origin,
            target,
            action,
            until,
            pace,
            started_at: SystemTime::now(),
            ended: AtomicU64::new(0),
            left: AtomicU64::new(0),
            progress: Mutex::new(JobProgress {
                phase: JobPhase::Waiting,
                over_at: None,
            }),
            counted: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The same job, which another process began then and which has `ended` so many connections.
    pub(super) fn begun(self, started_at: SystemTime, ended: u64) -> Job {
        Job {
            started_at,
            ended: AtomicU64::new(ended),
            ..self
        }
    }

    /// Connections that were told to end.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Connections still to end.
    pub(crate) fn left(&self) -> u64 {
        match (self.target.live(), self.is_over()) {
            (Some(live), false) => live,
            _ => self.left.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn phase(&self) -> JobPhase {
        lock(&self.progress).phase
    }

    /// Time until the expected end.
    pub(crate) fn left_in(&self) -> Option<Duration> {
        let over_at = lock(&self.progress).over_at?;
        Some(over_at.saturating_duration_since(Instant::now()))
    }

    /// Returns once it is known how many connections are left.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn counted(&self) {
        self.counted.cancelled().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase().is_over()
    }

    /// Whether the job was aborted; its task may not have seen that yet.
    pub(crate) fn is_aborted(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.is_over() && !self.is_aborted()
    }

    /// Ends no more connections; those that were told already end.
    pub(super) fn abort(&self) {
        self.stop.cancel();
    }

    fn enter(&self, phase: JobPhase, left: u64, left_in: Option<Duration>) {
        let over_at = left_in.and_then(|left_in| Instant::now().checked_add(left_in));
        self.left.store(left, Ordering::Relaxed);
        *lock(&self.progress) = JobProgress { phase, over_at };
    }

    /// Runs to the end, or until it is aborted.
    pub(super) async fn run(self: Arc<Self>, relay: Arc<Relay>) {
        let sessions = Sessions {
            relay: &relay,
            target: &self.target,
            action: self.action,
        };
        let is_stopped = tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = self.work(&sessions) => false,
        };
        let left = if is_stopped {
            self.left_behind(&sessions).await
        } else {
            self.left()
        };
        let is_aborted = is_stopped && (left > 0 || self.phase() != JobPhase::Ending);
        let phase = if is_aborted {
            JobPhase::Aborted
        } else {
            JobPhase::Done
        };
        self.enter(phase, left, None);
        self.counted.cancel();
        tracing::info!(
            job = self.id,
            ended = self.ended(),
            left,
            "{}",
            phase.as_str()
        );
    }

    async fn work(&self, sessions: &Sessions<'_>) {
        self.count(sessions).await;
        let _ = timeout(self.pace.after, self.target.emptied()).await;
        let relay = sessions.relay;
        match &self.until {
            JobEnd::Empty => self.end_all(relay, UntilEmpty::new(sessions)).await,
            JobEnd::AllEnded => self.end_all(relay, UntilAllEnded(sessions)).await,
            JobEnd::Balanced(plan) => self.end_all(relay, UntilBalanced::new(plan, relay)).await,
        }
    }

    /// The fraction of the rate that is this balancer's, as of the last exchange with its cluster.
    fn part(&self) -> f64 {
        match (&self.until, &self.target) {
            _ if self.pace.is_local => 1.0,
            (JobEnd::Balanced(plan), _) => plan.part,
            (_, JobTarget::Backend(backend)) => backend.drain_load().fraction(),
            _ => 1.0,
        }
    }

    /// Counts the connections and estimates the end, before the first is told to end.
    async fn count(&self, sessions: &Sessions<'_>) {
        let count = match &self.until {
            JobEnd::Balanced(plan) => plan.count(),
            JobEnd::Empty | JobEnd::AllEnded => sessions.list().await.len() as u64,
        };
        let mut quota = Quota::new(self.pace.rate, self.pace.deadline);
        quota.set_part(self.part());
        let ending = quota.left_in(self.target.live().unwrap_or(count), Duration::ZERO);
        let left_in = ending.map(|ending| self.pace.after.saturating_add(ending));
        self.enter(JobPhase::Waiting, count, left_in);
        self.counted.cancel();
    }

    /// The loop of every job: lists sessions and ends them portion by portion.
    async fn end_all<R: Rounds>(&self, relay: &Relay, mut rounds: R) {
        let mut quota = Quota::new(self.pace.rate, self.pace.deadline);
        let began = Instant::now();
        let (mut logged_at, mut left) = (began, None);
        while let Some(mut list) = rounds.next(left).await {
            let listed_at = Instant::now();
            while rounds.lasts(&list) && listed_at.elapsed() < R::LIST_AGE {
                let now = began.elapsed();
                quota.set_part(self.part());
                let due = quota.take(list.len() as u64, now);
                let granted = self.end_some(relay, &mut rounds, &mut list, due);
                let left = rounds.left(list.len() as u64);
                // Nobody knows when sessions that the guard holds back may go.
                let left_in = quota.left_in(left, now).filter(|_| granted == due);
                self.enter(JobPhase::Ending, left, left_in);
                if logged_at.elapsed() >= PROGRESS {
                    logged_at = Instant::now();
                    let (ended, left) = (self.ended(), self.left());
                    tracing::info!(job = self.id, ended, left, "ending connections");
                }
                sleep(PORTION_SPACING.mul_f64(0.5 + fastrand::f64())).await;
            }
            if list.is_empty() {
                // Time in which no session was there is not made up for.
                quota.take(0, began.elapsed());
            }
            left = Some(list);
        }
    }

    /// Ends the sessions that are due; returns how many of them the guard grants.
    fn end_some(
        &self,
        relay: &Relay,
        rounds: &mut impl Rounds,
        list: &mut Vec<SessionInfo>,
        due: u64,
    ) -> u64 {
        let granted = match (&self.origin, &self.target) {
            (JobOrigin::Health(guard, reason), JobTarget::Backend(backend)) => {
                guard.grant(due, backend, *reason)
            }
            _ => due,
        };
        for _ in 0..granted {
            let session = list.pop().filter(|session| rounds.take(session));
            if let Some(session) = session {
                self.action.apply(relay, &session, &self.pace.close_frame);
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
        granted
    }

    /// Sessions that an aborted job leaves: those that were told to end are on their way out, and
    /// those that came since are not meant.
    async fn left_behind(&self, sessions: &Sessions<'_>) -> u64 {
        if self.target.live().is_none() {
            return self.left.load(Ordering::Relaxed);
        }
        let stopped_at = Instant::now();
        let list = sessions.list().await;
        let since = stopped_at.elapsed();
        let left = list.iter().filter(|session| session.age >= since);
        left.count() as u64
    }
}
