//! A rate as operators write it: `"20/s"`, `"600/m"`, `"100/5s"`, and the bucket that holds
//! something to it.
//!
//! The count is the burst, too: so many may come at once, and capacity returns evenly over the
//! time. `"20/s"` and `"100/5s"` have the same mean; the second forgives five times the burst. The
//! bucket is the generic cell rate algorithm (ITU-T I.371): one number, no timer, and no clock but
//! the caller's.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::units::{UnitError, format_duration, parse_duration};

/// The longest time of a rate.
const MAX_PER: Duration = Duration::from_secs(24 * 60 * 60);

/// A count, at least one, per period; the count is the largest burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u64,
    per: Duration,
}

/// Why a text is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("it must begin with a whole number above 0")]
    Count,
    #[error("a fraction is not taken, only a whole number")]
    Fraction,
    #[error("the time is missing, as in \"20/s\"")]
    NoTime,
    #[error("its time must be a unit (s, m, h) or a whole time such as 5s, at most a day")]
    Time,
    #[error("it is too large")]
    TooLarge,
}

impl Rate {
    /// A rate per second; at least one.
    pub const fn per_second(count: u64) -> Rate {
        Rate {
            count: if count == 0 { 1 } else { count },
            per: Duration::from_secs(1),
        }
    }

    /// A rate per minute; at least one.
    pub const fn per_minute(count: u64) -> Rate {
        Rate {
            per: Duration::from_secs(60),
            ..Rate::per_second(count)
        }
    }

    /// A rate of so many in a time. `None`: it is out of bounds.
    pub fn new(count: u64, per: Duration) -> Option<Rate> {
        let is_time = !per.is_zero() && per <= MAX_PER;
        let is_rate = is_time && count > 0 && count <= nanoseconds(per);
        is_rate.then_some(Rate { count, per })
    }

    /// The largest burst.
    pub fn count(self) -> u64 {
        self.count
    }

    /// The period, in which a whole burst returns.
    pub fn per(self) -> Duration {
        self.per
    }

    /// Time until one returns, in nanoseconds.
    fn interval(self) -> u64 {
        (nanoseconds(self.per) / self.count).max(1)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, rest) = text.split_at(digits);
        if count.is_empty() {
            return Err(RateError::Count);
        }
        if rest.starts_with(['.', ',']) {
            return Err(RateError::Fraction);
        }
        let per = per(rest.strip_prefix('/').ok_or(RateError::NoTime)?)?;
        let count: u64 = count.parse().map_err(|_| RateError::TooLarge)?;
        match count {
            0 => Err(RateError::Count),
            // Less than a nanosecond each: no clock has that resolution.
            _ if count > nanoseconds(per) => Err(RateError::TooLarge),
            _ => Ok(Rate { count, per }),
        }
    }
}

/// The period of a rate: `s` and `1s` are the same.
fn per(text: &str) -> Result<Duration, RateError> {
    let per = match text {
        "" => return Err(RateError::NoTime),
        "s" | "m" | "h" => parse_duration(&format!("1{text}")),
        _ => parse_duration(text),
    };
    match per {
        Ok(per) if per.is_zero() || per > MAX_PER => Err(RateError::Time),
        Ok(per) => Ok(per),
        Err(UnitError::TooLarge) => Err(RateError::TooLarge),
        Err(_) => Err(RateError::Time),
    }
}

/// Writes the shortest text of the rate.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = format_duration(self.per);
        let per = match per.as_str() {
            "1s" | "1m" | "1h" => &per[1..],
            longer => longer,
        };
        write!(f, "{}/{per}", self.count)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Limits to a rate, from any number of threads. The rate is the caller's and may change at any
/// time.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When the bucket is full again, as a time since the caller's epoch, in nanoseconds.
    full_at: AtomicU64,
}

impl Bucket {
    /// A bucket that is full again at this time since the caller's epoch.
    pub(crate) fn full_again_at(time: Duration) -> Bucket {
        Bucket {
            full_at: AtomicU64::new(nanoseconds(time)),
        }
    }

    /// Takes one at `now`, a time since an epoch of the caller's. False: the rate is used up,
    /// nothing was taken.
    pub(crate) fn take(&self, rate: Rate, now: Duration) -> bool {
        let now = nanoseconds(now);
        self.update(|full_at| after_one(full_at, rate, now))
    }

    /// Takes one whether there is any or not; a debt is paid back first.
    pub(crate) fn owe(&self, rate: Rate, now: Duration) {
        let now = nanoseconds(now);
        self.update(|full_at| Some(full_at.max(now).saturating_add(rate.interval())));
    }

    /// Returns one that was taken and not used.
    pub(crate) fn give_back(&self, rate: Rate) {
        self.update(|full_at| Some(full_at.saturating_sub(rate.interval())));
    }

    fn update(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.full_at.fetch_update(set, get, next).is_ok()
    }

    /// When the bucket is full again.
    pub(crate) fn full_at(&self) -> Duration {
        Duration::from_nanos(self.full_at.load(Ordering::Relaxed))
    }

    /// Time after `now` until the next one may be taken; zero: at once.
    pub(crate) fn wait(&self, rate: Rate, now: Duration) -> Duration {
        let (now, full_at) = (nanoseconds(now), self.full_at.load(Ordering::Relaxed));
        let over = full_at.max(now).saturating_add(rate.interval());
        let free_at = over.saturating_sub(rate.interval().saturating_mul(rate.count));
        Duration::from_nanos(free_at.saturating_sub(now))
    }
}

/// When a bucket is full again after one more was taken; `None` if that exceeds the burst.
fn after_one(full_at: u64, rate: Rate, now: u64) -> Option<u64> {
    let next = full_at.max(now).saturating_add(rate.interval());
    (next - now <= rate.interval().saturating_mul(rate.count)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_is_a_count_and_a_unit_or_a_time() {
        let cases = [
            ("20/s", 20, 1_000),
            ("600/m", 600, 60_000),
            ("1/h", 1, 3_600_000),
            ("100/5s", 100, 5_000),
            ("3/500ms", 3, 500),
            ("9/1d", 9, 86_400_000),
        ];
        for (text, count, milliseconds) in cases {
            let read = rate(text);
            assert_eq!(read.count(), count, "{text}");
            assert_eq!(read.per(), Duration::from_millis(milliseconds), "{text}");
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(rate("5/1s").to_string(), "5/s");
        assert_eq!(rate("5/60s").to_string(), "5/m");
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let cases = [
            ("", RateError::Count),
            ("/s", RateError::Count),
            ("-5/s", RateError::Count),
            ("0/s", RateError::Count),
            ("20", RateError::NoTime),
            ("20/", RateError::NoTime),
            ("20s", RateError::NoTime),
            ("20 /s", RateError::NoTime),
            ("20/ s", RateError::Time),
            ("20/x", RateError::Time),
            ("20/0s", RateError::Time),
            ("20/2d", RateError::Time),
            ("1.5/s", RateError::Fraction),
            ("20/s/s", RateError::Time),
            ("2000000000/s", RateError::TooLarge),
            ("99999999999999999999/s", RateError::TooLarge),
            ("1/99999999999999999999d", RateError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Rate>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_the_rest_evenly() {
        let (bucket, rate) = (Bucket::default(), rate("4/s"));
        let at = Duration::from_millis;
        for _ in 0..4 {
            assert!(bucket.take(rate, at(1_000)));
        }
        assert!(!bucket.take(rate, at(1_000)));
        assert!(!bucket.take(rate, at(1_249)));
        assert!(bucket.take(rate, at(1_250)));
        assert!(!bucket.take(rate, at(1_251)));
        assert_eq!(bucket.wait(rate, at(1_251)), at(249));
        assert!(bucket.full_at() > at(2_249));
        assert!(bucket.full_at() <= at(2_250));
    }

    #[test]
    fn what_is_owed_is_given_back_before_the_next_one() {
        let (bucket, rate, at) = (Bucket::default(), rate("1/s"), Duration::from_secs);
        bucket.owe(rate, at(1));
        bucket.owe(rate, at(1));
        assert!(!bucket.take(rate, at(2)));
        bucket.give_back(rate);
        assert!(bucket.take(rate, at(2)));
        assert_eq!(bucket.full_at(), at(3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(count in 1u64..1_000_000, milliseconds in 1u64..86_400_000) {
            let rate = Rate { count, per: Duration::from_millis(milliseconds) };
            let read = rate.to_string().parse();
            prop_assert!(read == Ok(rate) || read == Err(RateError::TooLarge) && count > milliseconds * 1_000_000);
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = text.parse::<Rate>();
        }

        /// In any window no more passes than one burst and what the window gives back.
        #[test]
        fn no_window_lets_more_through(
            count in 1u64..50, per in 1u64..5_000, steps in prop::collection::vec(0u64..400, 1..300),
        ) {
            let (bucket, rate) = (Bucket::default(), Rate { count, per: Duration::from_millis(per) });
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                let at = Duration::from_millis(now);
                let waits = bucket.wait(rate, at);
                let passes = bucket.take(rate, at);
                prop_assert_eq!(passes, waits.is_zero());
                if passes {
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    // The interval is cut to whole nanoseconds: one in a thousand at most.
                    let given_back = (to - from) * count * 1_001 / (per * 1_000) + 1;
                    prop_assert!((last - first + 1) as u64 <= count + given_back);
                }
            }
        }

        #[test]
        fn after_its_wait_one_may_be_taken(count in 1u64..50, per in 1u64..5_000, takes in 0usize..100) {
            let (bucket, rate) = (Bucket::default(), Rate { count, per: Duration::from_millis(per) });
            for _ in 0..takes {
                bucket.take(rate, Duration::ZERO);
            }
            let wait = bucket.wait(rate, Duration::ZERO);
            prop_assert!(bucket.take(rate, wait));
        }
    }
}
