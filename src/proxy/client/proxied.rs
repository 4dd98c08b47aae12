//! What a balancer in front says of a client in its PROXY header.

use std::net::SocketAddr;

use crate::net::Peer;
use crate::wire::proxy_protocol::{Details, describe};

/// A client as the balancer in front announces it, beside its address.
#[derive(Debug)]
pub(in crate::proxy) struct ProxiedClient {
    /// The balancer in front.
    pub via: Peer,
    /// The address that the client connected to.
    pub destination: Option<SocketAddr>,
    pub details: Details,
    /// The `details` in one line, for the access log.
    tlvs: Option<Box<str>>,
}

impl ProxiedClient {
    pub(crate) fn new(
        via: Peer,
        destination: Option<SocketAddr>,
        details: Details,
    ) -> ProxiedClient {
        ProxiedClient {
            via,
            destination,
            tlvs: describe(&details).map(String::into_boxed_str),
            details,
        }
    }

    /// The TLVs of the header, in one line.
    pub(crate) fn tlvs(&self) -> Option<&str> {
        self.tlvs.as_deref()
    }

    /// Whether the client came to the balancer in front over TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.details.tls.as_ref().is_some_and(|tls| tls.over_tls)
    }
}
