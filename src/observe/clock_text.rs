//! Text of the time of a line, as of RFC 3339 in UTC with milliseconds. The lines of one second
//! share all but the milliseconds.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of `2023-11-14T22:13:20.`, which lines of the same second share.
const SHARED: usize = 20;

/// Text of the latest time.
#[derive(Debug, Default)]
pub(super) struct ClockText {
    second: Option<u64>,
    text: String,
}

impl ClockText {
    /// Formats a time. One before 1970 is shown as its beginning.
    pub(super) fn at(&mut self, time: SystemTime) -> &str {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if self.second == Some(since.as_secs()) {
            self.text.truncate(SHARED);
        } else {
            self.second = Some(since.as_secs());
            self.text.clear();
            let second = UNIX_EPOCH + Duration::from_secs(since.as_secs());
            // Fails behind the year 9999.
            let _ = write!(self.text, "{}", humantime::format_rfc3339_seconds(second));
            // The zone stands behind the milliseconds.
            self.text.pop();
            self.text.push('.');
        }
        push_three_digits(since.subsec_millis(), &mut self.text);
        self.text.push('Z');
        &self.text
    }
}

/// Appends a number below 1000 with leading zeros.
pub(super) fn push_three_digits(number: u32, into: &mut String) {
    for divisor in [100, 10, 1] {
        let digit = char::from_digit(number / divisor % 10, 10);
        into.push(digit.unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_before_1970_stops_no_line() {
        let before = UNIX_EPOCH - Duration::from_secs(7);
        assert_eq!(ClockText::default().at(before), "1970-01-01T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn every_time_is_as_in_the_rfc(times in prop::collection::vec((0u64..250_000_000_000, 0u64..3), 1..20)) {
            let mut clock = ClockText::default();
            for (milliseconds, seconds) in times {
                for after in [0, 1, seconds * 1000] {
                    let time = UNIX_EPOCH + Duration::from_millis(milliseconds + after);
                    let expected = humantime::format_rfc3339_millis(time).to_string();
                    prop_assert_eq!(clock.at(time), expected);
                }
            }
        }
    }
}
