//! What is known of each connection, and where it is told: records, the access log, counters.
//!
//! The data path writes to its [`Record`] only. When the connection ends, the record adds itself to the counters
//! of its listener and backend and hands one line to the [`Journal`], which never makes it wait.

mod counters;
mod early_lines;
mod escape;
mod flush;
mod handshake_facts;
mod journal;
mod line;
mod output;
mod process_log;
mod record;
mod refusal;
mod request_names;
mod summary;
mod tag;
mod termination;
mod writer;

pub use counters::{BackendCounters, ListenerCounters, TerminationCounts};
pub use escape::escape;
pub use handshake_facts::HandshakeFacts;
pub use journal::{Journal, Prepared};
pub use process_log::{ProcessLog, dropped_log_lines};
pub use record::{ConnectionRecord, Resumed};
pub use refusal::{Refusal, RefusalCounts};
pub use summary::Summary;
pub use tag::kept_tag;
pub use termination::{Cause, Phase, Side, Termination};
