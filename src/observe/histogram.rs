//! Histograms of times, declared once. A connection adds to them when it is set up, when it is
//! swept, and when it ends: never for a byte.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metric::Metric;

/// Bound of the bucket of times above all others.
pub(crate) const UNBOUNDED: u64 = u64::MAX;

/// Upper bounds in microseconds of what should take a moment: half a millisecond is a connect in
/// a data centre, a minute is past every timeout that is set by default.
pub(crate) const MOMENTS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Upper bounds in microseconds of sessions: from a second to thirty days.
pub(crate) const LIFETIMES: &[u64] = &[
    1_000_000,
    10_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    3_600_000_000,
    4 * 3_600_000_000,
    12 * 3_600_000_000,
    24 * 3_600_000_000,
    2 * 86_400_000_000,
    7 * 86_400_000_000,
    30 * 86_400_000_000,
];

/// Metric of one histogram of a struct, and how to read it.
pub(crate) type HistogramOf<T> = (Metric, fn(&T) -> &Histogram);

/// Counts of times by their length.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds, ascending.
    bounds: &'static [u64],
    /// Times of each bucket, the unbounded one last.
    counts: Box<[AtomicU64]>,
    /// All times together, in microseconds.
    sum: AtomicU64,
}

/// A histogram at one moment, as it goes to the next process. A version with other bounds puts
/// each bucket into the next larger of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HistogramValues {
    /// Times by the upper bound of their bucket; empty ones are left out.
    counts: BTreeMap<u64, u64>,
    sum: u64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [u64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.add(time, 1, time);
    }

    fn add(&self, time: u64, count: u64, sum: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < time);
        if let Some(bucket) = self.counts.get(bucket) {
            bucket.fetch_add(count, Relaxed);
            self.sum.fetch_add(sum, Relaxed);
        }
    }

    /// Number of times in each bucket, by its upper bound; the last is [`UNBOUNDED`].
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let bounds = self.bounds.iter().copied().chain([UNBOUNDED]);
        bounds.zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// All times together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Relaxed))
    }

    pub(crate) fn values(&self) -> HistogramValues {
        HistogramValues {
            counts: self.buckets().filter(|(_, count)| *count > 0).collect(),
            sum: self.sum.load(Relaxed),
        }
    }

    /// Adds the growth of the same histogram in another process, between two looks.
    pub(crate) fn grow(&self, before: &HistogramValues, now: &HistogramValues) {
        for (bound, count) in &now.counts {
            let known = before.counts.get(bound).copied().unwrap_or(0);
            self.add(*bound, count.saturating_sub(known), 0);
        }
        let more = now.sum.saturating_sub(before.sum);
        self.sum.fetch_add(more, Relaxed);
    }
}

/// Declares a struct of histograms with the metric of each: `field = METRIC, BOUNDS;`. The doc
/// comment of one line is the metric's help text, too.
macro_rules! histograms {
    (
        $(#[$about:meta])*
        $vis:vis struct $times:ident {
            $(#[doc = $doc:literal] $field:ident = $metric:expr, $bounds:expr;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $vis struct $times { $(#[doc = $doc] pub $field: $crate::observe::Histogram,)+ }

        impl Default for $times {
            fn default() -> $times {
                $times { $($field: $crate::observe::Histogram::new($bounds),)+ }
            }
        }

        impl $times {
            $vis const METRICS: &'static [$crate::observe::HistogramOf<$times>] =
                &[$(($metric.seconds().or_help($doc), |times| &times.$field),)+];

            /// All of them, by the name of their metric.
            $vis fn totals(&self) -> $crate::observe::TimeTotals {
                let totals = Self::METRICS.iter();
                totals.map(|(metric, read)| (metric.name.to_owned(), read(self).values())).collect()
            }

            /// Adds the growth of the same histograms in another process, between two looks.
            $vis fn grow(
                &self,
                before: &$crate::observe::TimeTotals,
                now: &$crate::observe::TimeTotals,
            ) {
                let none = $crate::observe::HistogramValues::default();
                for (metric, read) in Self::METRICS {
                    if let Some(now) = now.get(metric.name) {
                        read(self).grow(before.get(metric.name).unwrap_or(&none), now);
                    }
                }
            }
        }
    };
}

/// Histograms of one object at one moment, by the name of their metric.
pub(crate) type TimeTotals = BTreeMap<String, HistogramValues>;

pub(crate) use histograms;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(times: &[u64]) -> Histogram {
        let histogram = Histogram::new(MOMENTS);
        for time in times {
            histogram.observe(Duration::from_micros(*time));
        }
        histogram
    }

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let histogram = filled(&[0, 500, 501, 60_000_000, 60_000_001]);
        let filled = histogram.buckets().filter(|(_, count)| *count > 0);
        let expected = [(500, 2), (1_000, 1), (60_000_000, 1), (UNBOUNDED, 1)];
        assert!(filled.eq(expected));
        assert_eq!(histogram.sum(), Duration::from_micros(120_001_002));
    }

    #[test]
    fn bounds_ascend() {
        assert!(MOMENTS.is_sorted() && LIFETIMES.is_sorted());
    }

    #[test]
    fn buckets_of_another_version_go_into_the_next_larger_one() {
        let other = HistogramValues {
            counts: [(700, 3), (90_000_000, 2), (UNBOUNDED, 1)].into(),
            sum: 7,
        };
        let histogram = Histogram::new(MOMENTS);
        histogram.grow(&HistogramValues::default(), &other);
        let filled = histogram.buckets().filter(|(_, count)| *count > 0);
        assert!(filled.eq([(1_000, 3), (UNBOUNDED, 3)]));
    }

    proptest! {
        #[test]
        fn growth_adds_up_to_what_both_have_seen(
            early in prop::collection::vec(0u64..100_000_000, 0..20),
            late in prop::collection::vec(0u64..100_000_000, 0..20),
            own in prop::collection::vec(0u64..100_000_000, 0..20),
        ) {
            let old = filled(&early);
            let new = filled(&own);
            let nothing = HistogramValues::default();
            let before = old.values();
            new.grow(&nothing, &before);
            late.iter().for_each(|time| old.observe(Duration::from_micros(*time)));
            let text = serde_json::to_string(&old.values()).unwrap();
            new.grow(&before, &serde_json::from_str(&text).unwrap());
            prop_assert_eq!(new.values(), filled(&[early, late, own].concat()).values());
        }
    }
}
