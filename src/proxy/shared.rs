//! What the paths of all listeners share.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client::handshake_limiter::HandshakeLimiter;
use super::http::hard_stop::HardStop;
use crate::admission::{ConnectionPermit, Limits};
use crate::observe::Journal;
use crate::pool::Lease;

/// The relay plane as the data path uses it.
pub type Relay = crate::relay::Relay<SessionGuards>;

/// Guards that a session holds to its end, besides its record.
#[derive(Debug)]
pub struct SessionGuards {
    /// `None`: its session has lost one backend and looks for another.
    pub lease: Option<Lease>,
    /// Dropped after the lease.
    pub permit: ConnectionPermit,
}

impl SessionGuards {
    pub fn new(lease: Lease, permit: ConnectionPermit) -> SessionGuards {
        SessionGuards {
            lease: Some(lease),
            permit,
        }
    }
}

/// The parts of the process that every listener's path uses.
pub struct Proxy {
    pub relay: Arc<Relay>,
    pub journal: Arc<Journal>,
    pub limits: Arc<Limits>,
    pub handshakes: Arc<HandshakeLimiter>,
    /// Runs the set-up plane.
    pub runtime: Handle,
    /// Cancelled when the server stops: a connection that only waits for its next request then
    /// ends.
    pub stopping: CancellationToken,
    /// Moments at which the remaining HTTP exchanges end; planned before `stopping` is cancelled.
    pub hard_stop: HardStop,
}

#[cfg(test)]
impl Proxy {
    /// A proxy with one relay thread, on the test's runtime.
    pub fn for_tests(config: &crate::config::Config, journal: Arc<Journal>) -> Arc<Proxy> {
        Arc::new(Proxy {
            relay: Relay::start(1, usize::MAX).unwrap(),
            journal,
            limits: Limits::new(&config.global, 0),
            handshakes: HandshakeLimiter::new(&config.global, Handle::current()),
            runtime: Handle::current(),
            stopping: CancellationToken::new(),
            hard_stop: HardStop::default(),
        })
    }
}
