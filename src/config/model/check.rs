//! Active health checks.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{CheckTls, ProxyVersion};

/// `pool.check`: an active health check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub kind: CheckKind,
    /// Default 2 s.
    pub interval: Duration,
    /// Interval while a backend is down. Default: `interval`.
    pub down_interval: Duration,
    /// Whole check. Default 2 s.
    pub timeout: Duration,
    /// Successes that bring a backend up. Default 2.
    pub rise: u32,
    /// Failures that take it down. Default 3.
    pub fall: u32,
    /// Part of the interval by which each wait differs, 0..=50 percent. Default 10.
    pub jitter_percent: u8,
    /// Check this port in place of the backend's. Default none.
    pub port: Option<u16>,
    /// Check this address (IP, or IP:port) in place of the backend's. Default none.
    pub address: Option<CheckAddress>,
    /// Default: as the pool, plain where it has an address or port of its own.
    pub tls: CheckTls,
    /// A PROXY header without a client comes first. Default: the pool's, unless the check has an `address` or `port`.
    pub send_proxy: Option<ProxyVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckAddress {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    Tcp,
    Http {
        /// Default `GET`.
        method: String,
        /// Default `/`.
        path: String,
        /// Default: the backend's address.
        host: Option<String>,
        /// Default 200..=399.
        status: Vec<RangeInclusive<u16>>,
        headers: CheckHeaders,
    },
    Websocket {
        /// Default `/`.
        path: String,
        host: Option<String>,
        /// Send a ping after the handshake and wait for its pong. Default false.
        ping: bool,
        /// The subprotocol that the handshake offers. Default none.
        protocol: Option<String>,
        /// Default 101. Another status is a success without a handshake.
        status: Vec<RangeInclusive<u16>>,
        headers: CheckHeaders,
    },
    Expect {
        /// Sent after connecting; may be empty.
        send: Vec<u8>,
        /// `None`: any answer without `unwanted`, which then is some.
        expect: Option<Expect>,
        /// Bytes that must not occur in what the backend says.
        unwanted: Option<Vec<u8>>,
    },
    Redis {
        /// Default: any.
        role: Option<RedisRole>,
    },
}

/// Header names as they are written on the wire, with their values.
pub type CheckHeaders = Vec<(String, String)>;

/// What a Redis server says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisRole {
    Primary,
    Replica,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// These bytes occur in what the backend says.
    Bytes(Vec<u8>),
    /// This regular expression (of the `regex` crate, checked at decode) matches it.
    Regex(String),
}
