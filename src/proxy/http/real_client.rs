//! The client of a request, behind an HTTP balancer that is trusted to name it.
//!
//! One connection of such a balancer carries the requests of many clients, so this is decided
//! request by request. What is decided at accept goes on judging the peer.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{FORWARDED_FOR, REAL_IP};
use crate::config::Listener;
use crate::net::Peer;
use crate::proxy::client::ClientConnection;
use crate::proxy::client::trust::is_trusted;
use crate::wire::forwarded::{self, Chain};

impl ClientConnection {
    /// The client that a trusted peer's request names.
    pub(super) fn named(&self, config: &Listener, headers: &HeaderMap) -> Option<Peer> {
        let (chain, name) = self.chain(config)?;
        let trusted = |ip| is_trusted(config, Some(ip));
        let client = forwarded::client(chain, lines(headers, &name), trusted)?;
        Some(Peer::tcp(SocketAddr::new(client, 0)))
    }

    /// The address for X-Real-IP where a chain has come. `None`: the value that the balancer in
    /// front has set stays. An address that stands in the chain does, as that balancer may know
    /// more hops than `trusted` names; any other may be a client's own that it has passed on.
    pub(super) fn real_ip(
        &self,
        config: &Listener,
        client: Peer,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let (chain, name) = self.chain(config)?;
        headers.get(&name)?;
        let claimed = claimed_address(headers);
        let mut addresses = forwarded::addresses(chain, lines(headers, &name));
        let is_of_chain = claimed.is_some_and(|claimed| addresses.any(|one| one == claimed));
        client.ip().filter(|_| !is_of_chain)
    }

    /// The field in which this peer names the client.
    fn chain(&self, config: &Listener) -> Option<(Chain, HeaderName)> {
        if !self.names_clients(config) {
            return None;
        }
        Some(if config.forwarded.has_x() {
            (Chain::XForwardedFor, FORWARDED_FOR)
        } else {
            (Chain::Forwarded, FORWARDED)
        })
    }
}

fn lines<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// The address of the only X-Real-IP.
fn claimed_address(headers: &HeaderMap) -> Option<IpAddr> {
    let mut claimed = headers.get_all(REAL_IP).iter();
    let (Some(one), None) = (claimed.next(), claimed.next()) else {
        return None;
    };
    let address: IpAddr = one.to_str().ok()?.trim().parse().ok()?;
    Some(address.to_canonical())
}
