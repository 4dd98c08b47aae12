//! The data path, from accept to adoption: accept -> admit -> classify -> route -> dispatch -> adopt.
//!
//! One connection sees one configuration: its [`Rules`] are taken at accept, a reload swaps the next one's (of a kept
//! HTTP connection each request sees one, or polling would go on by routes and pools that are gone). Everything
//! here is the set-up plane; what lasts is handed to the relay, and nothing here waits for it.

mod accept;
mod answer;
mod backend_line;
mod classify;
mod client_certificate;
mod dialogue;
mod dispatch;
mod door;
mod errand;
mod exchange;
mod forward;
mod gate;
mod handshakes;
mod hard_stop;
mod http;
mod interval;
mod introduction;
mod reach;
mod real_client;
mod repeat;
mod request_id;
mod request_key;
mod resume;
mod retry_after;
mod rules;
mod setup_leg;
mod silence;
mod sticky;
mod tag;
mod tcp;
mod ticket;
mod upgrade;
mod visit;
mod wait;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Limits, ListenerAdmission, SetupPermit};
use crate::net::Peer;
use crate::observe::{ConnectionRecord, Journal, ListenerCounters};

pub use accept::Listening;
pub use dispatch::{ConnectRequest, DispatchError, dispatch};
pub use handshakes::HandshakeLimiter;
pub use hard_stop::HardStop;
pub use introduction::{OutgoingProxyHeader, ProxiedClient};
pub use rules::{ListenerSnapshot, RouteInput};
pub use setup_leg::MaybeTlsStream;

pub use crate::relay::Relay;

/// What every listener's path uses.
pub struct Proxy {
    pub relay: Arc<Relay>,
    pub journal: Arc<Journal>,
    pub limits: Arc<Limits>,
    pub handshakes: Arc<HandshakeLimiter>,
    /// Where connections are set up.
    pub runtime: Handle,
    /// Cancelled when the server stops: a connection that only waits for its next request then ends.
    pub stopping: CancellationToken,
    /// When what is left of the HTTP exchanges ends; planned before `stopping` is cancelled.
    pub hard_stop: HardStop,
}

/// One accepted connection on its way through set-up, beside its stream.
pub struct ClientConnection {
    pub proxy: Arc<Proxy>,
    /// The listener's at accept.
    pub rules: Arc<ListenerSnapshot>,
    /// The listener's now: a later HTTP request of the connection is routed by these.
    pub latest: Arc<ArcSwap<ListenerSnapshot>>,
    /// Cancelled when the listener is removed or the server stops: the connection takes no further request.
    pub closing: CancellationToken,
    pub counters: Arc<ListenerCounters>,
    /// Its listener's.
    admissions: Arc<ListenerAdmission>,
    /// The client, once `introduction::receive` has decided who that is.
    pub peer: Peer,
    /// What a balancer in front said of it.
    pub announced: Option<Box<ProxiedClient>>,
    /// Accept to routed: PROXY header, ClientHello, handshake and HTTP head share it. Never extended.
    pub deadline: Instant,
    /// Goes with the connection to its end.
    pub slot: Arc<SetupPermit>,
}

impl ClientConnection {
    /// A record of this connection, or of one of its requests.
    pub fn record(&self) -> ConnectionRecord {
        let mut record = ConnectionRecord::new(&self.counters, self.peer);
        if let Some(announced) = &self.announced {
            record.announce(self.peer, announced.via, announced.tlvs());
        }
        record
    }
}
