//! The header of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt, 2.2 of
//! 2020-03-05): read and written.
//!
//! [`read`] is given all bytes so far and decides as soon as it can, and never differently with
//! more: any chunking gives the same result. Until it decides, all bytes belong to the header.

mod checksum;
mod describe;
mod tlvs;
mod v1;
mod v2;

use std::net::SocketAddr;

use thiserror::Error;

pub use describe::describe;
pub use tlvs::Tlvs;
pub use v1::encode as encode_v1;
pub use v2::{encode as encode_v2, encode_local as encode_local_v2};

/// The longest header that is read. Senders have a few hundred bytes; with the client's certificate
/// in it some have several thousand.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Result of reading a connection's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderProgress {
    /// The header goes on; every byte shown is part of it.
    NeedMore,
    /// The header, and how many bytes it took.
    Header(ProxyHeader, usize),
    Invalid(ProxyHeaderError),
}

/// Origin of the connection, by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The sender's own connection (LOCAL), or of an unknown origin (UNKNOWN, UNSPEC): the socket's
    /// addresses count.
    Local,
    Proxied(Box<Proxied>),
}

/// A connection that the sender took from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    pub addresses: Addresses,
    /// Details of a version 2 header.
    pub details: Details,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Both of one family.
    Ip {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// A client of a unix socket; the names are not kept.
    Unix,
}

/// Values of the TLVs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// `PP2_TYPE_AUTHORITY`: the name the client asked for, its SNI. At most 255 bytes.
    pub authority: Option<String>,
    /// `PP2_TYPE_ALPN`: the protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// `PP2_TYPE_UNIQUE_ID`, at most 128 bytes.
    pub unique_id: Option<Vec<u8>>,
    /// `PP2_TYPE_SSL`.
    pub tls: Option<SslDetails>,
    /// Types without a meaning here, such as those of cloud balancers. Not padding and checksum.
    pub others: Tlvs,
}

/// TLS between the client and the sender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SslDetails {
    /// The connection is over TLS; without it the rest says nothing.
    pub over_tls: bool,
    /// The client showed a certificate on this connection.
    pub certificate: bool,
    /// The client showed one in this TLS session, perhaps on an earlier connection.
    pub certificate_in_session: bool,
    /// 0: the certificate was verified; else it was not, or there was none.
    pub verify: u32,
    /// Such as `TLSv1.3`.
    pub version: Option<String>,
    /// The other sub-TLVs: common name, cipher, certificate.
    pub others: Tlvs,
}

/// Why a connection does not begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    #[error("it does not begin with a PROXY header")]
    Signature,
    #[error("version 1: no end of the line within 107 bytes")]
    LineTooLong,
    #[error("version 1: the line is malformed")]
    Line,
    #[error("version or command is unknown")]
    Command,
    #[error("address family or transport is unknown")]
    Family,
    #[error("a datagram cannot come over a stream")]
    Datagram,
    #[error("the header exceeds 16 KiB")]
    TooLong,
    #[error("the addresses are cut off")]
    Addresses,
    #[error("a TLV is malformed")]
    Tlv,
    #[error("the checksum is wrong")]
    Checksum,
}

/// Reads the header that `bytes` begin with.
pub fn read(bytes: &[u8]) -> HeaderProgress {
    let read = if bytes.first() == v2::SIGNATURE.first() {
        v2::read(bytes)
    } else {
        v1::read(bytes)
    };
    match read {
        Ok(Some((header, length))) => HeaderProgress::Header(header, length),
        Ok(None) => HeaderProgress::NeedMore,
        Err(invalid) => HeaderProgress::Invalid(invalid),
    }
}

/// Result of a read: `None` while the header is incomplete.
type Read = Result<Option<(ProxyHeader, usize)>, ProxyHeaderError>;

/// # Errors
/// `bytes` is not the beginning of `signature`, nor begins with it.
fn expect_signature(bytes: &[u8], signature: &[u8]) -> Result<(), ProxyHeaderError> {
    let same = bytes.iter().zip(signature).all(|(is, wanted)| is == wanted);
    same.then_some(()).ok_or(ProxyHeaderError::Signature)
}

/// Both addresses in one family: where one is IPv6 the other becomes IPv4-mapped.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    (mapped(source), mapped(destination))
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
