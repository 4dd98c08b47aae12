//! A session: its legs, its directions, its limits.

use minicbor::{Decode, Encode};

use super::frames::MovedFrames;
use super::is_default;
use super::record::MovedRecord;
use super::resume::MovedGap;
use super::tls::MovedTls;

/// A live session, but for its sockets.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedSession {
    #[n(0)]
    pub record: MovedRecord,
    #[n(1)]
    pub client: MovedLeg,
    /// Absent between two backends.
    #[n(2)]
    pub backend: Option<MovedLeg>,
    #[n(3)]
    pub from_client: MovedDirection,
    #[n(4)]
    pub from_backend: MovedDirection,
    #[n(5)]
    pub timeouts: MovedTimeouts,
    /// Milliseconds since the last activity.
    #[n(6)]
    #[cbor(skip_if = "is_default")]
    pub idle_ms: u64,
    /// Bytes that the kernel still held at the last deadline; 0: there was none.
    #[n(7)]
    #[cbor(skip_if = "is_default")]
    pub unsent_before: u32,
    /// The side whose FIN came first.
    #[n(8)]
    pub first_fin: Option<MovedSide>,
    /// Present for a WebSocket whose frames are followed.
    #[n(9)]
    pub frames: Option<Box<MovedFrames>>,
    /// Present between two backends.
    #[n(10)]
    pub gap: Option<Box<MovedGap>>,
}

/// A leg.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedLeg {
    /// Bits of `relay::leg::Flags`, in which the kernel's events are kept.
    #[n(0)]
    pub flags: u8,
    /// The first fault, by its word in the access log.
    #[n(1)]
    pub fault: Option<String>,
    /// Absent: the leg is plain.
    #[n(2)]
    pub tls: Option<Box<MovedTls>>,
}

/// A direction: bytes of one leg for the other.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedDirection {
    /// Bytes that were read and not taken.
    #[n(0)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub stalled: Vec<u8>,
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub source: MovedSource,
}

/// State of the leg that a direction reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedSource {
    #[default]
    #[n(0)]
    Open,
    #[n(1)]
    Ended,
    #[n(2)]
    Finished,
    #[n(3)]
    Broken,
}

/// Side of a session that ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedSide {
    #[n(0)]
    Client,
    #[n(1)]
    Backend,
}

/// Timeouts, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedTimeouts {
    #[n(0)]
    pub idle_ms: u64,
    #[n(1)]
    pub fin_ms: u64,
    /// Since accept, with its jitter; absent: not bounded.
    #[n(2)]
    pub lifetime_ms: Option<u64>,
}
