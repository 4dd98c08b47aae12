//! Means of a WebSocket to outlive its backend.

use minicbor::{Decode, Encode};

use super::is_default;
use super::rate::MovedRate;
use super::record::MovedPeer;

/// Means to outlive its backend.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedResume {
    #[n(0)]
    pub settings: MovedResumeSettings,
    #[n(1)]
    pub migrator: MovedMigrator,
    /// Nanoseconds until its backends may cause as many changes as ever.
    #[n(2)]
    #[cbor(skip_if = "is_default")]
    pub changes_full_in_ns: u64,
    /// Milliseconds since the client's latest message to the present backend.
    #[n(3)]
    pub sent_ms: Option<u64>,
    /// Milliseconds since the backend's latest message.
    #[n(4)]
    pub answered_ms: Option<u64>,
    /// How the present backend took it over; absent: the first one.
    #[n(5)]
    pub takeover: Option<MovedTakeover>,
}

/// Settings of the pool when the session began.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedResumeSettings {
    /// Losses of a backend: 1 drain, 2 down, 4 close code, 8 burst, 16 every end.
    #[n(0)]
    pub on: u8,
    #[n(1)]
    pub settle_ms: u64,
    #[n(2)]
    pub max: MovedRate,
    #[n(3)]
    pub max_buffer: u32,
    #[n(4)]
    pub timeout_ms: u64,
    #[n(5)]
    pub header: String,
}

/// How the present backend took the session over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedTakeover {
    /// Milliseconds since the backend before was lost.
    #[n(0)]
    pub since_ms: u64,
    /// Milliseconds since the present one took its place.
    #[n(1)]
    pub from_ms: u64,
    /// Messages that went with the backend before; absent: not known.
    #[n(2)]
    pub lost: Option<u32>,
}

/// Facts by which another backend is found: the handshake of the client, kept for it.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedMigrator {
    /// The agreement, a line feed, the head of the request.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub handshake: Vec<u8>,
    /// Field that says what is taken over.
    #[n(1)]
    pub header: String,
    #[n(2)]
    pub upgrade_timeout_ms: u32,
    /// Absent: a unix client.
    #[n(3)]
    pub client: Option<MovedPeer>,
    /// A PROXY header of version 2, for pools that send one.
    #[n(4)]
    #[cbor(with = "super::optional_bytes", skip_if = "is_default")]
    pub proxy_header: Option<Vec<u8>>,
    /// Value of the pool's `hash_key`.
    #[n(5)]
    #[cbor(with = "super::optional_bytes", skip_if = "is_default")]
    pub key: Option<Vec<u8>>,
    /// Backends that it has lost.
    #[n(6)]
    #[cbor(skip_if = "is_default")]
    pub count: u32,
    /// The latest of them that went as soon as they had come.
    #[n(7)]
    #[cbor(skip_if = "is_default")]
    pub short: u8,
}

/// A session between two backends.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedGap {
    /// Milliseconds since the begin of its time.
    #[n(0)]
    pub since_ms: u64,
    /// Milliseconds since the backend's leg ended.
    #[n(1)]
    pub ended_ms: u64,
    /// Bytes of the client since then.
    #[n(2)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub held: Vec<u8>,
    /// Messages that went with the backend; absent: not known.
    #[n(3)]
    pub lost: Option<u32>,
    /// How the backend's leg ended, by its word in the access log.
    #[n(4)]
    pub cause: String,
    /// The backend went as soon as it came.
    #[n(5)]
    #[cbor(skip_if = "is_default")]
    pub was_short: bool,
}
