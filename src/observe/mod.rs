//! Records of connections, the access log, the process's log and counters.
//!
//! The data path writes to its [`ConnectionRecord`] only. When the connection ends, the record adds
//! itself to the counters of its listener and backend. It hands one line to the [`Journal`], which
//! never makes the data path wait.

mod clock_text;
mod counters;
mod cut;
mod early_lines;
mod escape;
mod flush;
mod handshake_facts;
mod histogram;
mod journal;
mod line;
mod listener_totals;
mod metric;
mod output;
mod process_log;
mod queue;
mod record;
mod refusal;
mod request_names;
mod resumed;
mod summary;
mod tag;
mod termination;
mod times;
mod traced_names;
mod traces;
mod words;
mod writer;

pub(crate) use counters::BackendCounters;
pub(crate) use counters::BackendValues;
pub use counters::ListenerCounters;
pub(crate) use counters::ListenerValues;
pub(crate) use escape::escape;
pub(crate) use handshake_facts::HandshakeFacts;
pub(crate) use histogram::{Histogram, HistogramOf, HistogramValues, TimeTotals, UNBOUNDED};
pub use journal::Journal;
pub(crate) use journal::Prepared;
pub(crate) use listener_totals::ListenerTotals;
pub(crate) use metric::{Metric, MetricOf};
pub(crate) use metric::{counters, values};
pub(crate) use process_log::{ProcessLog, add_dropped_log_lines, dropped_log_lines};
pub(crate) use record::{ConnectionRecord, TracePlace, export_peer, import_peer};
pub(crate) use refusal::{Refusal, RefusalCounts};
pub(crate) use resumed::Resumed;
pub(crate) use summary::Summary;
pub(crate) use tag::kept_tag;
pub(crate) use termination::{Cause, Phase, Side, Termination};
pub(crate) use times::{ListenerTimes, PoolTimes};
pub(crate) use traces::{
    AttributeValue, Attributes, Span, SpanEvent, SpanKind, SpanQueue, Spans, TraceValues,
};
