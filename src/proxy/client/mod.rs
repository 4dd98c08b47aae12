//! A client connection in set-up, and the steps that find out who its client is. None of them
//! chooses a pool.

pub(super) mod handshake_limiter;
pub(super) mod identify;
pub(super) mod maybe_tls;
pub(super) mod proxied;
pub(super) mod proxy_header;
mod tls_alert;
mod tls_handshake;
pub(super) mod trust;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::proxied::ProxiedClient;
use super::route::ListenerSnapshot;
use super::shared::Proxy;
use crate::admission::{ConnectionPermit, ListenerAdmission, SetupPermit};
use crate::base::source_prefix::SourcePrefix;
use crate::config::Prefixes;
use crate::net::Peer;
use crate::observe::{
    Cause, ConnectionRecord, ListenerCounters, Phase, Refusal, Side, Termination,
};

/// A connection in set-up, without its stream.
pub(super) struct ClientConnection {
    pub proxy: Arc<Proxy>,
    /// The listener's settings at accept.
    pub listener: Arc<ListenerSnapshot>,
    /// The listener's settings now: a later HTTP request of the connection is routed by these.
    pub latest: Arc<ArcSwap<ListenerSnapshot>>,
    /// Cancelled when the listener is removed or the server stops: no further request is taken.
    pub closing: CancellationToken,
    pub counters: Arc<ListenerCounters>,
    /// Admission of its listener.
    pub admission: Arc<ListenerAdmission>,
    /// The client: who connected, or whom the PROXY header of a trusted peer announces.
    pub peer: Peer,
    /// Present where a balancer in front has announced the client.
    pub proxied: Option<Box<ProxiedClient>>,
    /// Accept to routed: PROXY header, ClientHello, handshake and HTTP head share it.
    pub deadline: Instant,
    /// It came when the process was stopping already.
    pub is_late: bool,
    pub setup: SetupPermit,
}

impl ClientConnection {
    /// A record of this connection, or of one of its requests.
    pub(super) fn record(&self) -> ConnectionRecord {
        let mut record = ConnectionRecord::new(&self.counters, self.peer);
        if let Some(proxied) = &self.proxied {
            record.announce(self.peer, proxied.via, proxied.tlvs());
        }
        record
    }

    /// Makes the client that a PROXY header announces the connection's.
    pub(super) fn announce(
        &mut self,
        client: Peer,
        proxied: ProxiedClient,
        record: &mut ConnectionRecord,
    ) {
        record.announce(client, proxied.via, proxied.tlvs());
        self.peer = client;
        self.proxied = Some(Box::new(proxied));
    }

    /// The network that the client counts for.
    pub(super) fn source(&self) -> SourcePrefix {
        let limits = self.listener.config.admission.per_source;
        let Prefixes { v4, v6 } = limits.map(|limits| limits.prefixes).unwrap_or_default();
        SourcePrefix::of(self.peer.ip(), v4, v6)
    }

    /// Notes that set-up waits for the client to send something.
    pub(super) fn fall_silent(&self) {
        self.setup.fall_silent(self.source());
    }

    /// Lets the client in, as the listener's rules have it.
    pub(super) fn admit(&self) -> Result<ConnectionPermit, Refusal> {
        self.admission.admit(
            Some(&self.setup),
            self.listener.admission(),
            self.peer.ip(),
            self.names_clients(&self.listener.config),
        )
    }

    /// The output of `step`, or the end of a connection that has to make room meanwhile. The step
    /// stays where it is pinned: a future that is moved into another one takes its memory twice.
    ///
    /// # Cancel safety
    /// That of `step`.
    pub(super) async fn unless_evicted<T>(
        &self,
        phase: Phase,
        step: Pin<&mut impl Future<Output = Result<T, Termination>>>,
    ) -> Result<T, Termination> {
        tokio::select! {
            biased;
            done = step => done,
            () = self.setup.evicted() => Err(self.evicted(phase)),
        }
    }

    /// The end of a connection that has made room for another one.
    pub(super) fn evicted(&self, phase: Phase) -> Termination {
        self.admission.refused(Refusal::Silent);
        Termination::new(Side::Evenkeel, phase, Cause::Full)
    }
}
