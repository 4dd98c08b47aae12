//! The time after which a refused client may come again: drawn anew for each, so that those who
//! were refused together do not come back together.

use crate::config::RetryAfter;

/// Draws a random number of whole seconds (RFC 9110 section 10.2.3), never less than `min`; `max`
/// may be rounded up to it.
pub(super) fn seconds(range: RetryAfter) -> u64 {
    let min = range.min.as_secs() + u64::from(range.min.subsec_nanos() > 0);
    fastrand::u64(min..=range.max.as_secs().max(min))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    fn range(min: u64, max: u64) -> RetryAfter {
        RetryAfter {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        }
    }

    #[test]
    fn every_second_of_the_range_is_drawn_and_no_other() {
        let seen: BTreeSet<u64> = (0..1_000).map(|_| seconds(range(2_000, 5_900))).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn a_range_within_one_second_is_rounded_up() {
        assert_eq!(seconds(range(1_200, 1_900)), 2);
        assert_eq!(seconds(range(7_000, 7_000)), 7);
    }
}
