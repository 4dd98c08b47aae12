//! `pool.resume`: WebSocket sessions that outlive their backend.

use std::sync::Arc;
use std::time::Duration;

use crate::base::rate::Rate;

/// A WebSocket goes on with another backend when its own goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What counts as the loss of a backend. Default: everything but `eof`.
    pub on: ResumeOn,
    /// How long a session is held whose backend ended it without a Close, until it is known whether
    /// that was a loss. 10 ms to 10 s. Default 500 ms.
    pub settle: Duration,
    /// Backends that one session loses, but for moves of ours; one more ends it. Default 3/m.
    pub max: Rate,
    /// Bytes of a client that are held between two backends, 1 KiB to 16 MiB; more are left in the
    /// kernel. Default 64 KiB.
    pub max_buffer: u32,
    /// Longest time without a backend. Default 10 s.
    pub timeout: Duration,
    /// Tells the next backend what it takes over. Lower case. Default `evenkeel-resume`.
    pub header: Arc<str>,
}

/// What counts as the loss of a backend. All other ends are its word: they go on to the client as
/// without `resume`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResumeOn {
    /// A drain, a move, maintenance, or its removal.
    pub drain: bool,
    /// Its check is down, a connect to it is refused, or it does not answer a ping.
    pub down: bool,
    /// A Close by which it goes away: 1001, 1012, 1013.
    pub close_code: bool,
    /// Many of its sessions end at once without a Close.
    pub burst: bool,
    /// Every end without a Close.
    pub eof: bool,
}
