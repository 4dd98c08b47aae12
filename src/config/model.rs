//! The typed configuration: what the rest of the program sees once a file was parsed and validated.
//!
//! Every field is final: names are resolved, units are types, file paths are absolute or relative to the
//! working directory (the decoder has already joined them to the configuration file's folder), and an `Option` here
//! means "the operator chose to have none", never "filled in later". Defaults live in `config::defaults`.

mod introduction;
mod listener_tls;
mod socket;
mod sticky;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

mod admin;
mod backend_tls;
mod check;
mod failover;
mod long_life;
mod rebalance;
mod resume;

pub use crate::base::rate::Rate;
pub use admin::*;
pub use backend_tls::*;
pub use check::*;
pub use failover::*;
pub use introduction::*;
pub use listener_tls::*;
pub use long_life::*;
pub use rebalance::*;
pub use resume::*;
pub use socket::*;
pub use sticky::*;

mod admission;
pub use admission::*;

/// One whole configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub global: Global,
    pub access_log: AccessLog,
    /// At least one.
    pub listeners: Vec<Listener>,
    pub pools: BTreeMap<String, Pool>,
    /// `None`: no admin endpoint.
    pub admin: Option<Admin>,
    /// `None`: metrics and probes are served on the admin endpoint only.
    pub metrics: Option<Metrics>,
}

/// `[global]`: the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Relay threads; 0 = as many as cores the process may use. Default 0. Read at start only.
    pub workers: usize,
    /// Client connections open at once; 0 = what the file-descriptor budget allows. Default 0.
    pub max_connections: u64,
    /// Client connections accepted in a time; `None`: no such bound. Default none.
    pub max_connection_rate: Option<Rate>,
    /// TLS handshakes in progress at once; more wait, source by source; 0 = 64 for each core, the default.
    pub max_handshakes: usize,
    /// TLS handshakes begun in a time; more wait. Default none.
    pub max_handshake_rate: Option<Rate>,
    /// Connections between accept and adoption at once. Default 10,000.
    pub max_setup_connections: usize,
    /// Bytes that live connections hold for peers that do not take them. Default 256 MiB.
    pub max_buffered: usize,
    /// Bytes of anonymous memory above which new connections are refused; 0 = no bound. `None`: 85 % of
    /// the smallest limit of the control groups above the process, the default.
    pub max_memory: Option<u64>,
    /// How long live connections may go on after SIGTERM. Default 30 s.
    pub hard_stop_after: Duration,
    /// Follow the configuration file and reload when it changed. Default true.
    pub watch: bool,
    /// Default `info`.
    pub log_level: LogLevel,
    /// Default `text`.
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[access_log]`: one line per connection.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Default `off`.
    pub output: LogOutput,
    /// Default `json`.
    pub format: LogFormat,
    /// When a line is written. Default `["end"]`.
    pub log_at: LogAt,
    /// Time between two lines of a live connection when `log_at` has `interval`. Default 1 h, at least 1 s.
    pub interval: Duration,
    /// Lines waiting to be written at once; more are dropped and counted. Default 8,192.
    pub max_queue: usize,
    /// Whether connections without a byte get a line. Default true.
    pub log_null: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    Off,
    Stdout,
    File(PathBuf),
}

/// The moments of a connection that get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogAt {
    /// At adoption by the relay (an HTTP request has no such moment).
    pub open: bool,
    pub interval: bool,
    /// When another backend has taken a session.
    pub resume: bool,
    pub end: bool,
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `[::]` is dual-stack.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `[[listener]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Unique; letters, digits, `-`, `_`, `.`, `:`.
    pub name: String,
    pub bind: Bind,
    pub protocol: Protocol,
    /// `None`: plain.
    pub tls: Option<ListenerTls>,
    /// Where what no route matches goes; `None`: it is refused.
    pub pool: Option<String>,
    /// First match wins, in file order.
    pub routes: Vec<Route>,
    pub admission: Admission,
    /// Clients whose `X-Forwarded-*` headers are believed and extended, and, with `accept_proxy`, who may send a PROXY
    /// header. Default none.
    pub trusted: Vec<Trusted>,
    /// Whether every connection begins with a PROXY header, from `trusted` sources only. Default false.
    pub accept_proxy: bool,
    /// Which fields tell a backend of the client. Default `x`.
    pub forwarded: ForwardedFields,
    /// Who is the client of a request from a `trusted` peer. Default `forwarded`.
    pub client_ip_from: ClientIpFrom,
    /// Each request has an X-Request-Id. Default true.
    pub request_id: bool,
    /// Where a path route has `allow` or `deny`. Default `Refuse`.
    pub encoded_slash: EncodedSlash,
    /// What its sessions are known by. Default none.
    pub tag: Option<Tag>,
    /// Accept to routed. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bound of the wait for the backend's 101. Default 10 s.
    pub upgrade_timeout: Duration,
    /// Between two HTTP requests of one connection. Default 60 s.
    pub keep_alive_timeout: Duration,
    /// Whether the frames of WebSockets are followed. Default true.
    pub follow_frames: bool,
    pub frames: FrameLimits,
    /// The kernel's queue of connections not yet accepted. Default 4,096.
    pub backlog: u32,
    /// Of the client's legs.
    pub tcp: TcpOptions,
    /// A connection is not accepted before it has sent something, for about this long. `None`: it is; the default.
    pub tcp_defer_accept: Option<Duration>,
    /// Of a unix socket. Default as the umask has it.
    pub file: FileRights,
}

/// `listener.tag`: what tells the operator whose a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// A header, a cookie or a parameter of the query.
    pub key: HashKey,
    /// The access log has a hash of it. Default false.
    pub is_hashed: bool,
}

/// One of `listener.trusted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    Network(IpNet),
    /// Whoever connects to a unix socket; the rights of its file guard it.
    Unix,
}

impl Trusted {
    /// Clients are canonical, so a network of v4-mapped addresses is the IPv4 network that it stands for.
    pub fn network(network: IpNet) -> Trusted {
        let mapped = match network {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => {
                let ip = v6.addr().to_ipv4_mapped();
                ip.and_then(|ip| Ipv4Net::new(ip, v6.prefix_len() - 96).ok())
            }
            _ => None,
        };
        Trusted::Network(mapped.map_or(network, IpNet::V4).trunc())
    }

    /// `None` is a client without an address: that of a unix socket.
    pub fn covers(&self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Trusted::Network(network), Some(client)) => network.contains(&client),
            (Trusted::Unix, None) => true,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Websocket,
}

/// `[[listener.route]]`: all the conditions given must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `tcp` with TLS only. Exact, or `*.example.org` for one label. Lower case.
    pub sni: Option<String>,
    /// `tcp` only: with TLS passthrough one protocol of the client's list, e.g. `mqtt`; where TLS ends here, the one agreed on.
    pub alpn: Option<String>,
    /// `websocket` only: the Host header without its port. Exact, or `*.example.org` for one label. Lower case.
    pub host: Option<String>,
    /// `websocket` only: prefix of the path, at a segment boundary (`/chat` matches `/chat` and `/chat/x`, not `/chatter`).
    pub path: Option<String>,
    pub pool: String,
    /// Who may use it, once it has matched.
    pub access: Access,
}

/// `[pool.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: String,
    /// Default `round_robin`.
    pub balance: Balance,
    pub backends: Vec<Backend>,
    /// Backends from DNS, beside or in place of `backends`.
    pub discover: Option<Discover>,
    /// Default 5 s, per try.
    pub connect_timeout: Duration,
    /// No byte either way. Default 1 h.
    pub idle_timeout: Duration,
    /// A half-closed connection. Default 30 s.
    pub fin_timeout: Duration,
    /// From accept to the end of a session, give or take a tenth. `None`: no bound, the default.
    pub max_lifetime: Option<Duration>,
    /// What keeps a session from `idle_timeout`. Default any byte.
    pub activity: Activity,
    /// `None`: no pings of our own.
    pub ping: Option<Ping>,
    /// `None`: the connections of a drained backend end by themselves.
    pub drain: Option<Drain>,
    /// `None`: live connections stay where they are when a backend is added.
    pub rebalance: Option<Rebalance>,
    /// `None`: a session ends with its backend.
    pub resume: Option<Arc<Resume>>,
    /// The field that tells a backend its own name, in lower case. `None`: it is not told, the default.
    pub name_header: Option<Arc<str>>,
    /// An ordinary HTTP request that a backend neither takes nor begins to answer. Default 3 min.
    pub response_timeout: Duration,
    /// No byte of the body of an ordinary HTTP request that is not answered yet. Default 60 s.
    pub body_timeout: Duration,
    /// Further tries, each on another backend, after a failed connect. Default 3.
    pub retries: u32,
    /// Default: a failed connect only.
    pub retry_on: RetryOn,
    /// Connections waiting for a backend below its `max_connections`; 0 = refuse at once. Default 0.
    pub max_queue: usize,
    /// Default 5 s.
    pub queue_timeout: Duration,
    /// Time over which the weight of a new or recovered backend grows to its full value; 0 = none. Default 0. Never with hash algorithms.
    pub slow_start: Duration,
    /// What becomes of a client when no backend can be used. Default refuse.
    pub when_all_down: WhenAllDown,
    pub outlier: Outlier,
    pub failover: Failover,
    /// `None`: backends are spoken to in plain.
    pub tls: Option<BackendTls>,
    /// `None`: a client has no backend of its own.
    pub sticky: Option<Sticky>,
    pub retry_after: RetryAfter,
    /// `None`: no active checks.
    pub check: Option<Check>,
    /// The PROXY header that a backend's connection begins with. `None`: none, the default.
    pub send_proxy: Option<ProxyVersion>,
    /// Of the backends' legs, and of checks.
    pub dial: Dial,
}

/// Failures beyond a failed connect after which a WebSocket's handshake is sent to another backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// The backend took the handshake and ended without a byte of an answer.
    pub empty_response: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConn,
    IpHash,
    Random,
    /// `balance = "hash"` with `hash_key`.
    Hash(HashKey),
}

/// What `hash` looks at. A connection without it falls back to the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Sni,
    Path,
    /// In lower case.
    Header(String),
    Query(String),
    Cookie(String),
}

/// One `backend` of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Unique in its pool; default: the address.
    pub name: String,
    pub address: Address,
    /// 0..=256; 0 = gets nothing new. Default 1.
    pub weight: u16,
    /// Live connections at once; 0 = no own limit. Default 0.
    pub max_connections: u64,
    /// Used only when no other backend can be. Default false.
    pub backup: bool,
    /// Before the first check has decided. Default `up`.
    pub init_state: InitState,
    /// The name that discovery found it by, where its address does not tell.
    pub host: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitState {
    Up,
    Down,
}

/// Where a backend is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    /// A host name and port; resolved by the discovery plane, which keeps the last good answer.
    Name(String, u16),
    /// `unix:/path`
    Unix(PathBuf),
}

/// `pool.discover`.
#[derive(Debug, Clone, PartialEq)]
pub struct Discover {
    pub source: DiscoverSource,
    /// Empty: the system's (`/etc/resolv.conf`).
    pub nameservers: Vec<SocketAddr>,
    /// A record is looked up again no sooner than this, whatever its TTL. Default 1 s, at least 100 ms.
    pub min_ttl: Duration,
    /// And no later than this. Default 5 min.
    pub max_ttl: Duration,
    /// One lookup. Default 5 s.
    pub timeout: Duration,
    /// Of every `dns` backend. Default 1.
    pub weight: u16,
    /// Of every discovered backend; 0 = no own limit. Default 0.
    pub max_connections: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverSource {
    /// Every A and AAAA record is a backend.
    Dns { host: String, port: u16 },
    /// SRV: target, port, weight; priorities above the lowest become `backup`.
    Srv { name: String },
}

/// `pool.outlier`: passive ejection after repeated connect failures.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// Connect failures within `window` that eject; 0 = never. Default 3.
    pub connect_failures: u32,
    /// Default 10 s.
    pub window: Duration,
    /// First ejection; each failed probe doubles it. Default 500 ms.
    pub base_ejection_time: Duration,
    /// Default 1 s, or `base_ejection_time` if that is longer.
    pub max_ejection_time: Duration,
}
