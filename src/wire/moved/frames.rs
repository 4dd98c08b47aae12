//! Frames of a WebSocket: where in a frame each direction stands, and what is done to it.

use minicbor::{Decode, Encode};

use super::is_default;
use super::rate::MovedRate;
use super::resume::MovedResume;

/// Frames of both directions.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedFrames {
    #[n(0)]
    pub client: MovedFilter,
    #[n(1)]
    pub backend: MovedFilter,
    #[n(2)]
    pub limits: Option<Box<MovedLimits>>,
    #[n(3)]
    pub pings: Option<Box<MovedPings>>,
    /// Present where the session may outlive its backend.
    #[n(4)]
    pub resume: Option<Box<MovedResume>>,
    /// Only messages keep the session from its idle timeout.
    #[n(5)]
    #[cbor(skip_if = "is_default")]
    pub messages_only: bool,
}

/// The filter of one direction.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedFilter {
    #[n(0)]
    #[cbor(skip_if = "is_default")]
    pub position: MovedPosition,
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub is_message_open: bool,
    #[n(2)]
    #[cbor(skip_if = "is_default")]
    pub output: MovedOutput,
    /// Close of the source: 0 none, 1 came; taken out: 2 code 1001, 3 code 1012, 4 code 1013, 5
    /// another.
    #[n(3)]
    #[cbor(skip_if = "is_default")]
    pub source_close: u8,
    #[n(4)]
    #[cbor(skip_if = "is_default")]
    pub close_filter: MovedClose,
    #[n(5)]
    #[cbor(skip_if = "is_default")]
    pub is_guarded: bool,
    /// Facts that are asked for once: 1 a message came, 2 a frame of ours went in, 4 a message
    /// passed.
    #[n(6)]
    #[cbor(skip_if = "is_default")]
    pub marks: u8,
    #[n(7)]
    pub edits: Option<Box<MovedEdits>>,
}

/// Place of a direction in its present frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum MovedPosition {
    #[default]
    #[n(0)]
    Between,
    /// So many bytes of a header have come; the first ten of them are kept.
    #[n(1)]
    Header {
        #[n(0)]
        count: u8,
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        kept: [u8; 10],
    },
    #[n(2)]
    Payload {
        #[n(0)]
        left: u64,
    },
    /// The frames are not understood any more; why, by its number in `wire::frames`.
    #[n(3)]
    Lost {
        #[n(0)]
        violation: u8,
    },
}

/// State of the stream to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedOutput {
    #[default]
    #[n(0)]
    Open,
    #[n(1)]
    Discarding,
    #[n(2)]
    Truncated,
    #[n(3)]
    Closed,
}

/// Close frames of the source that are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedClose {
    #[default]
    #[n(0)]
    None,
    #[n(1)]
    Leaving,
    #[n(2)]
    Any,
}

/// Frames that go in, frames that are taken out, and a change of the reader.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a number of the format"
)]
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedEdits {
    /// Frames that wait for the next boundary.
    #[n(0)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub insert: Vec<u8>,
    /// They are a Close.
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub is_close: bool,
    /// Bytes of a frame that may have to be taken out.
    #[n(2)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub held: Vec<u8>,
    /// Payload of our latest ping.
    #[n(3)]
    pub awaited_pong: Option<u64>,
    /// Payload of a ping that was taken out and not answered; empty ones are one, too.
    #[n(4)]
    #[cbor(with = "super::optional_bytes", skip_if = "is_default")]
    pub ping: Option<Vec<u8>>,
    #[n(5)]
    pub close_code: Option<u16>,
    /// The reader is gone, and the next one is not there yet.
    #[n(6)]
    #[cbor(skip_if = "is_default")]
    pub is_reader_absent: bool,
    /// The present frame is thrown away to its end.
    #[n(7)]
    #[cbor(skip_if = "is_default")]
    pub drops_frame: bool,
    /// So is the rest of the present message.
    #[n(8)]
    #[cbor(skip_if = "is_default")]
    pub drops_message: bool,
}

/// Limits on the frames of a client.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedLimits {
    #[n(0)]
    pub max_frame: Option<u64>,
    #[n(1)]
    pub max_message: Option<u64>,
    #[n(2)]
    pub max_pings: Option<MovedRate>,
    /// Bytes of the present message.
    #[n(3)]
    #[cbor(skip_if = "is_default")]
    pub message: u64,
    /// Nanoseconds until as many pings as ever may come.
    #[n(4)]
    #[cbor(skip_if = "is_default")]
    pub pings_full_in_ns: u64,
}

/// Pings of ours.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedPings {
    #[n(0)]
    pub interval_ms: u64,
    #[n(1)]
    pub timeout_ms: u64,
    #[n(2)]
    #[cbor(skip_if = "is_default")]
    pub count: u32,
    #[n(3)]
    pub client: MovedPing,
    #[n(4)]
    pub backend: MovedPing,
}

/// Pings to one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedPing {
    #[n(0)]
    #[cbor(skip_if = "is_default")]
    pub is_watched: bool,
    /// Milliseconds since a frame came.
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub heard_ms: u64,
    /// Milliseconds since our ping; absent: none waits for an answer.
    #[n(2)]
    pub asked_ms: Option<u64>,
    /// Bytes that the leg had taken at the last look.
    #[n(3)]
    #[cbor(skip_if = "is_default")]
    pub delivered: u64,
}
