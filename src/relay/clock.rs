//! The coarse clock of a worker: 4 bytes for a point in time, because every live connection holds
//! some.

use std::time::{Duration, Instant};

/// The length of a tick: timeouts are kept to about this precision.
const TICK: Duration = Duration::from_millis(10);

/// A point in time. It wraps after 497 days, so that only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(u32);

/// A length of time, in ticks; up to 497 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(u32);

/// Where a worker's ticks are counted from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin }
    }

    pub(super) fn tick(&self, at: Instant) -> Tick {
        let passed = at.saturating_duration_since(self.origin);
        Tick((passed.as_millis() / TICK.as_millis()) as u32)
    }
}

impl Tick {
    /// Since the clock's origin, or since it wrapped.
    pub(super) fn since_origin(self) -> Duration {
        TICK * self.0
    }

    pub(super) fn since(self, earlier: Tick) -> Ticks {
        Ticks(self.0.wrapping_sub(earlier.0))
    }

    /// Milliseconds since then: all that another worker can know of it.
    pub(super) fn age_ms(self, earlier: Tick) -> u64 {
        self.since(earlier).milliseconds()
    }

    /// The point in time so many milliseconds before.
    pub(super) fn before_ms(self, age_ms: u64) -> Tick {
        let age = Ticks::from(Duration::from_millis(age_ms));
        Tick(self.0.wrapping_sub(age.0))
    }
}

impl Ticks {
    pub(super) const MAX: Self = Self(u32::MAX);

    pub(super) fn milliseconds(self) -> u64 {
        // At most 2^32 ticks of 10 ms.
        Duration::from(self).as_millis() as u64
    }

    pub(super) fn of_milliseconds(milliseconds: u64) -> Self {
        Duration::from_millis(milliseconds).into()
    }

    /// The rest of it after `passed`.
    pub(super) fn left(self, passed: Ticks) -> Duration {
        TICK * self.0.saturating_sub(passed.0)
    }
}

impl From<Duration> for Ticks {
    /// Rounds up, so that nothing ends early.
    fn from(duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        Self(u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}

impl From<Ticks> for Duration {
    fn from(ticks: Ticks) -> Self {
        TICK * ticks.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_survive_the_wrap() {
        let (before, after) = (Tick(u32::MAX - 1), Tick(2));
        assert_eq!(after.since(before), Ticks(4));
    }

    #[test]
    fn a_timeout_is_never_shorter_than_asked_for() {
        for milliseconds in [0, 1, 9, 10, 11, 3_600_000] {
            let asked = Duration::from_millis(milliseconds);
            assert!(Duration::from(Ticks::from(asked)) >= asked);
        }
        assert_eq!(Ticks::from(Duration::MAX), Ticks(u32::MAX));
    }
}
