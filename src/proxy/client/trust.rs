//! Which peers are believed when they say who the client is.

use std::net::IpAddr;

use super::ClientConnection;
use crate::config::{ClientIpFrom, Listener, Protocol};
use crate::net::Peer;

/// Whether the peer is a balancer whose requests name their clients: its connections are no
/// client's own.
pub(in crate::proxy) fn names_clients(config: &Listener, peer: Peer) -> bool {
    config.protocol == Protocol::Websocket
        && config.client_ip_from == ClientIpFrom::Forwarded
        && is_trusted(config, peer.ip())
}

/// Whether a peer is in the listener's `trusted`; `None` is one without an address.
pub(in crate::proxy) fn is_trusted(config: &Listener, ip: Option<IpAddr>) -> bool {
    config.trusted.iter().any(|one| one.covers(ip))
}

impl ClientConnection {
    /// Whether the peer is trusted to name the client it asks for.
    pub(crate) fn is_believed(&self, config: &Listener) -> bool {
        !self.is_unannounced() && is_trusted(config, self.peer.ip())
    }

    /// As [`names_clients`], of this connection's peer.
    pub(crate) fn names_clients(&self, config: &Listener) -> bool {
        !self.is_unannounced() && names_clients(config, self.peer)
    }

    /// Whether a PROXY header was read that announces no client. It leaves its sender as the peer,
    /// and does not say whose the fields are.
    fn is_unannounced(&self) -> bool {
        self.listener.config.accept_proxy && self.proxied.is_none()
    }
}
