//! The checks of one backend, one after the other, as long as it is in its pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::CheckPlan;
use super::probe::{self, CheckFailure};
use super::progress::CheckProgress;
use crate::net::fds::MAX_PARALLEL_CHECKS;
use crate::pool::{Backend, OperatorState};

/// Spread of a pool's first checks, so that a start or reload does not send them all at once.
const MAX_FIRST_SPREAD: Duration = Duration::from_millis(200);

/// Delay after a first check that failed: a backend that was only a moment late is not left out for
/// a whole interval.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// Limit of the checks under way in the process.
static CHECK_LIMIT: Semaphore = Semaphore::const_new(MAX_PARALLEL_CHECKS);

/// Runs until it is dropped.
pub(super) async fn run(backend: Arc<Backend>, plan: Arc<CheckPlan>) {
    let mut task = CheckTask {
        progress: CheckProgress::new(backend.check_up(), plan.check.rise, plan.check.fall)
            .unproven(!backend.is_proven()),
        backend,
        plan,
        skipped: false,
    };
    let spread = MAX_FIRST_SPREAD.min(task.plan.check.interval / 10);
    sleep(spread.mul_f64(fastrand::f64())).await;
    loop {
        // From start to start: a check that takes its whole timeout must not stretch the interval.
        let started = task.check_once().await;
        let next = started + task.next_interval(fastrand::f64());
        // Either may be dropped: a request for a check stays with the backend until it is taken.
        tokio::select! {
            () = sleep_until(next) => {}
            () = task.backend.check_wanted() => {}
        }
    }
}

struct CheckTask {
    backend: Arc<Backend>,
    plan: Arc<CheckPlan>,
    progress: CheckProgress,
    /// The last check could not be made, for a local reason.
    skipped: bool,
}

impl CheckTask {
    /// Makes a check, unless there is no target, and returns when it began.
    async fn check_once(&mut self) -> Instant {
        let _permit = CHECK_LIMIT.acquire().await;
        loop {
            let started = Instant::now();
            let epoch = self.backend.check_epoch();
            let asked = self.backend.operator() != OperatorState::Maint;
            let Some(target) = self.plan.target(&self.backend).filter(|_| asked) else {
                return started;
            };
            // A dropped check is made again: its result would be from before maintenance.
            tokio::select! {
                biased;
                () = self.backend.check_wanted() => continue,
                outcome = probe::probe(&target, &self.plan) => {
                    self.record_if_current(epoch, outcome, started.elapsed());
                }
            }
            return started;
        }
    }

    /// Records the result of a check that began in `epoch`, unless another epoch has begun.
    fn record_if_current(&mut self, epoch: u64, outcome: Result<(), CheckFailure>, took: Duration) {
        if self.backend.check_epoch() == epoch {
            if !matches!(outcome, Err(CheckFailure::Local(_))) {
                self.backend.counters().times.check.observe(took);
            }
            self.record(outcome);
        }
    }

    fn record(&mut self, outcome: Result<(), CheckFailure>) {
        let counters = self.backend.counters();
        let (success, reason) = match outcome {
            Ok(()) => (true, "check passed".to_owned()),
            Err(CheckFailure::Backend(why)) => (false, why),
            Err(CheckFailure::Local(why)) => {
                self.skip(&why);
                return;
            }
        };
        self.skipped = false;
        let count = if success {
            &counters.checks_ok
        } else {
            &counters.checks_failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(pool = %self.backend.pool(), backend = %self.backend.name(), success, reason, "checked");
        let verdict = if self.backend.is_checked() {
            self.progress.record(success)
        } else {
            self.progress.start_with(success);
            Some(success)
        };
        if let Some(up) = verdict {
            self.backend
                .set_check(up, &reason, std::time::Instant::now());
        }
    }

    fn skip(&mut self, why: &str) {
        self.backend.check_skipped(why);
        if !self.skipped {
            tracing::warn!(
                pool = %self.backend.pool(), backend = %self.backend.name(), why,
                "check could not be made, its verdict stays"
            );
        }
        self.skipped = true;
    }

    /// Time from the start of one check to the next. `random` is in 0..1.
    fn next_interval(&self, random: f64) -> Duration {
        let check = &self.plan.check;
        let interval = if self.progress.is_up() {
            check.interval
        } else {
            check.down_interval
        };
        let interval = if self.progress.failed_first() {
            interval.min(FIRST_RETRY)
        } else {
            interval
        };
        let jitter = f64::from(check.jitter_percent.min(100)) / 100.0;
        interval.mul_f64(1.0 + jitter * (2.0 * random - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::tests::settings;
    use crate::pool::Pool;

    fn task(pool: &Pool) -> CheckTask {
        let check = pool.settings().check.clone().unwrap();
        CheckTask {
            backend: pool.backends().remove(0),
            progress: CheckProgress::new(true, check.rise, check.fall),
            plan: Arc::new(CheckPlan::new(&check, None).unwrap()),
            skipped: false,
        }
    }

    fn pool() -> Arc<Pool> {
        Pool::new(&settings(
            "backend = [{ name = 'n1', address = '127.0.0.1:1' }]\n\
             check = { type = 'tcp', interval = '10s', down_interval = '2s', fall = 2, jitter = '10%' }",
        ))
    }

    #[tokio::test]
    async fn shortages_of_our_own_say_nothing_about_a_backend() {
        let pool = pool();
        let mut task = task(&pool);
        task.record(Err(CheckFailure::Local(
            "connect: too many open files".into(),
        )));
        assert!(task.backend.check_up() && !task.backend.is_checked());
        task.record(Ok(()));
        task.record(Err(CheckFailure::Backend("down".into())));
        for _ in 0..10 {
            task.record(Err(CheckFailure::Local(
                "connect: too many open files".into(),
            )));
        }
        let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        assert!(task.backend.check_up());
        assert_eq!(count(&task.backend.counters().checks_failed), 1);
        task.record(Err(CheckFailure::Backend("down".into())));
        assert!(!task.backend.check_up());
    }

    #[tokio::test]
    async fn what_hinders_the_first_check_is_why_nothing_is_known() {
        let pool = Pool::new(&settings(
            "backend = [{ name = 'n1', address = '127.0.0.1:1', init_state = 'down' }]\n\
             check = { type = 'tcp' }",
        ));
        let mut task = task(&pool);
        assert_eq!(task.backend.reason(), "not checked yet");
        let ours = || Err(CheckFailure::Local("connect: network unreachable".into()));
        task.record(ours());
        let unchecked = "not checked: connect: network unreachable";
        assert_eq!(task.backend.reason(), unchecked);
        task.record(Err(CheckFailure::Backend("refused".into())));
        task.record(ours());
        assert_eq!(task.backend.reason(), "refused");
    }

    #[tokio::test]
    async fn the_interval_differs_by_its_jitter_and_follows_the_verdict() {
        let pool = pool();
        let mut task = task(&pool);
        assert_eq!(task.next_interval(0.0), Duration::from_secs(9));
        assert_eq!(task.next_interval(0.5), Duration::from_secs(10));
        assert_eq!(task.next_interval(1.0), Duration::from_secs(11));
        for _ in 0..2 {
            task.record(Err(CheckFailure::Backend("down".into())));
        }
        assert_eq!(task.next_interval(0.5), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_failed_first_check_is_repeated_soon_and_after_maintenance_again() {
        let pool = pool();
        let mut task = task(&pool);
        let down = || Err(CheckFailure::Backend("down".into()));
        let is_up = |task: &CheckTask| task.backend.check_up();
        task.record(down());
        assert!(!is_up(&task));
        assert_eq!(task.next_interval(0.5), Duration::from_millis(250));
        task.record(down());
        assert_eq!(task.next_interval(0.5), Duration::from_secs(2));
        task.record(Ok(()));
        assert!(is_up(&task));
        task.record(down());
        assert!(is_up(&task), "one failure of two");
        task.backend.set_operator(OperatorState::Maint);
        task.backend.set_operator(OperatorState::Ready);
        task.backend.check_wanted().await;
        assert!(!task.backend.is_checked());
        task.record(down());
        assert!(!is_up(&task));
    }
}
