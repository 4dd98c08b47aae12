//! Records of connections, the access log, the process's log and counters.
//!
//! The data path writes to its [`ConnectionRecord`] only. When the connection ends, the record adds
//! itself to the counters of its listener and backend. It hands one line to the [`Journal`], which
//! never makes the data path wait.

mod counters;
mod cut;
mod early_lines;
mod escape;
mod flush;
mod handshake_facts;
mod journal;
mod line;
mod metric;
mod output;
mod process_log;
mod record;
mod refusal;
mod request_names;
mod resumed;
mod summary;
mod tag;
mod termination;
mod words;
mod writer;

pub use counters::{
    BackendCounters, BackendValues, ListenerCounters, ListenerValues, TerminationCounts,
};
pub use escape::escape;
pub use handshake_facts::HandshakeFacts;
pub use journal::{Journal, Prepared};
pub use metric::{Metric, MetricOf};
pub(crate) use metric::{counters, values};
pub use process_log::{ProcessLog, dropped_log_lines};
pub use record::ConnectionRecord;
pub use refusal::{Refusal, RefusalCounts};
pub use request_names::RequestNames;
pub use resumed::Resumed;
pub use summary::Summary;
pub use tag::kept_tag;
pub use termination::{Cause, Phase, Side, Termination};
