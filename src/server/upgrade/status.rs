//! Facts about upgrades, for the admin API and the metrics.

use std::time::{Duration, SystemTime};

use crate::observe::{Metric, counters};

counters! {
    /// Counters of the upgrades of a process and of those before it.
    pub(super) struct UpgradeCounters {}

    /// Values of the counters at one moment.
    pub(crate) struct UpgradeTotals {
        /// Upgrades that handed over
        ok = Metric::counter("upgrades").label("result", "ok").help("Upgrades by result"),
        /// Upgrades that the new process or this one refused
        refused = Metric::counter("upgrades").label("result", "refused"),
        /// Upgrades whose new process ended within the probation
        failed = Metric::counter("upgrades").label("result", "failed"),
        /// Sessions that moved while the new process took over
        moved = Metric::counter("upgrade_sessions").label("result", "moved").help("Sessions that moved to a new process, at once or late, and offers of sessions that it declined"),
        /// Sessions that moved once they were established
        late = Metric::counter("upgrade_sessions").label("result", "late"),
        /// Sessions that the new process declined
        declined = Metric::counter("upgrade_sessions").label("result", "declined"),
    }
}

impl Default for UpgradeCounters {
    fn default() -> UpgradeCounters {
        UpgradeCounters::zero()
    }
}

/// Step of an upgrade that this process has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum UpgradePhase {
    #[default]
    None,
    /// The new process is being started and built.
    Running,
    /// The new process serves; this one ends its connections.
    HandedOver,
}

/// The process that handed over to this one, as long as it has connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PredecessorStatus {
    pub pid: u32,
    pub version: String,
    /// Connections that it still has.
    pub connections: u64,
}

/// State of the upgrades of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpgradeStatus {
    /// Longest time that a session stood still when it moved to or from this process.
    pub longest_freeze: Duration,
    /// The latest attempt of this process that failed: when, and why.
    pub last_error: Option<(SystemTime, Vec<String>)>,
    pub predecessor: Option<PredecessorStatus>,
}

/// Result of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upgraded {
    pub pid: u32,
    pub version: String,
    /// Connections that the old process still has.
    pub left: u64,
}
