//! Counters of a pool as plain data, on their way to the next process. `handover` fills and adds
//! them.

use serde::{Deserialize, Serialize};

use super::counters::PoolValues;
use crate::observe::{BackendValues, TimeTotals};

/// Counters of one pool at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolTotals {
    pub name: String,
    pub(super) values: PoolValues,
    pub(super) times: TimeTotals,
    pub(super) backends: Vec<BackendTotals>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BackendTotals {
    pub(super) name: String,
    pub(super) values: BackendValues,
    /// Connections that the process has on it.
    pub(super) live: u64,
}
