//! Tables of the file: one module each, with the declaration of its keys and the rules between
//! them.
//!
//! Rules that need the whole file stand in `validate`.

mod access_log;
mod admin;
mod admin_token;
mod admission;
mod affinity;
mod backend;
mod backend_tls;
mod balance;
mod check;
mod check_expect;
mod check_headers;
mod check_kind;
mod check_rules;
mod cluster;
mod discover;
mod discover_policy;
mod failover;
mod global;
mod http;
mod listener;
mod listener_tls;
mod long_life;
mod outlier;
mod pool;
mod rebalance;
mod registry;
mod resume;
mod retry_after;
mod route;
mod socket;
mod socket_file;
mod sticky;
mod tag;
mod traces;
mod upgrade;

pub use access_log::*;
pub use admin::*;
pub use admin_token::*;
pub use admission::*;
pub use affinity::*;
pub use backend::*;
pub use backend_tls::*;
pub use balance::*;
pub use check::*;
pub use check_expect::*;
pub use check_kind::*;
pub use cluster::*;
pub use discover::*;
pub use discover_policy::*;
pub use failover::*;
pub use global::*;
pub use http::*;
pub use listener::*;
pub use listener_tls::*;
pub use long_life::*;
pub use outlier::*;
pub use pool::*;
pub use rebalance::*;
pub use registry::*;
pub use resume::*;
pub use retry_after::*;
pub use route::*;
pub use socket::*;
pub use socket_file::*;
pub use sticky::*;
pub use tag::*;
pub use traces::*;
pub use upgrade::*;

pub(super) use pool::pools;

table! {
    /// Configuration of Evenkeel, a load balancer for connections that last.
    pub struct Config {
        /// The process.
        global: Global, nested;
        /// A line per connection.
        access_log: AccessLog, nested;
        /// Traces of connections and requests, over OTLP. Without it there are none.
        traces: Option<Traces>, optional;
        /// Bound addresses, each with its protocol, TLS and rules.
        listeners as "listener": Vec<Listener>, required;
        /// Named sets of backends.
        pools as "pool": Pools, given;
        /// Endpoint of the operator: state, drain, reload, metrics. Without it there is none.
        admin: Option<Admin>, optional;
        /// `/metrics`, `/healthz` and `/readyz` on an address of their own, read-only. Without it:
        /// on the admin endpoint only.
        metrics: Option<Metrics>, optional;
        /// Handover to a new binary.
        upgrade: Upgrade, nested;
        /// Several balancers that behave as one. Without it this one stands alone.
        cluster: Option<Cluster>, optional;
    }
}
