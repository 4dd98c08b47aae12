//! JSON of the admin API: plain data, filled by `admin::snapshot` and read by the command line.
//! Times are RFC 3339, in UTC. Counters are declared where they are counted, and flattened in here.

mod cluster;
mod event;
mod login;
mod plan;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::discovery::LookupValues;
use crate::observe::{BackendValues, ListenerValues, Metric, TraceValues, values};
use crate::pool::PoolValues;
use crate::server::UpgradeTotals;
pub(crate) use cluster::*;
pub(crate) use event::*;
pub(crate) use login::*;
pub(crate) use plan::*;

/// `GET /api/v1/status`: everything at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct StatusView {
    pub version: String,
    pub process: ProcessView,
    pub configuration: ConfigurationView,
    pub access_log: LogView,
    /// Spans of traces.
    #[serde(default)]
    pub traces: TraceValues,
    #[serde(default)]
    pub log: LogView,
    pub listeners: Vec<ListenerView>,
    pub pools: Vec<PoolView>,
    /// Running jobs on live connections.
    pub jobs: Vec<JobView>,
    #[serde(default)]
    pub upgrade: UpgradeView,
    /// Absent without `[cluster]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterView>,
}

/// Upgrades of the process, and of those before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UpgradeView {
    #[serde(flatten)]
    pub totals: UpgradeTotals,
    /// Reasons of the latest one that this process began and that failed.
    #[serde(default)]
    pub last_error: Vec<String>,
    pub last_error_at: Option<String>,
    /// Longest time that a session stood still when it moved to this process.
    #[serde(default)]
    pub longest_freeze_seconds: f64,
    /// Process that handed over to this one; absent once it has ended.
    pub predecessor: Option<PredecessorView>,
}

/// Process that has handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PredecessorView {
    pub process: u32,
    pub version: String,
    /// Connections that it still has; limits and `live` of this process count them, too.
    pub connections: u64,
}

/// `POST /api/v1/upgrade`: the process that serves now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UpgradedView {
    pub process: u32,
    pub version: String,
    /// Connections that stay in the old process until they end.
    pub left: u64,
}

/// This process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ProcessView {
    pub id: u32,
    /// False once it is stopping, or about to.
    pub ready: bool,
    /// True during `shutdown_delay`: not ready, and clients are still accepted.
    #[serde(default)]
    pub about_to_stop: bool,
    pub started_at: String,
    pub uptime_seconds: u64,
    /// File descriptors open now, where the system tells.
    pub open_fds: Option<u64>,
    /// File descriptors it may open.
    pub max_fds: Option<u64>,
    #[serde(flatten)]
    pub gauges: ProcessGauges,
    /// Bytes of anonymous memory, where the system tells.
    pub anonymous_bytes: Option<u64>,
    /// True while new connections are refused for lack of memory.
    #[serde(default)]
    pub short_of_memory: bool,
}

values! {
    /// Numbers of the process now.
    pub(crate) struct ProcessGauges {
        /// Client connections open
        connections = Metric::gauge("connections"),
        /// Client connections not yet relayed
        setup_connections = Metric::gauge("setup_connections"),
        /// TLS handshakes in progress
        handshakes = Metric::gauge("handshakes"),
        /// TLS handshakes that wait for their turn
        waiting_handshakes = Metric::gauge("waiting_handshakes"),
        /// Client connections that may be open
        max_connections = Metric::gauge("max_connections"),
        /// Sessions in the relay
        relayed_sessions = Metric::gauge("relayed_sessions"),
        /// Bytes buffered for slow peers
        buffered_bytes = Metric::gauge("buffered").bytes(),
        /// Limit of anonymous memory, above which new connections are refused; 0: no limit
        max_memory = Metric::gauge("max_memory").bytes(),
    }
}

/// Configuration in force, and the reloads so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConfigurationView {
    pub file: String,
    /// 1 at start; grows by 1 with every reload that is applied.
    #[serde(default)]
    pub number: u64,
    /// SHA-256 of the text in force.
    #[serde(default)]
    pub hash: String,
    #[serde(default)]
    pub loaded_at: String,
    pub reloads_ok: u64,
    pub reloads_failed: u64,
    pub last_reload_at: Option<String>,
    /// Why the latest reload was refused; absent when it was not.
    pub last_error: Option<String>,
}

/// Access log, or the process's own log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LogView {
    /// Lines lost since the start.
    pub dropped: u64,
}

/// Listener with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListenerView {
    pub name: String,
    /// Real address: with `bind = "...:0"`, the port that was given.
    pub bind: String,
    /// `tcp` or `websocket`.
    pub protocol: String,
    /// `listening`, `draining` or `stopped`.
    pub state: String,
    #[serde(flatten)]
    pub counters: ListenerValues,
    /// Connections and requests refused.
    pub refused: u64,
    /// Refusals by reason.
    pub refusals: Vec<RefusalView>,
    pub ends: Vec<EndView>,
    pub certificates: Vec<CertificateView>,
    /// Reason that its TLS files cannot be used; the former ones serve.
    pub certificate_error: Option<String>,
}

/// Refusals for one reason: `denied`, the key of a limit, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RefusalView {
    pub reason: String,
    pub count: u64,
}

/// Connections that ended in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EndView {
    pub side: String,
    pub phase: String,
    pub how: String,
    pub count: u64,
}

/// Certificate in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CertificateView {
    /// Path of the file.
    pub cert: String,
    /// First DNS name, or the subject where there is none.
    pub name: String,
    pub not_after: String,
    /// Whole days; negative once it has ended.
    pub days_left: i64,
}

/// Pool with its counters and backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PoolView {
    pub name: String,
    pub balance: String,
    /// A reload removed it; it is listed until its last connection is gone.
    pub removed: bool,
    /// Connections waiting for a backend.
    pub queued: u64,
    #[serde(flatten)]
    pub counters: PoolValues,
    /// Reason to keep sessions that `failover` was to end; `null` while none are kept.
    pub panic: Option<String>,
    /// Sessions that `failover` has ended.
    pub ended_by_health: u64,
    #[serde(flatten)]
    pub lookups: LookupValues,
    /// The discovered set; absent without `discover`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryView>,
    /// Names whose latest lookup failed, and why; the last good set serves.
    pub failing_lookups: Vec<LookupView>,
    /// Files of its `tls` or of its sticky keys that cannot be used, and why; the last good ones
    /// serve.
    #[serde(default)]
    pub file_errors: Vec<FileErrorView>,
    /// Present ones in file order, then removed ones that have live connections.
    pub backends: Vec<BackendView>,
}

/// `GET /api/v1/listeners`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListenersView {
    pub listeners: Vec<ListenerView>,
}

/// `GET /api/v1/pools`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PoolsView {
    pub pools: Vec<PoolView>,
}

/// `POST /api/v1/pools/POOL/discover/accept`: the answer of discovery that was believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AcceptedView {
    pub pool: String,
    /// Backends before it.
    pub before: u64,
    /// Backends of the answer.
    pub accepted: u64,
}

/// Discovered set of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct DiscoveryView {
    /// Name of the source, such as `consul web`.
    pub source: String,
    /// `waiting` for the first answer, `good`, `failing`, `held` or `stale`.
    pub state: String,
    /// Age of the last good answer; absent before it.
    pub age_seconds: Option<u64>,
    /// The source's own mark of that answer.
    pub revision: String,
    /// Bad entries in it, and the first of them.
    pub skipped: u64,
    pub first_skipped: Option<String>,
    /// Backends of the answer that is held, as it takes too much.
    pub held: Option<u64>,
    /// Backends by what the source says of them.
    pub ready: u64,
    pub drain: u64,
    pub absent: u64,
    /// Requests without an answer, by reason.
    pub errors: Vec<DiscoveryErrorView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct DiscoveryErrorView {
    pub reason: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FileErrorView {
    /// Purpose of the files: `tls` or `sticky`.
    pub kind: String,
    pub error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LookupView {
    pub name: String,
    pub error: String,
}

/// Backend with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BackendView {
    pub pool: String,
    pub name: String,
    /// Address as configured.
    pub address: String,
    /// Address in use; absent while its name is not resolved.
    pub endpoint: Option<String>,
    /// The effective state: `up`, `down`, `drain`, `maint`, `ejected`, `unresolved`.
    pub state: String,
    pub reason: String,
    /// Beginning of that state.
    pub since: String,
    /// State set by the operator: `ready`, `drain`, `maint`.
    pub operator: String,
    /// What discovery says: `ready`, `drain`, `absent`; `ready` of a configured backend.
    #[serde(default = "ready")]
    pub discovery: String,
    /// Verdict of the active check: `up`, `down`; `unchecked` before the first one and after
    /// maintenance, `none` without a check.
    pub check: String,
    /// Reason of that verdict.
    #[serde(default)]
    pub check_reason: String,
    /// Weight in effect: the operator's if one was set.
    pub weight: u16,
    pub backup: bool,
    /// 0: no own limit.
    pub max_connections: u64,
    /// Removed from the configuration or by discovery, with connections that still live.
    pub removed: bool,
    /// Connections now, those being set up among them.
    pub live: u64,
    #[serde(flatten)]
    pub counters: BackendValues,
    /// Latest connect failure; absent when there was none.
    pub last_error: Option<String>,
    pub last_error_at: Option<String>,
}

/// Answer to `ready`, `drain`, `maint` and `weight`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OperatedView {
    /// No connection is left on it.
    pub empty: bool,
    pub backend: BackendView,
    /// Job that ends its connections.
    pub job: Option<JobView>,
    /// Absent where the state is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<SpreadView>,
}

impl OperatedView {
    pub(crate) fn new(backend: BackendView, job: Option<JobView>) -> OperatedView {
        OperatedView {
            empty: backend.live == 0,
            backend,
            job,
            cluster: None,
        }
    }
}

/// Answer to `drain` and `ready` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OperatedListenerView {
    /// No connection or request is left on it.
    pub empty: bool,
    pub listener: ListenerView,
    /// Job that ends its connections.
    pub job: Option<JobView>,
}

impl OperatedListenerView {
    pub(crate) fn new(listener: ListenerView, job: Option<JobView>) -> OperatedListenerView {
        OperatedListenerView {
            empty: listener.counters.live == 0,
            listener,
            job,
        }
    }
}

/// Job that ends or moves connections at a rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct JobView {
    pub id: u64,
    /// Origin: `operator`, or `health` by `failover` of the pool.
    pub by: String,
    /// `chat/n1`, `listener chat`, or the conditions of its filter.
    pub target: String,
    /// `waiting`, `ending`, `done`, `aborted`.
    pub phase: String,
    /// True: it moves sessions to other backends, and ends none.
    #[serde(default)]
    pub moves: bool,
    /// Connections that were told to end, or were moved.
    pub ended: u64,
    /// Connections still there.
    pub left: u64,
    /// Estimated time until it is over; `null` when that is not known.
    pub left_seconds: Option<u64>,
    /// Rate, as in `100/s, within 10m`.
    pub pace: String,
    /// Code of the Close frame that a WebSocket gets.
    pub code: u16,
    pub started_at: String,
}

/// `GET /api/v1/jobs`: those that run and the latest that are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct JobsView {
    pub jobs: Vec<JobView>,
}

/// `GET /api/v1/connections`: a page of the established connections, without those in set-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConnectionsView {
    pub connections: Vec<ConnectionView>,
    /// `cursor` of the next page; `null`: that was all.
    pub next: Option<u64>,
    /// Established connections in all, whatever was asked for.
    pub live: u64,
    /// Those that match the filter, where `count=true` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
}

/// Connection of a listing; what is not known is `null`. `sni`, `host` and `path` come from the
/// client, and may hold any character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConnectionView {
    /// As in the access log.
    pub id: u64,
    pub listener: String,
    /// Address and port, or `unix`.
    pub client: String,
    /// The balancer in front that announced the client.
    pub via: Option<String>,
    pub sni: Option<String>,
    pub host: Option<String>,
    /// Without its query; host and path are cut at 128 bytes each.
    pub path: Option<String>,
    /// Tag of the session.
    pub tag: Option<String>,
    /// Subject of the client's certificate.
    pub client_subject: Option<String>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    /// TLS ends here on the client's side.
    pub tls: bool,
    /// Since accept.
    pub age_seconds: u64,
    /// Since the last byte either way.
    pub idle_seconds: u64,
    pub bytes_from_client: u64,
    pub bytes_from_backend: u64,
}

/// Answer to `DELETE /api/v1/connections/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ClosedView {
    pub closed: u64,
}

/// Answer to `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ReloadView {
    /// Changes as sentences; empty when nothing differed.
    pub summary: Vec<String>,
    /// Changes for programs: `{"change": "backend_added", "pool": "chat", "backend": "n4"}`.
    pub changes: Vec<serde_json::Value>,
}

/// Any answer that is not a success: problem details as of RFC 9457, and the fields beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ErrorView {
    /// `about:blank`: the status says which problem it is.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub status: u16,
    /// Fault of this request.
    #[serde(default)]
    pub detail: String,
    /// Copy of `detail`.
    pub error: String,
    /// All reasons, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Errors of a configuration for people, with lines and carets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<String>,
    /// `?local=true` would do it on this balancer alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

impl ErrorView {
    pub(crate) fn new(status: StatusCode, error: String) -> ErrorView {
        ErrorView {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: error.clone(),
            error,
            errors: Vec::new(),
            drawn: None,
            local: false,
        }
    }
}

/// Of a balancer that does not say it yet.
fn ready() -> String {
    "ready".to_owned()
}
