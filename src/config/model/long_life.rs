//! The settings of connections that last: how they are ended, kept alive and bounded.

use std::time::Duration;

use crate::base::rate::Rate;

/// `pool.drain`: how the connections of a backend end that is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// So many are ended in a time. `None`: as `deadline` wants it.
    pub rate: Option<Rate>,
    /// The last one is ended then, counted from `after`. `None`: as `rate` has it. One of both is there.
    pub deadline: Option<Duration>,
    /// They may end by themselves for so long. Default 0.
    pub after: Duration,
    pub close: Close,
}

/// What a WebSocket is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Default 1012, "service restart".
    pub code: u16,
    /// At most 123 bytes. Default none.
    pub reason: String,
}

/// `pool.ping`: WebSocket pings of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// A side that was silent for so long is pinged. Default 30 s.
    pub interval: Duration,
    /// And dead when it stays silent for so long. Default 10 s.
    pub timeout: Duration,
    /// At least one of both. Default the client alone.
    pub client: bool,
    pub backend: bool,
}

/// What keeps a session from its `idle_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Any byte.
    Any,
    /// The messages of a WebSocket, not its pings and pongs.
    Messages,
}

/// What a client of a `websocket` listener may send. Default: no bound, as nothing of it is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameLimits {
    /// Payload bytes of one frame.
    pub max_frame: Option<u64>,
    /// Payload bytes of one message, over all of its frames.
    pub max_message: Option<u64>,
    /// Pings and pongs.
    pub max_pings: Option<Rate>,
}
