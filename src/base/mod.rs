//! Floor 0: pure pieces that every other floor may use. No sockets, no tasks, no clock.

pub mod backoff;
pub mod close_code;
pub mod debounce;
pub mod expiring_set;
pub mod fair_queue;
pub mod log_throttle;
pub mod names;
pub mod path;
pub mod rate;
pub mod silence;
pub mod source_prefix;
pub mod units;
