//! The client of a request, behind an HTTP balancer that is trusted to name it.
//!
//! One connection of such a balancer carries the requests of many clients, so this is decided
//! request by request. What is decided at accept goes on judging the peer.

use std::net::{IpAddr, SocketAddr};

use super::forwarded::{FORWARDED, FORWARDED_FOR, REAL_IP};
use crate::config::Listener;
use crate::net::Peer;
use crate::proxy::client::ClientConnection;
use crate::proxy::client::trust::is_trusted;
use crate::wire::forwarded::{self, Chain};
use crate::wire::http::Fields;

impl ClientConnection {
    /// The client that a trusted peer's request names.
    pub(super) fn named(&self, config: &Listener, fields: Fields<'_>) -> Option<Peer> {
        let (chain, name) = self.chain(config)?;
        let trusted = |ip| is_trusted(config, Some(ip));
        let client = forwarded::client(chain, fields.values(name), trusted)?;
        Some(Peer::tcp(SocketAddr::new(client, 0)))
    }

    /// The address for X-Real-IP where a chain has come. `None`: the value that the balancer in
    /// front has set stays. An address that stands in the chain does, as that balancer may know
    /// more hops than `trusted` names; any other may be a client's own that it has passed on.
    pub(super) fn real_ip(
        &self,
        config: &Listener,
        client: Peer,
        fields: Fields<'_>,
    ) -> Option<IpAddr> {
        let (chain, name) = self.chain(config)?;
        if !fields.has(name) {
            return None;
        }
        let claimed = claimed_address(fields);
        let mut addresses = forwarded::addresses(chain, fields.values(name));
        let is_of_chain = claimed.is_some_and(|claimed| addresses.any(|one| one == claimed));
        client.ip().filter(|_| !is_of_chain)
    }

    /// The field in which this peer names the client.
    fn chain(&self, config: &Listener) -> Option<(Chain, &'static str)> {
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

/// The address of the only X-Real-IP.
fn claimed_address(fields: Fields<'_>) -> Option<IpAddr> {
    let claimed = str::from_utf8(fields.only(REAL_IP)?).ok()?;
    let address: IpAddr = claimed.parse().ok()?;
    Some(address.to_canonical())
}
