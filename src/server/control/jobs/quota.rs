//! Quota of a job: connections that it may end by now, by a rate, a deadline, or both, whichever is
//! faster.

use std::time::Duration;

use crate::base::rate::Rate;

/// Pure: the caller passes the time since the job began to end connections.
#[derive(Debug)]
pub(super) struct Quota {
    rate: Option<Rate>,
    deadline: Option<Duration>,
    part: f64,
    at: Duration,
    /// Fraction of a connection that is due.
    rest: f64,
}

impl Quota {
    pub(super) fn new(rate: Option<Rate>, deadline: Option<Duration>) -> Quota {
        Quota {
            rate,
            deadline,
            part: 1.0,
            at: Duration::ZERO,
            rest: 0.0,
        }
    }

    /// Sets the fraction of the rate that is this balancer's, 0 to 1. The deadline holds for all
    /// alike.
    pub(super) fn set_part(&mut self, part: f64) {
        self.part = part;
    }

    /// Takes the connections of `left` that are due at `now`; never more than are left.
    pub(super) fn take(&mut self, left: u64, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.at);
        let by_rate = self
            .per_second()
            .map_or(0.0, |rate| rate * passed.as_secs_f64());
        let by_deadline = self.by_deadline(left, passed, now);
        self.at = now;
        let due = by_rate.max(by_deadline) + self.rest;
        // Bounded by `left`: a pause does not make a burst of those that come later.
        let whole = (due as u64).min(left);
        self.rest = (due - whole as f64).clamp(0.0, 1.0);
        whole
    }

    /// Time until the last of `left` is ended, as estimated at `now`.
    pub(super) fn left_in(&self, left: u64, now: Duration) -> Option<Duration> {
        if left == 0 {
            return Some(Duration::ZERO);
        }
        let by_rate = self.per_second().map(|rate| left as f64 / rate);
        let by_rate = by_rate.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let by_deadline = self.deadline.map(|deadline| deadline.saturating_sub(now));
        [by_rate, by_deadline].into_iter().flatten().min()
    }

    fn per_second(&self) -> Option<f64> {
        let whole = self.rate?;
        Some(self.part * whole.count() as f64 / whole.per().as_secs_f64())
    }

    fn by_deadline(&self, left: u64, passed: Duration, now: Duration) -> f64 {
        let Some(deadline) = self.deadline else {
            return 0.0;
        };
        let before = deadline.saturating_sub(self.at);
        if now >= deadline || before.is_zero() {
            left as f64
        } else {
            left as f64 * (passed.as_secs_f64() / before.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(mut quota: Quota, mut left: u64, steps: impl Iterator<Item = Duration>) -> Vec<u64> {
        let mut now = Duration::ZERO;
        steps
            .map(|step| {
                now += step;
                let taken = quota.take(left, now);
                left -= taken;
                taken
            })
            .collect()
    }

    #[test]
    fn a_rate_is_kept_over_uneven_steps() {
        let quota = Quota::new("100/s".parse().ok(), None);
        let steps = (0..200).map(|step| Duration::from_millis(if step % 2 == 0 { 3 } else { 17 }));
        let taken = run(quota, 1_000_000, steps);
        assert_eq!(taken.iter().sum::<u64>(), 200);
        assert!(taken.iter().all(|taken| *taken <= 2));
    }

    #[test]
    fn the_last_one_goes_at_the_deadline() {
        let quota = Quota::new(None, Some(Duration::from_secs(10)));
        let taken = run(quota, 1000, (0..100).map(|_| Duration::from_millis(100)));
        assert_eq!(taken.iter().sum::<u64>(), 1000);
        assert!(
            taken.iter().all(|taken| (8..=12).contains(taken)),
            "{taken:?}"
        );
    }

    #[test]
    fn the_last_one_goes_by_the_faster_of_both() {
        let deadline = Some(Duration::from_secs(600));
        let (slow, fast) = ("1/s".parse().ok(), "100/s".parse().ok());
        for (rate, left, seconds) in [
            (None, 15, 600),
            (slow, 1000, 600),
            (fast, 1000, 10),
            (None, 0, 0),
        ] {
            let left_in = Quota::new(rate, deadline).left_in(left, Duration::ZERO);
            assert_eq!(
                left_in,
                Some(Duration::from_secs(seconds)),
                "{rate:?}, {left}"
            );
        }
    }

    /// Three balancers with 600, 300 and 100 connections end 10 a second together.
    #[test]
    fn balancers_share_a_rate_by_their_connections() {
        let mut lefts = [600_u64, 300, 100];
        let mut quotas = [(); 3].map(|()| Quota::new("10/s".parse().ok(), None));
        for second in 1..=100 {
            let all: u64 = lefts.iter().sum();
            let mut taken = 0;
            for (quota, left) in quotas.iter_mut().zip(&mut lefts) {
                quota.set_part(*left as f64 / all.max(1) as f64);
                let due = quota.take(*left, Duration::from_secs(second));
                *left -= due;
                taken += due;
            }
            assert!((8..=12).contains(&taken), "{taken} in second {second}");
        }
        assert!(lefts.iter().sum::<u64>() <= 3, "{lefts:?}");
    }

    #[test]
    fn a_deadline_hurries_a_rate_that_would_be_late() {
        let quota = Quota::new("1/s".parse().ok(), Some(Duration::from_secs(10)));
        let taken = run(quota, 1000, (0..10).map(|_| Duration::from_secs(1)));
        assert_eq!(taken.iter().sum::<u64>(), 1000);
    }

    proptest! {
        #[test]
        fn never_more_than_are_left_and_all_at_the_end(
            count in 1u64..1000, per in 1u64..60_000, deadline in prop::option::of(1u64..60_000), left in 0u64..10_000,
            steps in prop::collection::vec(0u64..5_000, 1..50),
        ) {
            let rate = format!("{count}/{per}ms").parse().ok();
            let deadline = deadline.map(Duration::from_millis);
            let steps: Vec<_> = steps.into_iter().map(Duration::from_millis).collect();
            let total: Duration = steps.iter().sum();
            let taken: u64 = run(Quota::new(rate, deadline), left, steps.into_iter()).iter().sum();
            prop_assert!(taken <= left);
            if deadline.is_some_and(|deadline| total >= deadline) {
                prop_assert_eq!(taken, left);
            }
        }
    }
}
