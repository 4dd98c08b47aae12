//! Families of one page of metrics: a name, a help text and rows of labels and values.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// `_total` is added to counters, and units to names, by the encoder.
pub(super) struct MetricsPage<'a>(pub DescriptorEncoder<'a>);

impl MetricsPage<'_> {
    pub fn counter<'r, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'r>, V)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        write(family, rows, |row, value| {
            row.encode_counter::<Exemplary, _, u64>(value, None)
        })
    }

    pub fn gauge<'r>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'r>, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        write(family, rows, |row, value| row.encode_gauge(value))
    }
}

fn write<'r, V>(
    mut family: MetricEncoder<'_>,
    rows: impl IntoIterator<Item = (Labels<'r>, V)>,
    encode: impl Fn(&mut MetricEncoder<'_>, &V) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in rows {
        if labels.is_empty() {
            encode(&mut family, &value)?;
        } else {
            encode(&mut family.encode_family(&labels)?, &value)?;
        }
    }
    Ok(())
}

/// The labels of an exemplar; there are none here.
type Exemplary = [(&'static str, &'static str); 0];

/// The one row of a family without labels; none when the value is not known.
pub(super) fn alone<V>(value: Option<V>) -> Option<(Labels<'static>, V)> {
    value.map(|value| (Vec::new(), value))
}

pub(super) fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
