//! Families of one page of metrics: a name, a help text and rows of labels and values.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// `_total` is added to counters, and units to names, by the encoder.
pub(super) struct Page<'a>(pub DescriptorEncoder<'a>);

impl Page<'_> {
    pub fn counter<'r, R>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: R,
    ) -> fmt::Result
    where
        R: IntoIterator<Item = (Labels<'r>, u64)>,
    {
        let mut family =
            self.0
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_counter::<Exemplary, _, u64>(&value, None)?;
            } else {
                let mut row = family.encode_family(&labels)?;
                row.encode_counter::<Exemplary, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    pub fn gauge<'r, R>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: R,
    ) -> fmt::Result
    where
        R: IntoIterator<Item = (Labels<'r>, u64)>,
    {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    pub fn cpu_time(&mut self, seconds: Option<f64>) -> fmt::Result {
        let help = "User and system time";
        let mut family =
            self.0
                .encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        match seconds {
            Some(seconds) => family.encode_counter::<Exemplary, _, u64>(&seconds, None),
            None => Ok(()),
        }
    }
}

/// The labels of an exemplar; there are none here.
type Exemplary = [(&'static str, &'static str); 0];

/// The one row of a family without labels; none when the value is not known.
pub(super) fn alone(value: Option<u64>) -> Option<(Labels<'static>, u64)> {
    value.map(|value| (Vec::new(), value))
}

pub(super) fn epoch_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
