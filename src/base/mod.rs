//! Floor 0: pure building blocks for every other floor. No sockets, no tasks, no clock.

pub(crate) mod backoff;
pub(crate) mod close_code;
pub(crate) mod debounce;
pub(crate) mod expiring_set;
pub(crate) mod fair_queue;
pub(crate) mod head_limits;
pub(crate) mod log_throttle;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod rate;
pub(crate) mod silence_queue;
pub(crate) mod source_prefix;
pub(crate) mod units;
