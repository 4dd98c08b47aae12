//! The PROXY header that a backend gets from a pool with `send_proxy`.

use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyVersion;
use crate::net::Peer;
use crate::proxy::client::ClientConnection;
use crate::wire::proxy_protocol::{
    Addresses, Details, HeaderProgress, ProxyHeader, encode_v1, encode_v2, read,
};

/// Facts about a client for the PROXY headers of its backend connections.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct OutgoingProxyHeader {
    addresses: Option<Addresses>,
    details: Details,
}

impl OutgoingProxyHeader {
    /// A header for a client of which only the addresses are known; `local` is where it connected
    /// to.
    pub(crate) fn plain(client: Peer, local: Option<SocketAddr>) -> OutgoingProxyHeader {
        let source = match client {
            Peer::V4(ip, port) => Some(SocketAddr::new(IpAddr::V4(ip), port)),
            Peer::V6(ip, port) => Some(SocketAddr::new(IpAddr::V6(ip), port)),
            Peer::Unix => None,
        };
        let addresses = source.zip(local).map(|(source, local)| Addresses::Ip {
            source,
            destination: SocketAddr::new(local.ip().to_canonical(), local.port()),
        });
        OutgoingProxyHeader {
            addresses,
            details: Details::default(),
        }
    }

    /// A header for a client connection that has shown `own` details. What a balancer in front said
    /// fills the gaps.
    pub(crate) fn of(
        client: &ClientConnection,
        local: Option<SocketAddr>,
        own: Details,
    ) -> OutgoingProxyHeader {
        let proxied = client.proxied.as_deref();
        let local = proxied.and_then(|one| one.destination).or(local);
        let mut header = OutgoingProxyHeader::plain(client.peer, local);
        let theirs = proxied.map(|one| one.details.clone()).unwrap_or_default();
        header.details = Details {
            authority: own.authority.or(theirs.authority),
            alpn: own.alpn.or(theirs.alpn),
            tls: own.tls.or(theirs.tls),
            // Ours, set with each header.
            unique_id: None,
            others: theirs.others,
        };
        header
    }

    /// A header that another process has encoded in version 2. `None`: it is none.
    pub(in crate::proxy) fn decode(bytes: &[u8]) -> Option<OutgoingProxyHeader> {
        match read(bytes) {
            HeaderProgress::Header(ProxyHeader::Proxied(proxied), _) => {
                Some(OutgoingProxyHeader {
                    addresses: Some(proxied.addresses),
                    details: Details {
                        // Ours, set with each header.
                        unique_id: None,
                        ..proxied.details
                    },
                })
            }
            // A client without IP addresses: its details go with them.
            HeaderProgress::Header(ProxyHeader::Local, _) => Some(OutgoingProxyHeader {
                addresses: None,
                details: Details::default(),
            }),
            HeaderProgress::NeedMore | HeaderProgress::Invalid(_) => None,
        }
    }

    /// Encodes the header for a connection of this id.
    pub(crate) fn encode(&self, version: ProxyVersion, id: u64) -> Vec<u8> {
        match version {
            ProxyVersion::V1 => encode_v1(self.addresses),
            ProxyVersion::V2 => {
                let details = Details {
                    unique_id: Some(id.to_string().into_bytes()),
                    ..self.details.clone()
                };
                encode_v2(self.addresses, &details)
            }
        }
    }
}
