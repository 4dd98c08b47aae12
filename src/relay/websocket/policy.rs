//! Settings by which the frames of a WebSocket are followed.

use crate::base::rate::Rate;
use crate::config::{self, Ping};

/// Limits, pings and the idle rule of one WebSocket. The default only follows its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FramePolicy {
    /// Longest frame of a client, payload bytes; longer ends the session with Close 1009.
    pub max_frame: Option<u64>,
    /// Longest message of a client, payload bytes of all its frames; longer ends the session with
    /// Close 1009.
    pub max_message: Option<u64>,
    /// Pings and pongs of a client; more end the session with Close 1008.
    pub max_pings: Option<Rate>,
    pub ping: Option<Ping>,
    /// Only frames of messages keep a session from its idle timeout, not pings and pongs.
    pub messages_only: bool,
}

impl FramePolicy {
    /// The policy that a listener and a pool give their WebSockets.
    pub(crate) fn of(listener: &config::Listener, pool: &config::Pool) -> FramePolicy {
        let config::FrameLimits {
            max_frame,
            max_message,
            max_pings,
        } = listener.frames;
        FramePolicy {
            max_frame,
            max_message,
            max_pings,
            ping: pool.ping,
            messages_only: pool.activity == config::Activity::Messages,
        }
    }
}
