//! Control of live connections: decides who is closed or moved, and never touches a socket.
//!
//! `jobs` does it, at a limited rate. The operator (`drain`), `failover`, `departures` and
//! `rebalance` start jobs; `pings` asks the sessions of a backend that is down for a sign of life.

mod departures;
pub(super) mod drain;
pub(super) mod failover;
pub(crate) mod jobs;
pub(super) mod pings;
mod rebalance;

use std::sync::Arc;

use self::departures::DepartureWatch;
use self::failover::FailoverWatch;
use self::rebalance::RebalanceWatch;
use super::state::Server;
use super::watch::pools::WatchedPools;
use super::watch::watcher::watch;

/// Starts to watch the pools for failover and rebalance; ends with the server.
pub(super) fn start(server: &Arc<Server>) {
    watch(server, WatchedPools::<RebalanceWatch>::default);
    watch(server, WatchedPools::<FailoverWatch>::default);
    watch(server, WatchedPools::<DepartureWatch>::default);
}
