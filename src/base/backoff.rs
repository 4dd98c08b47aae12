//! Growing delays between attempts: each twice the last, from a base up to a ceiling.

use std::time::Duration;

/// A source of growing delays.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    upcoming: Duration,
}

impl Backoff {
    /// Delays `base`, 2 x `base`, 4 x `base` ... never above `max` (and `max` at once where `base`
    /// is above it).
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        let upcoming = base.min(max);
        Backoff {
            base,
            max,
            upcoming,
        }
    }

    /// The delay before the next attempt. Endless: not an iterator, whose `Option` would be noise.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.upcoming;
        self.upcoming = delay.saturating_mul(2).min(self.max);
        delay
    }

    /// Starts again at the base: the last attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.upcoming = self.base.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_the_ceiling_and_begins_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let delays: Vec<u64> = (0..5).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next().as_secs(), 1);
    }

    proptest! {
        #[test]
        fn never_shrinks_and_never_passes_the_ceiling(base in 0u64..1 << 40, max in 0u64..1 << 40) {
            let mut backoff = Backoff::new(Duration::from_nanos(base), Duration::from_nanos(max));
            let mut last = Duration::ZERO;
            for _ in 0..80 {
                let delay = backoff.next();
                prop_assert!(delay >= last && delay <= Duration::from_nanos(max));
                last = delay;
            }
        }
    }
}
