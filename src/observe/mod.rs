//! Records of connections, the access log and counters.

mod counters;

pub use counters::BackendCounters;
