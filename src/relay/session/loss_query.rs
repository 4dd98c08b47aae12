//! A WebSocket that its backend has ended without a Close. Many servers kick a client so, and a
//! process that dies ends its sessions so: whether it is a loss is found out elsewhere, and
//! meanwhile the session is held. Without one it ends as it would without `resume`: the FIN goes on
//! as a FIN, the RST as a RST.

use std::time::Duration;

use tokio_util::sync::DropGuard;

use super::super::clock::{Tick, Ticks};
use super::super::query::Handle;
use super::resume::{BackendPhase, ResumeState};
use super::{BACKEND, Session, TurnOutcome};

/// Beyond `settle`, for an answer that was given and has not come.
const ANSWER_IS_LATE: Duration = Duration::from_secs(1);

/// Whether its backend is lost is not known yet.
pub(super) struct LossQuery {
    pub since: Tick,
    verdict: Option<LossVerdict>,
    /// Of the wait for it; there as soon as it was begun.
    wait: Option<DropGuard>,
}

#[derive(Debug, Clone, Copy)]
enum LossVerdict {
    Lost,
    /// It is the backend's word.
    Meant,
}

/// Longest time until a verdict.
pub(super) fn longest_doubt(settle: Duration) -> Ticks {
    settle.saturating_add(ANSWER_IS_LATE).into()
}

impl Session {
    fn doubt_mut(&mut self) -> Option<&mut LossQuery> {
        match &mut self.role.resume_mut()?.state {
            BackendPhase::Doubt(doubt) => Some(doubt),
            BackendPhase::Served | BackendPhase::Leaving(_) | BackendPhase::Gap(_) => None,
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        let in_doubt = |resume: &ResumeState| matches!(resume.state, BackendPhase::Doubt(_));
        self.role.resume().is_some_and(in_doubt)
    }

    /// An end of its backend is a loss without a question: we are taking it away, or every end is
    /// one.
    pub(super) fn ends_by_our_will(&self) -> bool {
        let is_asked = |resume: &ResumeState| {
            resume.settings.on.eof || matches!(resume.state, BackendPhase::Leaving(_))
        };
        self.role.resume().is_some_and(is_asked)
    }

    /// The backend's leg has ended without a Close.
    pub(super) fn doubt(&mut self, now: Tick) -> TurnOutcome {
        let Some(doubt) = self.doubt_mut() else {
            if let Some(resume) = self.role.resume_mut() {
                resume.state = BackendPhase::Doubt(LossQuery {
                    since: now,
                    verdict: None,
                    wait: None,
                });
            }
            return TurnOutcome::Judge;
        };
        match doubt.verdict {
            None => TurnOutcome::Wait,
            Some(LossVerdict::Lost) => self.lose_backend(self.how_gone(), now),
            Some(LossVerdict::Meant) => self.take_its_word(now),
        }
    }

    /// Asks whether its backend is lost to it.
    pub fn judge_loss(&mut self, session: Handle) {
        let Some(resume) = self.role.resume_mut() else {
            return;
        };
        let wait = resume
            .migrator
            .judge_loss(session, &resume.settings, &self.guards);
        if let BackendPhase::Doubt(doubt) = &mut resume.state {
            if wait.is_none() {
                doubt.verdict = Some(LossVerdict::Lost);
            }
            doubt.wait = wait;
        }
    }

    /// The answer has come.
    pub fn judged(&mut self, is_lost: bool) -> TurnOutcome {
        let Some(doubt) = self.doubt_mut() else {
            return TurnOutcome::Wait;
        };
        if let Some(wait) = doubt.wait.take() {
            // It is over.
            wait.disarm();
        }
        doubt.verdict = Some(match is_lost {
            true => LossVerdict::Lost,
            false => LossVerdict::Meant,
        });
        TurnOutcome::Again
    }

    /// It ends as without `resume`.
    pub(super) fn take_its_word(&mut self, now: Tick) -> TurnOutcome {
        self.role.take_resume();
        if let Some(frames) = &mut self.frames {
            // A part of what might have been a Close goes on as it came.
            let held = frames.passages[BACKEND].let_go();
            if !held.is_empty() {
                self.directions[BACKEND].append(held, now);
            }
        }
        TurnOutcome::Again
    }
}
