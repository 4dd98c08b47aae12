//! `GET /api/v1/events`: data of each type of event. Where something changed, the event holds all
//! of it, as the routes of the same name show it.

use serde::Serialize;

use super::{
    BackendView, ClusterView, DiscoveryView, ListenerView, LookupView, PoolView, UpgradeView,
};

/// `hello`: begins every stream.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HelloEvent {
    pub process: u32,
    pub version: String,
    pub started_at: String,
    /// Number of the configuration in force.
    pub configuration: u64,
    /// The stream goes on behind `Last-Event-ID`. False: ask for the state first.
    pub resumed: bool,
}

/// `lost`: the viewer was too slow, and events are missing here. Ask for the state again.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LostEvent {}

/// `process`: it is about to stop, short of memory, or no longer so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ProcessEvent {
    pub ready: bool,
    pub about_to_stop: bool,
    pub short_of_memory: bool,
}

/// `backend`: a new one, or one whose state, settings or reason changed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BackendEvent {
    /// State before; `null` of a new one.
    pub from: Option<String>,
    /// Changes of its state since the last event: more than one where it flaps.
    pub changes: u64,
    #[serde(flatten)]
    pub backend: BackendView,
}

/// `check`: the verdict of the active check or its reason changed, or checks began to fail.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CheckEvent {
    pub pool: String,
    pub backend: String,
    /// Verdict: `up`, `down`, `unchecked` or `none`.
    pub check: String,
    pub reason: String,
}

/// `pool`: a new one, or one that differs in anything but numbers. Without its backends.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PoolEvent {
    #[serde(flatten)]
    pub pool: PoolView,
}

/// `discovery`: what a pool knows of its source changed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct DiscoveryEvent {
    pub pool: String,
    /// Absent where names are looked up alone.
    pub discovery: Option<DiscoveryView>,
    pub failing_lookups: Vec<LookupView>,
}

/// `listener`: a new one, or one whose state, address or certificates changed.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListenerEvent {
    /// State before; `null` of a new one.
    pub from: Option<String>,
    #[serde(flatten)]
    pub listener: ListenerView,
}

/// `gone`: not listed any more.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GoneEvent {
    /// `backend`, `pool` or `listener`.
    pub part: &'static str,
    /// Name; of a backend `POOL/NAME`.
    pub name: String,
}

/// `reload`: a reload was applied or refused.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ReloadEvent {
    pub ok: bool,
    /// The configuration in force afterwards.
    pub number: u64,
    pub hash: String,
    /// Why it was refused; absent when it was applied.
    pub error: Option<String>,
}

/// `refusals`: refusals of the last second, where there were any.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RefusalsEvent {
    pub refusals: Vec<RefusedEntry>,
}

/// Refusals of one listener for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RefusedEntry {
    pub listener: String,
    pub reason: String,
    /// In the last second.
    pub count: u64,
    /// Since the start.
    pub total: u64,
}

/// `upgrade`: one began, failed, or moved sessions.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UpgradeEvent {
    /// An upgrade is under way or done: nothing can be changed here.
    pub handing_over: bool,
    #[serde(flatten)]
    pub upgrade: UpgradeView,
}

/// `cluster`: a member came or left, a state was shared, or the store was lost or is back.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ClusterEvent {
    /// Absent once a reload took the cluster out of the configuration.
    pub cluster: Option<ClusterView>,
}

/// `rates`: numbers of the last second, once a second.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RatesEvent {
    /// Time that the rates are over.
    pub seconds: f64,
    /// Client connections open.
    pub connections: u64,
    /// Sessions in the relay.
    pub relayed_sessions: u64,
    pub listeners: Vec<ListenerRates>,
    pub pools: Vec<PoolRates>,
}

/// Numbers of a listener; rates are per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListenerRates {
    pub name: String,
    /// Connections and requests in progress.
    pub live: u64,
    pub accepted: f64,
    pub refused: f64,
    pub requests: f64,
    pub bytes_from_client: f64,
    pub bytes_from_backend: f64,
}

/// Numbers of a pool and of those of its backends that differ from the event before.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PoolRates {
    pub name: String,
    /// Connections on all its backends.
    pub live: u64,
    /// Connections waiting for a backend.
    pub queued: u64,
    pub backends: Vec<BackendRates>,
}

/// Numbers of a backend; rates are per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BackendRates {
    pub name: String,
    pub live: u64,
    pub connections: f64,
    pub connect_failures: f64,
    pub requests: f64,
    pub bytes_from_client: f64,
    pub bytes_from_backend: f64,
}
