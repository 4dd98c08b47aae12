//! The Close that a WebSocket is sent before it is ended.

use std::sync::Arc;

use crate::base::close_code::GOING_AWAY;
use crate::relay::side::CLIENT;
use crate::wire::control::{self, ControlReader};

/// Code and reason of a Close that a WebSocket is sent before it is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloseFrame {
    pub code: u16,
    pub reason: Arc<str>,
}

impl CloseFrame {
    pub(crate) fn new(code: u16, reason: &str) -> CloseFrame {
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }

    /// "Going away", without a reason.
    pub(crate) fn going_away() -> CloseFrame {
        CloseFrame::new(GOING_AWAY, "")
    }

    /// The bytes for the leg of `side`.
    pub(crate) fn encode(&self, side: usize) -> Vec<u8> {
        control::close(self.code, &self.reason, reader(side))
    }
}

/// The reader of frames that go to this side. A masking key need not be a secret here: it keeps a
/// page's script from choosing the bytes on the wire (RFC 6455 section 10.3), and no script chooses
/// a frame of ours.
pub(in crate::relay) fn reader(side: usize) -> ControlReader {
    if side == CLIENT {
        ControlReader::Client
    } else {
        ControlReader::Backend(fastrand::u32(..).to_be_bytes())
    }
}
