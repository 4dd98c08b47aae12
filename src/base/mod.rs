//! Floor 0: pure building blocks for every other floor. No sockets, no tasks, no clock.

pub mod backoff;
pub mod close_code;
pub mod expiring_set;
pub mod fair_queue;
pub mod log_throttle;
pub mod names;
pub mod path;
pub mod rate;
pub mod silence_queue;
pub mod source_prefix;
pub mod units;
