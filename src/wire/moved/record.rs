//! Record of a session: all that the access log and the operator know of it.

use std::net::IpAddr;

use minicbor::{Decode, Encode};

use super::is_default;

/// Record of a session.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedRecord {
    #[n(0)]
    pub id: u64,
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub bytes_from_client: u64,
    #[n(2)]
    #[cbor(skip_if = "is_default")]
    pub bytes_from_backend: u64,
    /// Microseconds since accept.
    #[n(3)]
    pub age_us: u64,
    /// Names of the request by their numbers in `observe::request_names`.
    #[n(4)]
    #[cbor(skip_if = "is_default")]
    pub names: Vec<Option<String>>,
    #[n(5)]
    pub listener: String,
    #[n(6)]
    pub pool: Option<String>,
    #[n(7)]
    pub backend: Option<String>,
    /// Microseconds of the connect.
    #[n(8)]
    pub connect_us: Option<u32>,
    /// Seconds from accept to the latest interval line.
    #[n(9)]
    #[cbor(skip_if = "is_default")]
    pub last_line_seconds: u32,
    /// Absent: a unix client.
    #[n(10)]
    pub client: Option<MovedPeer>,
    /// Status of the response; 0: none.
    #[n(11)]
    #[cbor(skip_if = "is_default")]
    pub status: u16,
    /// Version of TLS on the backend's leg: 2 or 3 for TLS 1.2 or 1.3.
    #[n(12)]
    pub backend_tls: Option<u8>,
    /// Connects tried.
    #[n(13)]
    #[cbor(skip_if = "is_default")]
    pub tries: u8,
    /// A byte of the client was read in set-up.
    #[n(14)]
    #[cbor(skip_if = "is_default")]
    pub heard: bool,
    /// Span of the set-up, as `traceparent`.
    #[n(15)]
    pub trace: Option<String>,
}

impl MovedRecord {
    /// The client's address; `None`: a unix client.
    pub fn client_ip(&self) -> Option<IpAddr> {
        Some(match self.client? {
            MovedPeer::V4 { ip, .. } => IpAddr::from(ip),
            MovedPeer::V6 { ip, .. } => IpAddr::from(ip),
        })
    }
}

/// Address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum MovedPeer {
    #[n(0)]
    V4 {
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        ip: [u8; 4],
        /// 0 where only the address is known.
        #[n(1)]
        port: u16,
    },
    #[n(1)]
    V6 {
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        ip: [u8; 16],
        #[n(1)]
        port: u16,
    },
}
