//! Budget of a pool: the part of its sessions that failover may end within a minute. Pure: the
//! caller passes the time.

use std::collections::VecDeque;
use std::time::Duration;

/// Time over which ended sessions are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Sessions that were ended and that lived in the latest `WINDOW`.
///
/// A window that slides, not a bucket that refills: a bucket lets twice its content through in its
/// first minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Counts by second, the oldest first; at most one more than `WINDOW` has seconds.
    seconds: VecDeque<Second>,
}

#[derive(Debug)]
struct Second {
    at: u64,
    ended: u64,
    /// Largest count of live sessions in it.
    live: u64,
}

impl Budget {
    /// Takes as many of `wanted` as are left of `percent` of the pool's sessions, of which `live`
    /// live now. The part is of the most that lived in the window: clients that do not come back
    /// must not make it smaller. It is one at least, or a small pool would never move.
    pub(super) fn take(&mut self, wanted: u64, live: u64, percent: u8, now: Duration) -> u64 {
        let at = now.as_secs();
        while let Some(oldest) = self.seconds.front()
            && oldest.at + WINDOW.as_secs() < at
        {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|latest| latest.at < at) {
            self.seconds.push_back(Second {
                at,
                ended: 0,
                live: 0,
            });
        }
        let most = self.seconds.iter().map(|second| second.live).max();
        let most = most.unwrap_or_default().max(live);
        let ended: u64 = self.seconds.iter().map(|second| second.ended).sum();
        let part = (most.saturating_mul(percent.into()) / 100).max(1);
        let taken = wanted.min(part.saturating_sub(ended));
        if let Some(latest) = self.seconds.back_mut() {
            latest.live = latest.live.max(live);
            latest.ended += taken;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_goes_at_once_and_the_next_a_minute_later() {
        let (mut budget, at) = (Budget::default(), Duration::from_secs);
        assert_eq!(budget.take(100, 100, 25, at(5)), 25);
        assert_eq!(budget.take(75, 100, 25, at(6)), 0);
        assert_eq!(budget.take(75, 100, 25, at(65)), 0);
        assert_eq!(budget.take(75, 100, 25, at(66)), 25);
    }

    #[test]
    fn those_who_do_not_come_back_do_not_make_it_smaller() {
        let (mut budget, at) = (Budget::default(), Duration::from_secs);
        assert_eq!(budget.take(10, 100, 50, at(0)), 10);
        assert_eq!(budget.take(100, 90, 50, at(1)), 40);
    }

    #[test]
    fn of_a_small_pool_one_may_go() {
        let (mut budget, at) = (Budget::default(), Duration::from_secs);
        assert_eq!(budget.take(3, 3, 25, at(0)), 1);
        assert_eq!(budget.take(2, 3, 25, at(30)), 0);
        assert_eq!(budget.take(2, 3, 25, at(61)), 1);
    }

    proptest! {
        /// No minute ends more than its part, whatever is asked for.
        #[test]
        fn no_minute_ends_more_than_its_part(
            percent in 1u8..=100,
            asks in prop::collection::vec((0u64..20_000, 0u64..500, 0u64..1_000), 1..200),
        ) {
            let (mut budget, mut now, mut taken) = (Budget::default(), 0, Vec::new());
            let most = asks.iter().map(|(_, _, live)| *live).max().unwrap_or_default();
            let part = (most * u64::from(percent) / 100).max(1);
            for (step, wanted, live) in asks {
                now += step;
                let granted = budget.take(wanted, live, percent, Duration::from_millis(now));
                prop_assert!(granted <= wanted);
                taken.push((now, granted));
                let minute = taken.iter().filter(|(at, _)| at + 60_000 > now);
                prop_assert!(minute.map(|(_, granted)| granted).sum::<u64>() <= part);
                prop_assert!(budget.seconds.len() as u64 <= WINDOW.as_secs() + 1);
            }
        }

        /// A minute later the whole part may go: the budget is not stricter than it says.
        #[test]
        fn a_minute_later_the_whole_part_may_go(percent in 1u8..=100, live in 1u64..10_000, first in 0u64..10_000) {
            let mut budget = Budget::default();
            budget.take(first, live, percent, Duration::ZERO);
            let part = (live * u64::from(percent) / 100).max(1);
            prop_assert_eq!(budget.take(live, live, percent, WINDOW + Duration::from_secs(1)), part);
        }
    }
}
