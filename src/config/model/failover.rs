//! What becomes of a pool's sessions as its backends go down and come back.

use std::time::Duration;

/// `pool.failover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// Default `keep`.
    pub on_down: OnDown,
    /// A backend is down, or primaries are back, for so long before a session is ended. Default 30 s.
    pub grace: Duration,
    /// Default `keep`.
    pub on_up: OnUp,
    /// Percent of the pool's sessions that are ended so per minute, 1..=100. Default 25.
    pub max_close_rate: u8,
}

impl Failover {
    /// Sessions are ended by nobody but their peers and the operator.
    pub fn keeps_all(&self) -> bool {
        self.on_down == OnDown::Keep && self.on_up == OnUp::Keep
    }
}

/// What becomes of the sessions of a backend whose check fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    Keep,
    /// Ended at the pace of the pool's `drain`.
    Drain,
    /// Ended as soon as `max_close_rate` lets them.
    Close,
}

/// What becomes of the sessions of backups once primaries are back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUp {
    Keep,
    /// Ended at the pace of the pool's `drain`, so that they come back to primaries.
    Return,
}

/// What becomes of a client when no backend of the pool can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllDown {
    Refuse,
    /// Backends that the check or outlier detection holds down are tried; those in maintenance or drained never.
    Try,
}
