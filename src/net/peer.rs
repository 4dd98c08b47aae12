//! Who is on the other side of an accepted connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A client, as the kernel or the PROXY header names it; v4-mapped addresses are IPv4 here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A unix socket's client has no address.
    Unix,
}

impl Peer {
    /// `None` for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}
