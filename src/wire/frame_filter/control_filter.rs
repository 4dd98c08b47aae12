//! Control frames that are not for the other side: a pong to our own ping, a Close by which the
//! source only goes away, and all of them while nobody is there to read them.
//!
//! Such a frame is held until it is whole, because only its payload tells.

use crate::base::close_code::{self, GOING_AWAY, SERVICE_RESTART, TRY_AGAIN_LATER};
use crate::wire::control::PING_BYTES;

/// Close frames of a source that are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseFilter {
    None,
    /// Those by which it goes away: RFC 6455 section 7.4.1, and 1012 and 1013 of its registry.
    Leaving,
    Any,
}

impl CloseFilter {
    pub(super) fn takes_out(self, payload: &[u8]) -> bool {
        match self {
            CloseFilter::None => false,
            CloseFilter::Leaving => close_code(payload).is_some_and(close_code::is_leaving),
            CloseFilter::Any => true,
        }
    }
}

/// Reason that a source gave in a Close that was taken out. One byte: a session has it for hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// Code 1001.
    GoingAway,
    /// Code 1012.
    Restart,
    /// Code 1013.
    Later,
    /// Another code, or none.
    Other,
}

impl CloseCause {
    pub(super) fn of(payload: &[u8]) -> CloseCause {
        match close_code(payload) {
            Some(GOING_AWAY) => CloseCause::GoingAway,
            Some(SERVICE_RESTART) => CloseCause::Restart,
            Some(TRY_AGAIN_LATER) => CloseCause::Later,
            _ => CloseCause::Other,
        }
    }

    /// Whether its Close answers one with this code: an answer "typically echos the status code"
    /// (RFC 6455 section 5.5.1). A source that only goes away has not seen ours. Where it does so
    /// by the same code at the same moment, nothing tells that from an answer.
    pub fn answers(self, code: u16) -> bool {
        self == CloseCause::Other || self == CloseCause::of(&code.to_be_bytes())
    }
}

pub(super) fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

/// Control frame that is being held, and facts about those that were taken out.
#[derive(Debug, Default)]
pub(super) struct ControlFilter {
    /// Bytes of a frame that may have to be taken out.
    pub held: Vec<u8>,
    /// Payload of our latest ping, until its pong comes.
    pub awaited_pong: Option<[u8; PING_BYTES]>,
    /// Payload of the source's latest ping that was taken out and not answered.
    pub ping: Option<Vec<u8>>,
    /// Code of the source's Close, until somebody asks for it.
    pub close_code: Option<u16>,
}

impl ControlFilter {
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether this is the pong to our ping. The same payload is awaited once.
    pub(super) fn take_pong(&mut self, payload: &[u8]) -> bool {
        let is_ours = self.awaited_pong.is_some_and(|pong| pong == payload);
        if is_ours {
            self.awaited_pong = None;
        }
        is_ours
    }

    /// Nothing is held or to be asked for; an awaited pong counts only while frames pass.
    pub(super) fn is_idle(&self, is_discarding: bool) -> bool {
        self.held.is_empty()
            && self.ping.is_none()
            && self.close_code.is_none()
            && (self.awaited_pong.is_none() || is_discarding)
    }
}
