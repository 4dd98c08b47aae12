//! `pool.rebalance`: moving live connections to a backend that was added or has come back.

use std::time::Duration;

use crate::base::rate::Rate;

/// How connections are moved from backends that carry more than their share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// 1..=90 of a backend's share: so far above it begins, if another one is as far below. Default 20.
    pub threshold_percent: u8,
    /// So many are moved in a time, over the whole pool. Default 10/s.
    pub rate: Rate,
    /// Younger sessions are left alone. Default 1 min.
    pub min_age: Duration,
    /// Default `keep`.
    pub tcp: UntoldSessions,
}

/// What becomes of sessions that cannot be told to come back: raw ones, and WebSockets whose frames are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntoldSessions {
    /// They stay where they are.
    Keep,
    /// They are closed.
    Close,
}
