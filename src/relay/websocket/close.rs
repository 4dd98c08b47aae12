//! End of a session by our own decision: each side of a WebSocket is sent a Close at a frame
//! boundary, and has a while for its answer. All other sessions are closed at once.

use super::close_frame::CloseFrame;
use crate::observe::{Cause, Side, Termination};
use crate::relay::clock::Tick;
use crate::relay::phase::{ClosingHandshake, SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT, SIDES, ended_by_us};

impl Session {
    /// Ends the session by an operator's decision; one that ends already takes its course.
    pub(crate) fn begin_close(&mut self, frame: &CloseFrame, now: Tick) -> TurnOutcome {
        if matches!(self.phase, SessionPhase::InDoubt(_)) {
            // Its backend is gone whatever the verdict: the client hears it from us.
            let outcome = self.lose_backend(self.backend_end_cause(), now);
            if !matches!(outcome, TurnOutcome::BackendLost) {
                return outcome;
            }
        }
        self.send_close([Some(frame), Some(frame)], ended_by_us(Cause::Stop), now)
    }

    /// Ends the session because its time is over.
    pub(crate) fn time_out(&mut self, now: Tick) -> TurnOutcome {
        let frame = CloseFrame::going_away();
        let end = ended_by_us(Cause::Timeout);
        self.send_close([Some(&frame), Some(&frame)], end, now)
    }

    /// Ends the session, and sends each side the Close that is given for it.
    pub(crate) fn send_close(
        &mut self,
        mut closes: [Option<&CloseFrame>; 2],
        end: Termination,
        now: Tick,
    ) -> TurnOutcome {
        if self.phase.is_closing() || matches!(self.phase, SessionPhase::Resetting { .. }) {
            // It is over, and waits for its last bytes or answers for a bounded time.
            return TurnOutcome::Wait;
        }
        let can_send = self.can_send_close();
        if !self.stop_resuming(now) {
            closes[BACKEND] = None;
        }
        let Some(frames) = self.frames.as_deref_mut().filter(|_| can_send) else {
            let is_connecting = self.phase.is_connecting();
            let closed = self.close(end.how);
            return TurnOutcome::Ended(if is_connecting {
                closed
            } else {
                self.fin_end().unwrap_or(end)
            });
        };
        for side in SIDES {
            if let Some(close) = closes[side] {
                frames.filters[1 - side].insert_close(close.encode(side));
            }
        }
        self.phase = SessionPhase::Closing(Box::new(ClosingHandshake {
            began: now,
            sent: None,
            notifies: closes.map(|close| close.is_some()),
            end: self.fin_end().unwrap_or(end),
        }));
        TurnOutcome::Again
    }

    /// Established, and neither side has ended or broken. The FIN of a client that is refused is
    /// held, and it still listens.
    pub(crate) fn can_send_close(&self) -> bool {
        let has_ended = SIDES.map(|side| self.directions[side].has_ended());
        let frames = self.frames.as_deref();
        let is_refused = frames.is_some_and(|frames| frames.limit_exceeded().is_some());
        !matches!(
            self.phase,
            SessionPhase::Connecting(_) | SessionPhase::Resetting { .. }
        ) && !has_ended[BACKEND]
            && (!has_ended[CLIENT] || is_refused)
            && !self.legs.iter().any(|leg| leg.is_broken())
    }

    /// Waits until each side was sent its Close, and then for the answers.
    pub(crate) fn turn_closing(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        let SessionPhase::Closing(handshake) = &self.phase else {
            return transfer.or_wait();
        };
        let (notifies, end) = (handshake.notifies, handshake.end);
        if handshake.sent.is_none() {
            if SIDES
                .iter()
                .any(|&side| notifies[side] && self.awaits_close(side))
            {
                return transfer.or_wait();
            }
            if let SessionPhase::Closing(handshake) = &mut self.phase {
                handshake.sent = Some(scratch.now);
            }
        }
        self.finish_lost_client();
        let is_over = SIDES
            .iter()
            .all(|&side| !notifies[side] || self.has_answered(side));
        let is_sent = !SIDES.iter().any(|&side| self.directions[side].is_blocked());
        if is_over && is_sent {
            return self.end_closing(end);
        }
        transfer.or_wait()
    }

    /// Our Close has still to go to this side.
    fn awaits_close(&self, side: usize) -> bool {
        let Some(frames) = self.frames.as_deref() else {
            return false;
        };
        let filter = &frames.filters[1 - side];
        let is_lost = filter.violation().is_some() && !filter.has_insert();
        !(filter.is_closed()
            || filter.is_truncated()
            || is_lost
            || self.legs[side].is_broken()
            || self.directions[1 - side].is_over())
    }

    /// Our Close has gone to this side.
    pub(crate) fn has_close_gone_to(&self, side: usize) -> bool {
        let frames = self.frames.as_deref();
        frames.is_some_and(|frames| frames.filters[1 - side].is_closed())
    }

    /// This side has said Close, or nothing more is to be had from it. A client that is not
    /// understood any more answers with its FIN: see [`Session::finish_lost_client`].
    pub(crate) fn has_answered(&self, side: usize) -> bool {
        let has_closed = self.frames.as_deref().is_none_or(|frames| {
            let filter = &frames.filters[side];
            let is_lost = side == BACKEND && filter.violation().is_some();
            filter.has_closed() || filter.has_left() || is_lost
        });
        has_closed || self.legs[side].is_broken() || self.directions[side].has_ended()
    }

    /// A client that broke the protocol cannot be heard to answer: behind its Close it gets a FIN,
    /// and is read until its own comes. A close with unread input would be a RST, which may throw
    /// away the Close.
    fn finish_lost_client(&mut self) {
        let frames = self.frames.as_deref();
        let is_lost = frames.is_some_and(|frames| frames.filters[CLIENT].violation().is_some());
        if is_lost && !self.owes(CLIENT) {
            self.legs[CLIENT].finish(false);
        }
    }

    /// Ends the handshake. The coming close is a RST for a side that could not be sent its Close:
    /// its stream is cut short. For the others it is an end in order, which TLS says for itself.
    pub(crate) fn end_closing(&mut self, end: Termination) -> TurnOutcome {
        let notifies = match &self.phase {
            SessionPhase::Closing(handshake) => handshake.notifies,
            _ => [false; 2],
        };
        let mut is_left_out = false;
        for side in SIDES {
            // Bytes that it has not taken end in the middle of a frame, perhaps that of the Close.
            if self.has_close_gone_to(side) && !self.owes(side) {
                self.legs[side].finish(true);
            } else {
                is_left_out |= notifies[side] && !self.legs[side].is_broken();
                self.legs[side].reset();
            }
        }
        if is_left_out {
            tracing::debug!(
                id = self.record.id,
                "ended without a close frame: no frame ended in time"
            );
            self.record.without_close();
        }
        TurnOutcome::Ended(end)
    }

    /// This side has not taken all that goes to it.
    pub(crate) fn owes(&self, side: usize) -> bool {
        self.directions[1 - side].is_blocked() || self.legs[side].held_bytes() > 0
    }

    /// Puts the close codes of both sides into the record.
    pub(crate) fn note_close_codes(&mut self) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        for (side, filter) in [Side::Client, Side::Backend]
            .into_iter()
            .zip(&mut frames.filters)
        {
            if let Some(code) = filter.take_close_code() {
                self.record.said_close(side, code);
            }
        }
    }

    /// Follows frames no longer that are not understood any more; the bytes go on.
    pub(crate) fn note_violation(&mut self) {
        let Some(frames) = self.frames.as_deref() else {
            return;
        };
        if let Some(violation) = frames.violation()
            && !self.phase.is_closing()
            && !frames.is_holding()
        {
            tracing::debug!(id = self.record.id, %violation, "websocket frames are not followed any more");
            self.record.lost_frames();
            self.frames = None;
        }
    }
}
