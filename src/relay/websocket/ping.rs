//! Pings of our own to the legs of a WebSocket.

use std::time::Duration;

use super::close_frame::CloseFrame;
use super::pings::{LegProgress, PingOutcome};
use crate::base::close_code::GOING_AWAY;
use crate::observe::Cause;
use crate::relay::clock::Tick;
use crate::relay::phase::{SessionPhase, TurnOutcome};
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT, SIDES, ended_by};

/// "An unexpected condition": the backend does not answer.
const UNEXPECTED: u16 = 1011;
/// Pings are sent to about this precision: a sweep looks at every session.
const PRECISION: Duration = Duration::from_millis(500);

impl Session {
    /// Time until a leg is to be pinged, or is dead.
    pub(crate) fn ping_due_in(&self, now: Tick) -> Option<Duration> {
        if self.phase.is_closing() {
            return None;
        }
        let due = self
            .frames
            .as_deref()?
            .ping_due_in(self.pinged_sides(), now)?;
        Some(due.max(PRECISION))
    }

    /// Pings a leg that is silent; ends the session when it does not answer.
    pub(crate) fn keep_alive(&mut self, now: Tick) -> Option<TurnOutcome> {
        if !self.may_ping() {
            return None;
        }
        let sides = self.pinged_sides();
        let due = self.frames.as_deref()?.ping_due_in(sides, now)?;
        if !due.is_zero() {
            return None;
        }
        let progress = SIDES.map(|side| self.progress(side));
        let frames = self.frames.as_deref_mut()?;
        match frames.keep_alive(sides, progress, now) {
            PingOutcome::AllAlive => None,
            PingOutcome::Pinged => Some(TurnOutcome::Again),
            PingOutcome::Dead(side) => Some(self.end_dead_leg(side, now)),
        }
    }

    fn end_dead_leg(&mut self, side: usize, now: Tick) -> TurnOutcome {
        let code = if side == CLIENT {
            GOING_AWAY
        } else {
            UNEXPECTED
        };
        let frame = CloseFrame::new(code, "");
        let mut closes = [None, None];
        closes[1 - side] = Some(&frame);
        self.legs[side].reset();
        if side == BACKEND && self.outlives_dead_backend() {
            return self.lose_backend(Cause::Timeout, now);
        }
        self.send_close(closes, ended_by(side, Cause::Timeout), now)
    }

    /// Pings the backend once, whichever sides are pinged otherwise: its check says that it is
    /// down.
    pub(crate) fn ping_backend(&mut self, now: Tick) -> TurnOutcome {
        if !self.may_ping() || matches!(self.phase, SessionPhase::Gap(_)) {
            return TurnOutcome::Wait;
        }
        let delivered = self.progress(BACKEND).delivered;
        let frames = self.frames.as_deref_mut();
        if frames.is_some_and(|frames| frames.ping(BACKEND, delivered, now)) {
            TurnOutcome::Again
        } else {
            TurnOutcome::Wait
        }
    }

    /// A backend that was sent Close is to be sent nothing more, and its answer is waited for.
    fn may_ping(&self) -> bool {
        matches!(self.phase, SessionPhase::Open | SessionPhase::Gap(_)) && self.can_send_close()
    }

    fn pinged_sides(&self) -> &'static [usize] {
        if matches!(self.phase, SessionPhase::Gap(_)) {
            &[CLIENT]
        } else {
            &SIDES
        }
    }

    fn progress(&self, side: usize) -> LegProgress {
        let unsent = self.legs[side].unsent_bytes() + self.directions[1 - side].held_bytes();
        let sent = if side == CLIENT {
            self.record.bytes_from_backend
        } else {
            self.record.bytes_from_client
        };
        LegProgress {
            unsent,
            delivered: sent.saturating_sub(unsent as u64),
            is_unread: self.directions[side].is_blocked() || self.legs[side].is_readable(),
        }
    }
}
