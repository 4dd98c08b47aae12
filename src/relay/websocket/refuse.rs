//! End of a WebSocket whose client did wrong: it exceeded a limit, or broke the protocol where
//! limits have to hold.
//!
//! The backend is sent a Close at once, and its answers to earlier messages go to the client, which
//! hears the reason behind them. Then the backend is let go: the fault is not its own.

use std::time::Duration;

use super::close_frame::CloseFrame;
use crate::observe::{Phase, Side, Termination};
use crate::relay::clock::{Tick, Ticks};
use crate::relay::leg::Leg;
use crate::relay::phase::{
    BOUNDARY_WAIT, ClientRefusal, ClosingHandshake, SessionPhase, TurnOutcome,
};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT};
use crate::wire::frame_filter::CloseFilter;

/// The client hears why once its backend was silent for so long: as long as one is given to answer
/// elsewhere.
const ANSWERS_WAIT: Duration = Duration::from_millis(500);

impl Session {
    /// Begins the end of a session whose client has exceeded a limit.
    pub(crate) fn refuse_client(&mut self, now: Tick) -> Option<TurnOutcome> {
        let exceeded = self.frames.as_deref()?.limit_exceeded()?;
        tracing::debug!(
            id = self.record.id,
            cause = exceeded.log_reason(),
            "websocket client is refused"
        );
        let end = Termination::new(Side::Client, Phase::Relay, exceeded.cause());
        let outcome = self.send_close([None, Some(&CloseFrame::going_away())], end, now);
        if let SessionPhase::Closing(handshake) = &self.phase
            && let Some(frames) = self.frames.as_deref_mut()
        {
            // The client hears our Close, not the backend's answer to one.
            if handshake.notifies[BACKEND] {
                frames.filters[BACKEND].set_close_filter(CloseFilter::Any);
            }
            self.phase = SessionPhase::Refusing(Box::new(ClientRefusal {
                began: now,
                frame: CloseFrame::new(exceeded.code(), &exceeded.to_string()),
                notifies_backend: handshake.notifies[BACKEND],
                end: handshake.end,
            }));
        }
        Some(outcome)
    }

    /// Time left for the backend's answers: silence ends it, and so does its bound.
    pub(crate) fn answers_left(&self, refusal: &ClientRefusal, now: Tick) -> Duration {
        let began = now.since(refusal.began);
        let silent = now.since(self.last_activity).min(began);
        let silence_left = Ticks::from(ANSWERS_WAIT).left(silent);
        silence_left.min(Ticks::from(BOUNDARY_WAIT).left(began))
    }

    /// Waits for the backend's answers, then sends the client its Close.
    pub(crate) fn turn_refusing(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        let SessionPhase::Refusing(refusal) = &self.phase else {
            return transfer.or_wait();
        };
        let can_answer = refusal.notifies_backend
            && !self.legs[CLIENT].is_broken()
            && !self.has_answered(BACKEND)
            && !self.is_client_truncated();
        if can_answer && !self.answers_left(refusal, scratch.now).is_zero() {
            return transfer.or_wait();
        }
        let (frame, end) = (refusal.frame.encode(CLIENT), refusal.end);
        self.let_backend_go();
        if let Some(frames) = self.frames.as_deref_mut() {
            frames.filters[BACKEND].insert_close(frame);
        }
        self.phase = SessionPhase::Closing(Box::new(ClosingHandshake {
            began: scratch.now,
            sent: None,
            notifies: [true, false],
            end,
        }));
        TurnOutcome::Again
    }

    /// The backend has a part of a frame, behind which no Close can be put.
    fn is_client_truncated(&self) -> bool {
        let frames = self.frames.as_deref();
        frames.is_some_and(|frames| frames.filters[CLIENT].is_truncated())
    }

    /// Ends the backend's leg: one that was sent its Close sees a FIN behind it, any other a RST.
    fn let_backend_go(&mut self) {
        if self.has_close_gone_to(BACKEND) && !self.owes(BACKEND) {
            self.legs[BACKEND].finish(false);
            return;
        }
        self.legs[BACKEND].reset();
        if let Some(absent) = Leg::absent() {
            self.remove_backend(absent);
        }
    }

    /// Puts the place of a leg that is gone where the backend's was.
    pub(crate) fn remove_backend(&mut self, absent: Leg) {
        self.legs[BACKEND] = absent;
        self.directions[CLIENT].clear();
        self.directions[BACKEND].reopen();
    }
}
