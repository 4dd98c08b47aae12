//! Page of metrics: families of a name, a help text and rows of labels and values.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::observe::{Histogram, HistogramOf, Metric, MetricOf, UNBOUNDED};

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Label set of an exemplar; there are none here.
type Exemplary = [(&'static str, &'static str); 0];

/// Encoder of a page. It adds `_total` to counters, and units to names.
pub(super) struct MetricsPage<'a>(pub DescriptorEncoder<'a>);

impl MetricsPage<'_> {
    pub(super) fn family<'r, V: EncodeCounterValue + EncodeGaugeValue>(
        &mut self,
        metric: Metric,
        rows: impl IntoIterator<Item = (Labels<'r>, V)>,
    ) -> fmt::Result {
        let kind = if metric.is_gauge {
            MetricType::Gauge
        } else {
            MetricType::Counter
        };
        let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
        let (name, help) = (metric.name, metric.help);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        let encode = |row: &mut MetricEncoder<'_>, value: &V| {
            if metric.is_gauge {
                row.encode_gauge(value)
            } else {
                row.encode_counter::<Exemplary, _, u64>(value, None)
            }
        };
        for (labels, value) in rows {
            if labels.is_empty() {
                encode(&mut family, &value)?;
            } else {
                encode(&mut family.encode_family(&labels)?, &value)?;
            }
        }
        Ok(())
    }

    /// Writes a family without labels; no row when the value is not known.
    pub(super) fn single<V: EncodeCounterValue + EncodeGaugeValue>(
        &mut self,
        metric: Metric,
        value: Option<V>,
    ) -> fmt::Result {
        self.family(metric, value.map(|value| (Vec::new(), value)))
    }

    /// Writes all numbers of the structs, each with the labels of its owner.
    pub(super) fn values<T>(
        &mut self,
        metrics: &[MetricOf<T>],
        owners: &[(Labels<'_>, &T)],
    ) -> fmt::Result {
        for family in metrics.chunk_by(|(one, _), (next, _)| one.name == next.name) {
            let rows = owners.iter().flat_map(|(labels, values)| {
                family.iter().map(move |(metric, read)| {
                    let labels = labels.iter().copied().chain(metric.label);
                    (labels.collect(), read(values))
                })
            });
            if let Some((metric, _)) = family.first() {
                self.family(*metric, rows)?;
            }
        }
        Ok(())
    }

    /// Writes all histograms of the structs, each with the labels of its owner.
    pub(super) fn histograms<T>(
        &mut self,
        metrics: &[HistogramOf<T>],
        owners: &[(Labels<'_>, &T)],
    ) -> fmt::Result {
        for (metric, read) in metrics {
            let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
            let (name, help, kind) = (metric.name, metric.help, MetricType::Histogram);
            let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
            for (labels, times) in owners {
                encode_histogram(&mut family.encode_family(labels)?, read(times))?;
            }
        }
        Ok(())
    }
}

fn encode_histogram(row: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = histogram
        .buckets()
        .map(|(bound, count)| (seconds(bound), count))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = histogram.sum().as_secs_f64();
    row.encode_histogram::<Exemplary>(sum, count, &buckets, None)
}

/// Seconds of an upper bound in microseconds.
fn seconds(bound: u64) -> f64 {
    match bound {
        UNBOUNDED => f64::INFINITY,
        bound => Duration::from_micros(bound).as_secs_f64(),
    }
}

pub(super) fn epoch_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
