//! `pool.resume`: WebSocket sessions that outlive their backend.

use std::sync::Arc;
use std::time::Duration;

/// A WebSocket goes on with another backend when its own goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Bytes of a client that are held between two backends, 1 KiB to 16 MiB; more end the session. Default 64 KiB.
    pub max_buffer: u32,
    /// Longest time without a backend. Default 10 s.
    pub timeout: Duration,
    /// Tells the next backend what it takes over. Lower case. Default `evenkeel-resume`.
    pub header: Arc<str>,
}
