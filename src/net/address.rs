//! Addresses of both sides: the endpoint of a backend, and the peer that connected to us.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;

/// A resolved address that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The other end of an accepted connection, in 20 bytes: a live connection holds one for hours.
/// IPv4-mapped IPv6 addresses are already canonical; a scope is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16),
    /// Unix peers are anonymous.
    Unix,
}

const _: () = assert!(size_of::<Peer>() <= 20);

impl Peer {
    /// Takes an address as the kernel gave it and makes `::ffff:a.b.c.d` the `a.b.c.d` it is.
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip, address.port()),
            IpAddr::V6(ip) => Self::V6(ip, address.port()),
        }
    }

    /// `None` for a unix peer.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(ip, _) => Some(IpAddr::V4(*ip)),
            Self::V6(ip, _) => Some(IpAddr::V6(*ip)),
            Self::Unix => None,
        }
    }

    /// 0 where only the address is known.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::V4(_, port) | Self::V6(_, port) => Some(*port),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // From a header field, which has no port.
            Self::V4(ip, 0) => ip.fmt(f),
            Self::V6(ip, 0) => ip.fmt(f),
            Self::V4(ip, port) => SocketAddrV4::new(*ip, *port).fmt(f),
            Self::V6(ip, port) => SocketAddrV6::new(*ip, *port, 0, 0).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_peer_is_the_ipv4_peer() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        assert_eq!(
            Peer::tcp(mapped),
            Peer::tcp("192.0.2.7:80".parse().unwrap())
        );
    }
}
