//! The documents that go from a process to the next one. Pure data; `takeover` and `totals` read
//! and apply them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::UpgradeTotals;
use crate::cluster::ClusterHandover;
use crate::discovery::LookupValues;
use crate::observe::{ListenerTotals, TraceValues};
use crate::pool::{PoolState, PoolTotals};
use crate::server::control::jobs::JobState;
use crate::tls::TicketKeyState;

/// State of a process as the next one takes it over before it serves: what the operator has set,
/// what was learned, and the keys of session tickets.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::server) struct ProcessState {
    pub(super) pools: BTreeMap<String, PoolState>,
    /// Listeners that the operator drains.
    pub(super) draining: Vec<String>,
    pub(super) ticket_keys: Option<TicketKeyState>,
    /// Operator's states of the cluster, so that an older store takes nothing away.
    pub(in crate::server) cluster: Option<ClusterHandover>,
    pub(super) totals: Totals,
}

/// Numbers of a process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::server) struct Totals {
    /// The latest id of a connection.
    pub(super) latest_id: u64,
    pub(super) latest_job: u64,
    /// Client connections.
    pub live: u64,
    pub(super) listeners: BTreeMap<String, ListenerTotals>,
    pub(super) pools: BTreeMap<String, PoolTotals>,
    pub(super) lookups: BTreeMap<String, LookupValues>,
    /// Sessions that failover has ended, by pool.
    pub(super) failover: BTreeMap<String, u64>,
    pub(super) reloads: (u64, u64),
    pub(super) access_log_dropped: u64,
    #[serde(default)]
    pub(super) traces: TraceValues,
    pub(super) log_dropped: u64,
    pub(super) upgrades: UpgradeTotals,
    /// Of the upgrade under way.
    pub(super) longest_freeze: Duration,
    /// Of the modules above the server, in the order in which they were added.
    pub(super) participants: Vec<Value>,
    /// Running jobs; only when the process hands over.
    pub jobs: Vec<JobState>,
}
