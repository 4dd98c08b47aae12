//! A WebSocket that its backend has ended without a Close. Many servers kick a client so, and a
//! process that dies ends its sessions so: the data path above finds out whether it is a loss, and
//! meanwhile the session is held. Where it is none, it ends as it would without `resume`: the FIN
//! goes on as a FIN, the RST as a RST.

use super::resume::ResumeState;
use crate::relay::clock::Tick;
use crate::relay::key::Handle;
use crate::relay::phase::{LossQuery, SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::{Session, Transfer};
use crate::relay::side::BACKEND;

impl Session {
    pub(crate) fn resume(&self) -> Option<&ResumeState> {
        self.frames.as_deref()?.resume.as_deref()
    }

    /// After a transfer: the backend's leg of a resumable session has ended.
    pub(crate) fn notice_backend_end(
        &mut self,
        transfer: &Transfer,
        now: Tick,
    ) -> Option<TurnOutcome> {
        if !self.is_resumable() {
            return None;
        }
        let every_end_is_a_loss = self.resume()?.settings.on.eof;
        let has_ended = transfer.is_over(BACKEND);
        if self.has_backend_left() || (has_ended && every_end_is_a_loss) {
            return Some(self.lose_backend(self.backend_end_cause(), now));
        }
        has_ended.then(|| {
            self.phase = SessionPhase::InDoubt(Box::new(LossQuery::new(now)));
            TurnOutcome::QueryLoss
        })
    }

    /// The backend has gone away with a Close that was taken out.
    pub(crate) fn has_backend_left(&self) -> bool {
        let frames = self.frames.as_deref();
        frames.is_some_and(|frames| frames.filters[BACKEND].has_left())
    }

    /// Holds the session until it is known whether its backend is lost.
    pub(crate) fn turn_in_doubt(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        let now = scratch.now;
        if let Some(outcome) = self.refuse_client(now) {
            return outcome;
        }
        if !self.is_resumable() {
            self.phase = SessionPhase::Open;
            return self.after_transfer(&transfer, now);
        }
        let is_lost = match &self.phase {
            SessionPhase::InDoubt(query) => query.is_lost,
            _ => None,
        };
        if self.has_backend_left() || (is_lost == Some(true) && transfer.is_over(BACKEND)) {
            return self.lose_backend(self.backend_end_cause(), now);
        }
        if transfer.is_over(BACKEND) {
            return match is_lost {
                None => TurnOutcome::Wait,
                Some(_) => self.accept_backend_end(now),
            };
        }
        let outcome = self.pass_on_fault(&transfer, now);
        outcome.unwrap_or_else(|| self.go_on(&transfer))
    }

    /// Asks whether its backend is lost to it.
    pub(crate) fn query_loss(&mut self, session: Handle) {
        let Some(resume) = self.resume() else {
            return;
        };
        let wait = resume
            .migrator
            .judge_loss(session, &resume.settings, &self.guards);
        if let SessionPhase::InDoubt(query) = &mut self.phase {
            if wait.is_none() {
                query.is_lost = Some(true);
            }
            query.wait = wait;
        }
    }

    /// Takes the answer.
    pub(crate) fn take_verdict(&mut self, is_lost: bool) -> TurnOutcome {
        let SessionPhase::InDoubt(query) = &mut self.phase else {
            return TurnOutcome::Wait;
        };
        if let Some(wait) = query.wait.take() {
            // It is over.
            wait.disarm();
        }
        query.is_lost = Some(is_lost);
        TurnOutcome::Again
    }

    /// Ends the session as without `resume`.
    pub(crate) fn accept_backend_end(&mut self, now: Tick) -> TurnOutcome {
        self.phase = SessionPhase::Open;
        if let Some(frames) = &mut self.frames {
            frames.resume = None;
            // A part of what might have been a Close goes on as it came.
            let held = frames.filters[BACKEND].release_held();
            if !held.is_empty() {
                self.directions[BACKEND].append(held, now);
            }
        }
        TurnOutcome::Again
    }
}
