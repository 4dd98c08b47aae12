//! What the paths of all listeners share.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client::handshake_limiter::HandshakeLimiter;
use super::connect::idle::IdleConnections;
use super::http::hard_stop::HardStop;
use crate::admission::Limits;
use crate::observe::Journal;
use crate::relay::Relay;

/// The parts of the process that every listener's path uses.
pub(crate) struct Proxy {
    pub relay: Arc<Relay>,
    pub journal: Arc<Journal>,
    pub limits: Arc<Limits>,
    pub handshakes: Arc<HandshakeLimiter>,
    /// Runs the set-up plane.
    pub runtime: Handle,
    /// Cancelled when the server stops: a connection that only waits for its next request then
    /// ends.
    pub stopping: CancellationToken,
    /// Connections to backends that wait for another HTTP request.
    pub idle: Arc<IdleConnections>,
    /// Moments at which the remaining HTTP exchanges end; planned before `stopping` is cancelled.
    pub hard_stop: HardStop,
}

#[cfg(test)]
impl Proxy {
    /// A proxy with one relay thread, on the test's runtime.
    pub fn for_tests(config: &crate::config::Config, journal: Arc<Journal>) -> Arc<Proxy> {
        let limits = Limits::new(&config.global, 0);
        Arc::new(Proxy {
            relay: Relay::start(1, usize::MAX).unwrap(),
            journal,
            idle: IdleConnections::new(&limits),
            limits,
            handshakes: HandshakeLimiter::new(&config.global, Handle::current()),
            runtime: Handle::current(),
            stopping: CancellationToken::new(),
            hard_stop: HardStop::default(),
        })
    }
}
