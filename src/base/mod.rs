//! Floor 0: pure pieces that every other floor may use. No sockets, no tasks, no clock.

pub mod backoff;
pub mod close_code;
pub mod lately;
pub mod names;
pub mod pace;
pub mod path;
pub mod rate;
pub mod silence;
pub mod source;
pub mod turns;
pub mod units;
