//! A WebSocket that is taken from its backend by our decision: left between two messages of the
//! client, once the backend has answered those before, with a Close. What the backend still sends
//! until it answers that is delivered.

use std::sync::Arc;
use std::time::Duration;

use super::super::clock::{Tick, Ticks};
use super::super::direction::Flow;
use super::super::frames::CloseFrame;
use super::close::{ANSWER_WAIT, BOUNDARY_WAIT};
use super::resume::BackendPhase;
use super::{BACKEND, CLIENT, Session, TurnOutcome};

/// Its backend is to lose it.
pub(super) struct Migration {
    /// Of its beginning; then of the pause of the client's messages, then of the Close to the
    /// backend.
    since: Tick,
    pub step: MigrationStep,
    /// For everybody, when it does not come to that.
    pub goodbye: Arc<CloseFrame>,
}

/// How far the leave has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationStep {
    /// The present message of the client passes.
    Boundary,
    /// The client's messages are left to the kernel, and the backend answers what it has.
    Answers,
    /// It was told Close. `was_quiet`: it had been sent nothing for `settle`.
    Told { was_quiet: bool },
}

impl Migration {
    fn new(goodbye: &Arc<CloseFrame>, now: Tick) -> Migration {
        Migration {
            since: now,
            step: MigrationStep::Boundary,
            goodbye: Arc::clone(goodbye),
        }
    }

    /// When its present step began, and how long that may take.
    pub fn time(&self, settle: Duration) -> (Tick, Ticks) {
        let wait = match self.step {
            MigrationStep::Boundary => BOUNDARY_WAIT,
            MigrationStep::Answers => settle,
            MigrationStep::Told { .. } => ANSWER_WAIT,
        };
        (self.since, wait.into())
    }
}

impl Session {
    pub(super) fn leaving(&mut self) -> Option<&mut Migration> {
        match &mut self.role.resume_mut()?.state {
            BackendPhase::Leaving(leaving) => Some(leaving),
            BackendPhase::Served | BackendPhase::Doubt(_) | BackendPhase::Gap(_) => None,
        }
    }

    /// Its backend is to lose it.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_changing() && !self.is_in_gap()
    }

    /// Takes the session from its backend by our decision: another one takes it if it is resumable, or else it is ended with
    /// this goodbye.
    pub fn migrate(&mut self, goodbye: &Arc<CloseFrame>, now: Tick) -> TurnOutcome {
        if self.is_changing() {
            return TurnOutcome::Wait;
        }
        if !self.may_move() {
            return self.begin_close(goodbye, now);
        }
        if let (Some(resume), Some(frames)) = (self.role.resume_mut(), &mut self.frames) {
            frames.passages[CLIENT].pause();
            resume.state = BackendPhase::Leaving(Migration::new(goodbye, now));
        }
        TurnOutcome::Again
    }

    /// After a turn: whether the backend's leg has ended, or is to be left now.
    pub(super) fn go_on_leaving(&mut self, flow: Flow, now: Tick) -> Option<TurnOutcome> {
        self.role.resume()?;
        if !self.is_resumable() {
            return self.leave_no_more(now);
        }
        let frames = self.frames.as_deref_mut()?;
        let has_left = frames.passages[BACKEND].has_left();
        let has_ended = matches!(flow, Flow::Ended | Flow::Finished | Flow::Broken);
        let is_paused = frames.passages[CLIENT].is_paused();
        if has_left || (has_ended && self.ends_by_our_will()) {
            return Some(self.lose_backend(self.how_gone(), now));
        }
        if has_ended {
            return Some(self.doubt(now));
        }
        if is_paused {
            return self.tell_when_answered(now);
        }
        None
    }

    /// Behind the client's last message: the backend has a while to answer it, and is told Close.
    fn tell_when_answered(&mut self, now: Tick) -> Option<TurnOutcome> {
        let has_all = self.has_taken_all(BACKEND);
        let resume = self.role.resume_mut()?;
        let is_over = resume.left(now).is_none_or(|left| left.is_zero());
        let may_answer = resume.talk.may_answer(resume.settings.settle, now);
        let was_quiet = has_all && resume.is_quiet(now);
        let BackendPhase::Leaving(leaving) = &mut resume.state else {
            return None;
        };
        match leaving.step {
            MigrationStep::Boundary => {
                leaving.step = MigrationStep::Answers;
                leaving.since = now;
                return Some(TurnOutcome::Again);
            }
            MigrationStep::Answers if may_answer && !is_over => return None,
            MigrationStep::Answers => {}
            MigrationStep::Told { .. } => return None,
        }
        leaving.step = MigrationStep::Told { was_quiet };
        leaving.since = now;
        let frame = Arc::clone(&leaving.goodbye).frame(BACKEND);
        let [client, backend] = &mut self.frames.as_deref_mut()?.passages;
        client.insert(&frame);
        backend.take_any_close();
        Some(TurnOutcome::Again)
    }

    /// It was to lose its backend, and cannot go on with another one any more: it ends with this one.
    fn leave_no_more(&mut self, now: Tick) -> Option<TurnOutcome> {
        let goodbye = Arc::clone(&self.leaving()?.goodbye);
        if self.legs[CLIENT].is_broken() || self.directions[CLIENT].is_over() {
            // What the client said before its end is delivered where it can be.
            self.stop_seeking(now);
            return Some(TurnOutcome::Again);
        }
        Some(self.begin_close(&goodbye, now))
    }

    /// Its kernel has taken all that goes to this side.
    pub(super) fn has_taken_all(&self, side: usize) -> bool {
        !self.owes(side) && self.legs[side].unsent_bytes() == 0
    }

    /// The code of the Close that its backend was told, and whether nothing had gone there before.
    pub(super) fn notified(&mut self) -> Option<(u16, bool)> {
        let leaving = self.leaving()?;
        match leaving.step {
            MigrationStep::Told { was_quiet } => Some((leaving.goodbye.code, was_quiet)),
            MigrationStep::Boundary | MigrationStep::Answers => None,
        }
    }

    /// Where nothing else is to be done: its backend's silence is looked for soon.
    pub(super) fn rest(&self) -> TurnOutcome {
        match self.role.resume().map(|resume| &resume.state) {
            Some(BackendPhase::Leaving(leaving)) if leaving.step == MigrationStep::Answers => {
                TurnOutcome::Soon
            }
            _ => TurnOutcome::Wait,
        }
    }
}
