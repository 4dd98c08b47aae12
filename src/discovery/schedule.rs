//! Schedule of a name's lookups: its TTL within bounds, a back-off after a failure.

use std::time::Duration;

use crate::base::backoff::Backoff;

/// Longest wait after a failure, whatever the ceiling of the TTL: a repaired zone must be seen
/// soon.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(30);

/// Part of a wait that is cut off at random, so that many balancers do not query in step.
const JITTER: f64 = 0.1;

/// Waits of one name.
pub(super) struct LookupSchedule {
    min_ttl: Duration,
    max_ttl: Duration,
    retries: Backoff,
}

impl LookupSchedule {
    pub(super) fn new(min_ttl: Duration, max_ttl: Duration) -> LookupSchedule {
        LookupSchedule {
            min_ttl,
            max_ttl: max_ttl.max(min_ttl),
            retries: Backoff::new(min_ttl, max_ttl.min(MAX_RETRY_WAIT).max(min_ttl)),
        }
    }

    /// The wait after an answer. `random` is in 0..1.
    pub(super) fn answered(&mut self, ttl: Duration, random: f64) -> Duration {
        self.retries.reset();
        self.jittered(ttl.min(self.max_ttl), random)
    }

    /// The wait after a failure. `random` is in 0..1.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        let wait = self.retries.next();
        self.jittered(wait, random)
    }

    fn jittered(&self, wait: Duration, random: f64) -> Duration {
        wait.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0))
            .max(self.min_ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_wait_longer_each_time_until_an_answer_comes() {
        let mut schedule = LookupSchedule::new(SECOND, 300 * SECOND);
        let waits: Vec<u64> = (0..7).map(|_| schedule.failed(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        schedule.answered(SECOND, 0.0);
        assert_eq!(schedule.failed(0.0), SECOND);
    }

    #[test]
    fn a_ttl_within_its_bounds_is_followed() {
        let mut schedule = LookupSchedule::new(SECOND, 300 * SECOND);
        assert_eq!(schedule.answered(60 * SECOND, 0.0), 60 * SECOND);
        assert!(schedule.answered(60 * SECOND, 0.99) < 55 * SECOND);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_floor_and_ceiling(
            min in 1u64..10_000, more in 0u64..10_000, ttl in 0u64..100_000, random in 0.0..1.0f64, failures in 0usize..9,
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + more));
            let mut schedule = LookupSchedule::new(min, max);
            for _ in 0..failures {
                let wait = schedule.failed(random);
                prop_assert!(wait >= min && wait <= max);
            }
            let wait = schedule.answered(Duration::from_millis(ttl), random);
            prop_assert!(wait >= min && wait <= max);
        }
    }
}
