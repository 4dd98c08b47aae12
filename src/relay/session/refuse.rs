//! How a WebSocket is ended by what its client did wrong: it passed a bound, or broke the protocol where bounds have to hold.
//!
//! The backend is told at once, and what it still answers to what came before goes to the client, which hears the reason
//! behind that. Then the backend is let go: the fault is not its own.

use std::time::Duration;

use super::super::clock::{Tick, Ticks};
use super::super::direction::Direction;
use super::super::frames::{CloseFrame, ClosingHandshake};
use super::super::leg::Leg;
use super::close::BOUNDARY_WAIT;
use super::{BACKEND, CLIENT, Session, TurnOutcome};
use crate::observe::{Phase, Side, Termination};

/// The client hears why once its backend was silent for so long: as long as one is given to answer elsewhere.
const ANSWERS_WAIT: Duration = Duration::from_millis(500);

impl Session {
    /// After bytes came: a client that did wrong ends its session.
    pub(super) fn judge_client(&mut self, now: Tick) -> Option<TurnOutcome> {
        let breach = self.frames.as_deref()?.breach()?;
        if self.is_parting() {
            return None;
        }
        tracing::debug!(
            id = self.record.id,
            cause = breach.cause(),
            "websocket client is refused"
        );
        let end = Termination::new(Side::Client, Phase::Relay, breach.how());
        let turn = self.farewell([None, Some(&CloseFrame::going_away())], end, now);
        if let Some(frames) = self.frames.as_deref_mut()
            && let Some(farewell) = &mut frames.farewell
        {
            farewell.last_word = Some(CloseFrame::new(breach.code(), &breach.to_string()));
            farewell.told[CLIENT] = true;
            // The client hears our Close, not the backend's answer to one.
            if farewell.told[BACKEND] {
                frames.passages[BACKEND].take_any_close();
            }
        }
        Some(turn)
    }

    fn refusing(&self) -> Option<&ClosingHandshake> {
        let farewell = self.frames.as_deref()?.farewell.as_deref()?;
        farewell.last_word.is_some().then_some(farewell)
    }

    /// What is left of the wait for the backend's answers: silence ends it, and so does its bound.
    pub(super) fn answers_left(&self, now: Tick) -> Option<Duration> {
        let began = now.since(self.refusing()?.began);
        let silent = now.since(self.last_activity).min(began);
        let silence_left = Ticks::from(ANSWERS_WAIT).left(silent);
        Some(silence_left.min(Ticks::from(BOUNDARY_WAIT).left(began)))
    }

    /// Waits for the backend's answers, then tells the client. `None`: nobody is refused, or the client is told.
    pub(super) fn go_on_refusing(&mut self, now: Tick) -> Option<TurnOutcome> {
        let left = self.answers_left(now)?;
        let can_come = self.refusing()?.told[BACKEND] && !self.legs[CLIENT].is_broken();
        if can_come && !left.is_zero() && !self.has_answered(BACKEND) && !self.is_cut_off() {
            return Some(TurnOutcome::Wait);
        }
        self.let_backend_go();
        let frames = self.frames.as_deref_mut()?;
        let farewell = frames.farewell.as_deref_mut()?;
        let goodbye = farewell.last_word.take()?;
        farewell.began = now;
        farewell.told[BACKEND] = false;
        frames.passages[BACKEND].insert_close(goodbye.frame(CLIENT));
        Some(TurnOutcome::Again)
    }

    /// The backend has a part of a frame, behind which no Close can be put.
    fn is_cut_off(&self) -> bool {
        let frames = self.frames.as_deref();
        frames.is_some_and(|frames| frames.passages[CLIENT].is_cut())
    }

    /// A backend that was told sees a FIN behind its Close; one that could not be told is reset, now.
    fn let_backend_go(&mut self) {
        let is_told = |frames: &super::Frames| frames.passages[CLIENT].is_told();
        if self.frames.as_deref().is_some_and(is_told) && !self.owes(BACKEND) {
            self.legs[BACKEND].finish(false);
            return;
        }
        self.legs[BACKEND].reset();
        if let Some(absent) = Leg::absent() {
            self.legs[BACKEND] = absent;
            self.directions[CLIENT] = Direction::default();
            self.directions[BACKEND].reopen();
        }
    }

    /// A client that broke the protocol cannot be heard to answer: behind its Close it gets a FIN, and is read until its own
    /// comes. A close with unread input would be a RST, which may throw away what it was told.
    pub(super) fn hang_up_on_lost_client(&mut self) {
        let is_lost = |frames: &super::Frames| frames.passages[CLIENT].lost().is_some();
        let is_lost = self.frames.as_deref().is_some_and(is_lost);
        if is_lost && !self.owes(CLIENT) {
            self.legs[CLIENT].finish(false);
        }
    }
}
