//! Limits on the frames of a client.

use super::moved::{export_rate, full_in, import_rate, left_until_full};
use super::policy::FramePolicy;
use crate::base::close_code;
use crate::base::rate::{Bucket, Rate};
use crate::observe::Cause;
use crate::relay::clock::Tick;
use crate::wire::frame_filter::FrameAction;
use crate::wire::frames::{Frame, Opcode, Violation};
use crate::wire::moved::MovedLimits;

/// Limits on the frames of one client, and the one that it has exceeded.
pub(in crate::relay) struct ClientFrameLimits {
    max_frame: u64,
    max_message: u64,
    max_pings: Option<Rate>,
    /// Bytes of the present message.
    message: u64,
    pings: Bucket,
    pub exceeded: Option<LimitExceeded>,
}

/// The limit that a client has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::relay) enum LimitExceeded {
    #[error("frame too big")]
    Frame,
    #[error("message too big")]
    Message,
    #[error("too many pings")]
    Pings,
    /// A broken protocol: no limit could be held behind it.
    #[error("protocol error")]
    Violation(Violation),
}

impl LimitExceeded {
    /// RFC 6455 section 7.4.1: 1009 is "a message that is too big", 1008 a violated policy, 1002 a
    /// protocol error.
    pub(crate) fn code(self) -> u16 {
        match self {
            LimitExceeded::Frame | LimitExceeded::Message => 1009,
            LimitExceeded::Pings => 1008,
            LimitExceeded::Violation(_) => close_code::PROTOCOL_ERROR,
        }
    }

    pub(crate) fn cause(self) -> Cause {
        match self {
            LimitExceeded::Frame | LimitExceeded::Message | LimitExceeded::Pings => Cause::Full,
            LimitExceeded::Violation(_) => Cause::Invalid,
        }
    }

    /// The reason for the log; the client hears less.
    pub(crate) fn log_reason(self) -> String {
        match self {
            LimitExceeded::Violation(violation) => violation.to_string(),
            limit => limit.to_string(),
        }
    }
}

impl ClientFrameLimits {
    /// `None`: the policy has no limits.
    pub(super) fn new(policy: &FramePolicy) -> Option<Box<ClientFrameLimits>> {
        let FramePolicy {
            max_frame,
            max_message,
            max_pings,
            ..
        } = *policy;
        let any = max_frame.is_some() || max_message.is_some() || max_pings.is_some();
        any.then(|| {
            Box::new(ClientFrameLimits {
                max_frame: max_frame.unwrap_or(u64::MAX),
                max_message: max_message.unwrap_or(u64::MAX),
                max_pings,
                message: 0,
                pings: Bucket::default(),
                exceeded: None,
            })
        })
    }

    /// The limits of a client that has exceeded none.
    pub(super) fn export(&self, now: Tick) -> MovedLimits {
        let bounded = |max: u64| (max != u64::MAX).then_some(max);
        MovedLimits {
            max_frame: bounded(self.max_frame),
            max_message: bounded(self.max_message),
            max_pings: self.max_pings.map(export_rate),
            message: self.message,
            pings_full_in_ns: left_until_full(&self.pings, now),
        }
    }

    /// `None`: a rate is out of bounds.
    pub(super) fn import(moved: &MovedLimits, now: Tick) -> Option<ClientFrameLimits> {
        Some(ClientFrameLimits {
            max_frame: moved.max_frame.unwrap_or(u64::MAX),
            max_message: moved.max_message.unwrap_or(u64::MAX),
            max_pings: match moved.max_pings {
                Some(rate) => Some(import_rate(rate)?),
                None => None,
            },
            message: moved.message,
            pings: full_in(moved.pings_full_in_ns, now),
            exceeded: None,
        })
    }

    pub(super) fn check(&mut self, frame: &Frame, now: Tick) -> FrameAction {
        self.exceeded = self.exceeded_by(frame, now);
        match self.exceeded {
            None => FrameAction::Pass,
            Some(_) => FrameAction::Refuse,
        }
    }

    #[inline]
    fn exceeded_by(&mut self, frame: &Frame, now: Tick) -> Option<LimitExceeded> {
        match frame.opcode {
            Opcode::Close => return None,
            Opcode::Ping | Opcode::Pong => {
                let rate = self.max_pings?;
                let has_room = self.pings.take(rate, now.since_origin());
                return (!has_room).then_some(LimitExceeded::Pings);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        self.message = self.message.saturating_add(frame.payload_bytes);
        if frame.payload_bytes > self.max_frame {
            return Some(LimitExceeded::Frame);
        }
        if self.message > self.max_message {
            return Some(LimitExceeded::Message);
        }
        if frame.is_final {
            self.message = 0;
        }
        None
    }
}
