//! State of a pool as plain data, on their way to the next process. `handover` fills
//! and applies them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::outlier::OutlierState;

/// State of one pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolState {
    pub name: String,
    /// The last snapshot of discovery.
    pub(super) found: Vec<FoundBackend>,
    /// Present backends.
    pub(super) backends: Vec<BackendStateRecord>,
    /// Removed ones that have connections.
    pub(super) retired: Vec<BackendStateRecord>,
}

/// A backend of the last snapshot of discovery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FoundBackend {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) host: Option<String>,
    pub(super) weight: u16,
    pub(super) backup: bool,
    pub(super) max_connections: u64,
    /// As `DiscoveryState` is written.
    pub(super) state: String,
}

/// State of one backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BackendStateRecord {
    pub(super) name: String,
    /// As configured: a state holds for one address.
    pub(super) address: String,
    /// Address that its name was resolved to last.
    pub(super) endpoint: Option<String>,
    /// As `DiscoveryState` is written.
    pub(super) discovery: String,
    /// Connections. One that has some is kept where the next configuration lacks it.
    pub(super) live: u64,
    pub(super) operator: String,
    pub(super) weight: Option<u16>,
    pub(super) emptying: bool,
    pub(super) check: CheckRecord,
    pub(super) outlier: OutlierState,
    pub(super) ejection: String,
    pub(super) last_error: Option<(SystemTime, String)>,
    pub(super) since: Option<SystemTime>,
    pub(super) reason: String,
    /// Time for which its weight has grown.
    pub(super) slow_start: Option<Duration>,
    pub(super) is_slow_start_armed: bool,
    pub(super) unanswering: bool,
}

/// Verdict of the active check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CheckRecord {
    pub(super) up: bool,
    pub(super) checked: bool,
    pub(super) proven: bool,
    pub(super) reason: String,
}
