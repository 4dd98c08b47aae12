//! A WebSocket that its backend has ended without a Close. Many servers kick a client so, and a
//! process that dies ends its sessions so: whether it is a loss is found out elsewhere, and
//! meanwhile the session is held. Without one it ends as it would without `resume`: the FIN goes on
//! as a FIN, the RST as a RST.

use std::time::Duration;

use tokio_util::sync::DropGuard;

use super::super::clock::{Tick, Ticks};
use super::super::inquiry::Handle;
use super::resume::{Resume, State};
use super::{BACKEND, Entry, Turn};

/// Beyond `settle`, for an answer that was given and has not come.
const ANSWER_IS_LATE: Duration = Duration::from_secs(1);

/// Whether its backend is lost is not known yet.
pub(super) struct Doubt {
    pub since: Tick,
    verdict: Option<Verdict>,
    /// Of the wait for it; there as soon as it was begun.
    wait: Option<DropGuard>,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Lost,
    /// It is the backend's word.
    Meant,
}

/// Longest time until a verdict.
pub(super) fn longest_doubt(settle: Duration) -> Ticks {
    settle.saturating_add(ANSWER_IS_LATE).into()
}

impl<L> Entry<L> {
    fn doubt_mut(&mut self) -> Option<&mut Doubt> {
        match &mut self.role.resume_mut()?.state {
            State::Doubt(doubt) => Some(doubt),
            State::Served | State::Leaving(_) | State::Gap(_) => None,
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        let in_doubt = |resume: &Resume<L>| matches!(resume.state, State::Doubt(_));
        self.role.resume().is_some_and(in_doubt)
    }

    /// An end of its backend is a loss without a question: we are taking it away, or every end is
    /// one.
    pub(super) fn ends_by_our_will(&self) -> bool {
        let is_asked = |resume: &Resume<L>| {
            resume.settings.on.eof || matches!(resume.state, State::Leaving(_))
        };
        self.role.resume().is_some_and(is_asked)
    }

    /// The backend's leg has ended without a Close.
    pub(super) fn doubt(&mut self, now: Tick) -> Turn {
        let Some(doubt) = self.doubt_mut() else {
            if let Some(resume) = self.role.resume_mut() {
                resume.state = State::Doubt(Doubt {
                    since: now,
                    verdict: None,
                    wait: None,
                });
            }
            return Turn::Judge;
        };
        match doubt.verdict {
            None => Turn::Wait,
            Some(Verdict::Lost) => self.lose_backend(self.how_gone(), now),
            Some(Verdict::Meant) => self.take_its_word(now),
        }
    }

    /// Asks whether its backend is lost to it.
    pub fn judge(&mut self, session: Handle) {
        let Some(resume) = self.role.resume_mut() else {
            return;
        };
        let wait = resume.seeker.judge(session, &resume.settings, &self.lease);
        if let State::Doubt(doubt) = &mut resume.state {
            if wait.is_none() {
                doubt.verdict = Some(Verdict::Lost);
            }
            doubt.wait = wait;
        }
    }

    /// The answer has come.
    pub fn judged(&mut self, is_lost: bool) -> Turn {
        let Some(doubt) = self.doubt_mut() else {
            return Turn::Wait;
        };
        if let Some(wait) = doubt.wait.take() {
            // It is over.
            wait.disarm();
        }
        doubt.verdict = Some(match is_lost {
            true => Verdict::Lost,
            false => Verdict::Meant,
        });
        Turn::Again
    }

    /// It ends as without `resume`.
    pub(super) fn take_its_word(&mut self, now: Tick) -> Turn {
        self.role.take_resume();
        if let Some(frames) = &mut self.frames {
            // A part of what might have been a Close goes on as it came.
            let held = frames.passages[BACKEND].let_go();
            if !held.is_empty() {
                self.directions[BACKEND].append(held, now);
            }
        }
        Turn::Again
    }
}
