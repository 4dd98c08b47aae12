//! A WebSocket that outlives its backend: how it loses it. When the backend's leg ends and the
//! client has whole messages, the client's socket stays open, and the session is in a gap: see
//! `gap`. A backend that is to lose it by our decision is left before: see `leaving`. See `Passage`
//! for what is taken out of the frames meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::super::clock::Tick;
use super::super::direction::Direction;
use super::super::frames::{CloseFrame, Frames};
use super::super::leg::Leg;
use super::super::resume_policy::{LostMessages, Migrator, ResumePolicy};
use super::gap::BackendGap;
use super::loss_query::{LossQuery, longest_doubt};
use super::migration::{Migration, MigrationStep};
use super::talk::Talk;
use super::{BACKEND, CLIENT, Session, TurnOutcome, ended_by};
use crate::base::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::base::rate::Bucket;
use crate::config;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::tls::record::TlsSession;
use crate::wire::frame_filter::{Filtered, FrameAction};

/// A backend that goes without an answer after less time than this has not served the session, whose gap goes on and is bounded
/// as one: what takes a connection and closes it again would otherwise be asked for ever.
const SHORT_SERVICE: Duration = Duration::from_secs(1);

/// What a resumable session has besides.
pub(super) struct ResumeState {
    pub migrator: Arc<dyn Migrator>,
    pub settings: Arc<config::Resume>,
    /// Of changes that its backends have caused.
    changes: Bucket,
    pub state: BackendPhase,
    /// With the present backend.
    pub talk: Talk,
    /// By the backend that took it over, if one has.
    pub served: Option<Served>,
}

/// How a session came to its backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// When it had lost the one before.
    pub since: Tick,
    /// When this one took its place.
    pub from: Tick,
    /// With the one before. Whether this one has made anything of what it was told of that is not known before it answers a
    /// Close of ours.
    pub lost: LostMessages,
}

impl Served {
    fn is_short(self, now: Tick) -> bool {
        Duration::from(now.since(self.from)) < SHORT_SERVICE
    }
}

pub(super) enum BackendPhase {
    /// Its backend serves.
    Served,
    Doubt(LossQuery),
    Leaving(Migration),
    Gap(Box<BackendGap>),
}

impl ResumeState {
    pub fn new(resumption: ResumePolicy, has_spoken: bool, now: Tick) -> ResumeState {
        let ResumePolicy { settings, migrator } = resumption;
        ResumeState {
            migrator,
            settings,
            changes: Bucket::default(),
            state: BackendPhase::Served,
            talk: Talk::new(has_spoken, now),
            served: None,
        }
    }

    pub fn held_bytes(&self) -> usize {
        match &self.state {
            BackendPhase::Gap(gap) => gap.held.len(),
            BackendPhase::Served | BackendPhase::Doubt(_) | BackendPhase::Leaving(_) => 0,
        }
    }

    pub fn max_buffer(&self) -> usize {
        self.settings.max_buffer as usize
    }

    /// One more change that a backend has caused; false: there were too many.
    fn may_change(&self, now: Tick) -> bool {
        self.changes.take(self.settings.max, now.since_origin())
    }

    /// When the backend's leg ended that is known to be lost now.
    fn ended_at(&self, now: Tick) -> Tick {
        match &self.state {
            BackendPhase::Doubt(doubt) => doubt.since,
            BackendPhase::Served | BackendPhase::Leaving(_) | BackendPhase::Gap(_) => now,
        }
    }

    /// The backend was sent nothing for `settle`.
    pub fn is_quiet(&self, now: Tick) -> bool {
        self.talk.is_quiet(self.settings.settle, now)
    }

    pub fn left(&self, now: Tick) -> Option<Duration> {
        let (since, wait) = match &self.state {
            BackendPhase::Served => return None,
            BackendPhase::Doubt(doubt) => (doubt.since, longest_doubt(self.settings.settle)),
            BackendPhase::Leaving(leaving) => leaving.time(self.settings.settle),
            BackendPhase::Gap(gap) => (gap.since, self.settings.timeout.into()),
        };
        Some(wait.left(now.since(since)))
    }
}

impl Session {
    /// It has no backend at present.
    pub(super) fn is_in_gap(&self) -> bool {
        let is_gap = |resume: &ResumeState| matches!(resume.state, BackendPhase::Gap(_));
        self.role.resume().is_some_and(is_gap)
    }

    /// It is changing its backend.
    pub(super) fn is_changing(&self) -> bool {
        let is_served = |resume: &ResumeState| matches!(resume.state, BackendPhase::Served);
        !self.role.resume().is_none_or(is_served)
    }

    /// Neither end has said Close or gone wrong: if its backend goes, another may take its place.
    pub(super) fn is_resumable(&self) -> bool {
        let stands = |frames: &Frames| {
            let [client, backend] = &frames.passages;
            let is_lost = client.lost().is_some() || backend.lost().is_some();
            let is_closed = client.has_closed() || backend.has_closed() || backend.is_told();
            let is_deaf = client.is_deaf() || (backend.is_deaf() && !backend.has_left());
            frames.farewell.is_none() && !is_lost && !is_closed && !is_deaf
        };
        self.role.resume().is_some()
            && self.resetting.is_none()
            && self.frames.as_deref().is_some_and(stands)
            && !self.directions[CLIENT].is_over()
            && !self.legs[CLIENT].is_broken()
    }

    /// The same by our decision.
    pub(super) fn may_move(&self) -> bool {
        let on_drain = |resume: &ResumeState| resume.settings.on.drain;
        self.role.resume().is_some_and(on_drain) && self.is_resumable()
    }

    /// The same when its backend does not answer a ping.
    pub(super) fn outlives_a_dead_backend(&self) -> bool {
        let on_death = |resume: &ResumeState| resume.settings.on.down || resume.settings.on.eof;
        self.role.resume().is_some_and(on_death) && self.is_resumable()
    }

    /// Its backend's end is known, and not read yet or not judged: what the client sends is better
    /// left for the next one.
    pub(super) fn is_left_alone(&self) -> bool {
        let is_ending = |resume: &ResumeState| {
            matches!(resume.state, BackendPhase::Doubt(_)) || self.legs[BACKEND].is_ending()
        };
        self.role.resume().is_some_and(is_ending) && self.is_resumable()
    }

    /// The client has said Close: whatever Close comes from the backend is for it.
    pub(super) fn keep_client_close(&mut self) {
        if self.role.resume().is_some()
            && let Some(frames) = &mut self.frames
            && frames.passages[CLIENT].has_closed()
        {
            frames.passages[BACKEND].take_no_close();
        }
    }

    /// The backend's leg is over: the session is without one, or is ended where its client has a part of a message.
    pub(super) fn lose_backend(&mut self, how: Cause, now: Tick) -> TurnOutcome {
        let (told, has_all) = (self.notified(), self.has_taken_all(BACKEND));
        let is_our_move = self.leaving().is_some();
        let was_told = told.is_some();
        let end = match was_told {
            true => Termination::new(Side::Evenkeel, Phase::Relay, Cause::Stop),
            false => ended_by(BACKEND, how),
        };
        let (Some(absent), Some(frames)) = (Leg::absent(), self.frames.as_deref_mut()) else {
            return self.break_off(end, now);
        };
        let [client, backend] = &mut frames.passages;
        let left = backend.left();
        let is_whole = backend.has_passed_whole() && !client.is_deaf();
        let resume = self.role.resume();
        let may_change = |resume: &ResumeState| is_our_move || resume.may_change(now);
        if !is_whole || !resume.is_some_and(may_change) {
            return self.break_off(end, now);
        }
        let answers = backend.has_left() && !was_told && client.at_frame_boundary();
        // Its Close says something of the messages only where it has had time for them.
        let has_closed = match told {
            Some((code, was_quiet)) => was_quiet && left.is_some_and(|left| left.answers(code)),
            None => {
                let was_quiet = resume.is_some_and(|resume| resume.is_quiet(now));
                left.is_some() && has_all && was_quiet
            }
        };
        let has_spoken = resume.is_some_and(|resume| resume.talk.has_begun());
        let (is_cut, rest) = client.bridge();
        let lost = match has_spoken && !has_closed {
            true => LostMessages::Unknown,
            false => LostMessages::AtMost(is_cut.into()),
        };
        let served = resume.and_then(|resume| resume.served);
        let served = served.filter(|_| !has_closed);
        let lost = served.map_or(lost, |served| lost.and(served.lost));
        let ended = resume.map_or(now, |resume| resume.ended_at(now));
        let short = served.filter(|served| served.is_short(ended));
        let since = short.map_or(now, |served| served.since);
        backend.renew();
        if !resume.is_some_and(|resume| resume.settings.on.close_code) {
            backend.take_no_close();
        }
        frames.backend_gone();
        if answers {
            self.answer_close();
        }
        self.legs[BACKEND].finish(true);
        self.legs[BACKEND] = absent;
        self.directions[CLIENT] = Direction::default();
        self.directions[BACKEND].reopen();
        let Some(resume) = self.role.resume_mut() else {
            return TurnOutcome::Ended;
        };
        let mut gap = Box::new(BackendGap::new(lost, end.how, since, short.is_some()));
        gap.ended = short.map_or(ended, |served| served.since);
        resume.state = BackendPhase::Gap(gap);
        // That leg's end is none of the session's.
        self.end = None;
        self.hold(&rest, now);
        TurnOutcome::BackendLost
    }

    /// Bytes have come from this side.
    pub(super) fn note_speech(&mut self, side: usize, now: Tick) {
        let (Some(resume), Some(frames)) = (self.role.resume_mut(), &mut self.frames) else {
            return;
        };
        if side == BACKEND {
            resume.talk.heard(now);
        } else if frames.passages[CLIENT].take_spoken() {
            resume.talk.spoke(now);
        }
    }

    pub(super) fn how_gone(&self) -> Cause {
        self.legs[BACKEND].fault().unwrap_or(Cause::Fin)
    }

    /// A backend that said Close waits for ours before it lets its socket go (RFC 6455 section 7.1.1). What does not fit into
    /// the socket now is not worth a wait.
    fn answer_close(&mut self) {
        if !self.directions[CLIENT].is_blocked() {
            let frame = CloseFrame::new(GOING_AWAY, "").frame(BACKEND);
            let mut sealed = vec![0; TlsSession::sealed_bound(frame.len())];
            self.legs[BACKEND].write(&frame, &mut sealed);
        }
    }

    /// The client has a part of a message that nobody can end, or a part of a frame.
    fn break_off(&mut self, end: Termination, now: Tick) -> TurnOutcome {
        self.record.not_resumed();
        self.role.take_resume();
        if let Some(absent) = Leg::absent() {
            self.legs[BACKEND] = absent;
            self.directions[CLIENT] = Direction::default();
            self.directions[BACKEND].reopen();
        }
        let passages = self
            .frames
            .as_deref_mut()
            .map(|frames| &mut frames.passages);
        if let Some([client, backend]) = passages
            && backend.has_passed_whole_frames()
        {
            // Of a frame that is held the client has nothing, and gets nothing.
            backend.renew();
            client.cut();
            return self.say_restart(end, now);
        }
        // A part of a frame must not look whole.
        self.end = Some(end);
        self.resetting = Some(CLIENT as u8);
        self.last_activity = now;
        self.reset_when_sent(CLIENT as u8)
    }

    pub(super) fn say_restart(&mut self, end: Termination, now: Tick) -> TurnOutcome {
        let goodbye = CloseFrame::new(SERVICE_RESTART, "");
        self.farewell([Some(&goodbye), None], end, now)
    }

    /// It is to be ended: no other backend is looked for any more. Whether there is none that is to be told.
    pub(super) fn stop_seeking(&mut self, now: Tick) -> bool {
        let Some(resume) = self.role.take_resume() else {
            return false;
        };
        let Some(frames) = &mut self.frames else {
            return false;
        };
        let [client, backend] = &mut frames.passages;
        backend.take_no_close();
        let has_none = match resume.state {
            BackendPhase::Served | BackendPhase::Doubt(_) => return false,
            BackendPhase::Leaving(leaving) => matches!(leaving.step, MigrationStep::Told { .. }),
            BackendPhase::Gap(_) => true,
        };
        if !has_none {
            let rest = client.go_on();
            let passed = match frames.way(CLIENT).pass(&rest, now) {
                Filtered::Whole => rest,
                Filtered::Edited(edited) => edited,
            };
            self.directions[CLIENT].append(passed, now);
            return false;
        }
        let (_, rest) = client.bridge();
        let _ = client.pass(&rest, |_| FrameAction::Pass);
        client.cut();
        true
    }

    /// What is left until a change of its backend has taken too long.
    pub(super) fn change_left(&self, now: Tick) -> Option<Duration> {
        self.role.resume()?.left(now)
    }

    /// A change of its backend has taken too long.
    pub(super) fn change_overdue(&mut self, now: Tick) -> Option<TurnOutcome> {
        if !self.change_left(now)?.is_zero() {
            return None;
        }
        if self.is_in_gap() {
            return Some(self.give_up_migration(now));
        }
        if self.is_in_doubt() {
            return Some(self.take_its_word(now));
        }
        let leaving = self.leaving()?;
        let goodbye = Arc::clone(&leaving.goodbye);
        Some(match leaving.step {
            MigrationStep::Boundary => self.begin_close(&goodbye, now),
            MigrationStep::Answers => TurnOutcome::Again,
            // It does not answer the Close. Whatever it has not read is lost.
            MigrationStep::Told { .. } => self.lose_backend(self.how_gone(), now),
        })
    }
}
