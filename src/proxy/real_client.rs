//! Who a request is for, behind an HTTP balancer that is trusted to say so.
//!
//! One connection of such a balancer carries the requests of many clients, so this is decided request by request. What is
//! decided at accept goes on judging the peer.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ClientConnection;
use super::forward::{FORWARDED_FOR, REAL_IP};
use crate::config::{ClientIpFrom, Listener, Protocol};
use crate::net::Peer;
use crate::wire::forwarded::{self, Chain};

/// Whether the peer is a balancer whose requests name their clients: its connections are nobody's own.
pub(super) fn names_clients(config: &Listener, peer: Peer) -> bool {
    config.protocol == Protocol::Websocket
        && config.client_ip_from == ClientIpFrom::Forwarded
        && is_trusted(config, peer.ip())
}

/// `None` is a peer without an address.
fn is_trusted(config: &Listener, ip: Option<IpAddr>) -> bool {
    config.trusted.iter().any(|one| one.covers(ip))
}

impl ClientConnection {
    /// The peer may tell whom it asks for: it is in `trusted`.
    pub(super) fn is_believed(&self, config: &Listener) -> bool {
        !self.is_unannounced() && is_trusted(config, self.peer.ip())
    }

    /// As the function of the same name, of this connection's peer.
    pub(super) fn names_clients(&self, config: &Listener) -> bool {
        !self.is_unannounced() && names_clients(config, self.peer)
    }

    /// A PROXY header that announces nobody leaves its sender as the peer, and whose fields those are it does not say.
    fn is_unannounced(&self) -> bool {
        self.rules.config.accept_proxy && self.announced.is_none()
    }

    /// The client that a trusted peer's request names.
    pub(super) fn named(&self, config: &Listener, headers: &HeaderMap) -> Option<Peer> {
        let (chain, name) = self.chain(config)?;
        let trusted = |ip| is_trusted(config, Some(ip));
        let client = forwarded::client(chain, lines(headers, &name), trusted)?;
        Some(Peer::tcp(SocketAddr::new(client, 0)))
    }

    /// The address that X-Real-IP has to tell where a chain has come. `None`: what the balancer in front says there stays.
    /// One that stands in the chain does, as that balancer may know more hops than `trusted` names; any other may be a
    /// client's own that it has passed on.
    pub(super) fn real_ip(
        &self,
        config: &Listener,
        client: Peer,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let (chain, name) = self.chain(config)?;
        headers.get(&name)?;
        let told = told_address(headers);
        let mut addresses = forwarded::addresses(chain, lines(headers, &name));
        let is_of_chain = told.is_some_and(|told| addresses.any(|one| one == told));
        client.ip().filter(|_| !is_of_chain)
    }

    /// The field in which this peer tells who the client is.
    fn chain(&self, config: &Listener) -> Option<(Chain, HeaderName)> {
        self.names_clients(config)
            .then(|| match config.forwarded.has_x() {
                true => (Chain::XForwardedFor, FORWARDED_FOR),
                false => (Chain::Forwarded, FORWARDED),
            })
    }
}

fn lines<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// The address of the one X-Real-IP.
fn told_address(headers: &HeaderMap) -> Option<IpAddr> {
    let mut told = headers.get_all(REAL_IP).iter();
    let (Some(one), None) = (told.next(), told.next()) else {
        return None;
    };
    let address: IpAddr = one.to_str().ok()?.trim().parse().ok()?;
    Some(address.to_canonical())
}
