//! Loss of a WebSocket's backend: the client's socket stays open where the client has whole
//! messages, and the session is in a gap; see [`gap`](super::gap).

use super::close_frame::CloseFrame;
use super::resume::Takeover;
use crate::base::close_code::{GOING_AWAY, SERVICE_RESTART};
use crate::observe::{Cause, Termination};
use crate::relay::clock::Tick;
use crate::relay::leg::Leg;
use crate::relay::phase::{BackendGap, MigrationStep, SessionPhase, TurnOutcome};
use crate::relay::resume_policy::LostMessages;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT, ended_by, ended_by_us};
use crate::tls::record::TlsSession;
use crate::wire::frame_filter::{CloseFilter, FrameAction};

/// A backend that is gone, as its session saw it.
struct BackendLoss {
    lost: LostMessages,
    /// The begin of its service, where that was short.
    short: Option<Takeover>,
    /// When its leg ended.
    ended: Tick,
    /// Whether it has said Close, and waits for ours.
    awaits_close: bool,
    /// Bytes of the client behind a pause.
    rest: Vec<u8>,
}

/// Whether a session may outlive its backend.
impl Session {
    /// Neither end has said Close or gone wrong: if the backend goes, another may take its place.
    pub(crate) fn is_resumable(&self) -> bool {
        let may_change_backend = matches!(
            self.phase,
            SessionPhase::Open
                | SessionPhase::InDoubt(_)
                | SessionPhase::Migrating(_)
                | SessionPhase::Gap(_)
        );
        may_change_backend
            && self
                .frames
                .as_deref()
                .is_some_and(|frames| frames.can_resume())
            && !self.directions[CLIENT].is_over()
            && !self.legs[CLIENT].is_broken()
    }

    /// Whether it may go to another backend by our decision.
    pub(crate) fn may_migrate(&self) -> bool {
        let on_drain = self.resume().is_some_and(|resume| resume.settings.on.drain);
        on_drain && self.is_resumable()
    }

    /// Whether it outlives a backend that does not answer a ping.
    pub(crate) fn outlives_dead_backend(&self) -> bool {
        let on_death = self
            .resume()
            .is_some_and(|resume| resume.settings.on.down || resume.settings.on.eof);
        on_death && self.is_resumable()
    }

    /// The backend's end is known, and not read yet or not judged: bytes of the client are better
    /// left for the next one.
    pub(crate) fn leaves_client_unread(&self) -> bool {
        let is_ending =
            matches!(self.phase, SessionPhase::InDoubt(_)) || self.legs[BACKEND].is_ending();
        is_ending && self.is_resumable()
    }
}

/// The loss, and ways out of it.
impl Session {
    /// The backend's leg is over: the session is in a gap, or is ended where its client has a part
    /// of a message.
    pub(crate) fn lose_backend(&mut self, cause: Cause, now: Tick) -> TurnOutcome {
        let sent_close = self.sent_close();
        let end = if sent_close.is_some() {
            ended_by_us(Cause::Stop)
        } else {
            ended_by(BACKEND, cause)
        };
        let Some(absent) = Leg::absent().filter(|_| self.may_lose_backend(now)) else {
            return self.break_off(end, now);
        };
        let Some(loss) = self.detach_backend(sent_close, now) else {
            return self.break_off(end, now);
        };
        if loss.awaits_close {
            self.answer_close();
        }
        self.legs[BACKEND].finish(true);
        self.remove_backend(absent);
        let short = loss.short;
        self.phase = SessionPhase::Gap(Box::new(BackendGap {
            since: short.map_or(now, |short| short.since),
            ended: short.map_or(loss.ended, |short| short.since),
            held: Vec::new(),
            lost: loss.lost,
            cause: end.how,
            was_short: short.is_some(),
            search: None,
        }));
        // That leg's end is none of the session's.
        self.first_fin = None;
        self.hold(&loss.rest, now);
        TurnOutcome::BackendLost
    }

    /// Prepares both filters for the next backend, and finds out what went with this one.
    /// `sent_close`: see [`Session::sent_close`].
    fn detach_backend(
        &mut self,
        sent_close: Option<(u16, bool)>,
        now: Tick,
    ) -> Option<BackendLoss> {
        let has_all = self.has_taken_all(BACKEND);
        let ended = match &self.phase {
            SessionPhase::InDoubt(query) => query.since,
            _ => now,
        };
        let frames = self.frames.as_deref_mut()?;
        let resume = frames.resume.as_deref()?;
        let [client, backend] = &mut frames.filters;
        let left = backend.left();
        let awaits_close = left.is_some() && sent_close.is_none() && client.at_frame_boundary();
        // Its Close says something of the messages only where it has had time for them.
        let has_answered_all = match sent_close {
            Some((code, was_quiet)) => was_quiet && left.is_some_and(|left| left.answers(code)),
            None => left.is_some() && has_all && resume.is_quiet(now),
        };
        let (is_cut, rest) = client.detach_reader();
        let mut lost = if resume.times.has_sent() && !has_answered_all {
            LostMessages::Unknown
        } else {
            LostMessages::AtMost(is_cut.into())
        };
        let takeover = resume.takeover.filter(|_| !has_answered_all);
        if let Some(takeover) = takeover {
            lost = lost.and(takeover.lost);
        }
        backend.replace_source();
        if !resume.settings.on.close_code {
            backend.set_close_filter(CloseFilter::None);
        }
        Some(BackendLoss {
            lost,
            short: takeover.filter(|takeover| takeover.is_short(ended)),
            ended,
            awaits_close,
            rest,
        })
    }

    /// The client has whole messages, and its backends have not caused too many changes.
    fn may_lose_backend(&self, now: Tick) -> bool {
        let is_our_move = matches!(self.phase, SessionPhase::Migrating(_));
        let (Some(frames), Some(resume)) = (self.frames.as_deref(), self.resume()) else {
            return false;
        };
        let [client, backend] = &frames.filters;
        backend.has_passed_whole_messages()
            && !client.is_discarding()
            && (is_our_move || resume.may_change(now))
    }

    /// The code of the Close that its backend was sent, and whether it had been quiet before.
    fn sent_close(&self) -> Option<(u16, bool)> {
        let SessionPhase::Migrating(migration) = &self.phase else {
            return None;
        };
        match migration.step {
            MigrationStep::Closing { was_quiet } => Some((migration.frame.code, was_quiet)),
            MigrationStep::Boundary | MigrationStep::Answers => None,
        }
    }

    pub(crate) fn backend_end_cause(&self) -> Cause {
        self.legs[BACKEND].fault().unwrap_or(Cause::Fin)
    }

    /// The kernel of this side has acknowledged all that goes to it.
    pub(crate) fn has_taken_all(&self, side: usize) -> bool {
        !self.owes(side) && self.legs[side].unsent_bytes() == 0
    }

    /// Answers the backend's Close: it waits for ours before it lets its socket go (RFC 6455
    /// section 7.1.1). An answer that does not fit into the socket now is not worth a wait.
    fn answer_close(&mut self) {
        if !self.directions[CLIENT].is_blocked() {
            let frame = CloseFrame::new(GOING_AWAY, "").encode(BACKEND);
            let mut sealed = vec![0; TlsSession::sealed_bound(frame.len())];
            self.legs[BACKEND].write(&frame, &mut sealed);
        }
    }

    /// Ends a session whose client has a part of a message that nobody can end, or of a frame.
    fn break_off(&mut self, end: Termination, now: Tick) -> TurnOutcome {
        self.record.not_resumed();
        self.phase = SessionPhase::Open;
        if let Some(absent) = Leg::absent() {
            self.remove_backend(absent);
        }
        if let Some(frames) = self.frames.as_deref_mut() {
            frames.resume = None;
            let [client, backend] = &mut frames.filters;
            if backend.has_passed_whole_frames() {
                // Of a frame that is held the client has nothing, and gets nothing.
                backend.replace_source();
                client.truncate();
                return self.send_restart(end, now);
            }
        }
        // A part of a frame must not look whole.
        self.reset_side(CLIENT, end, now)
    }

    /// Tells the client that it should come back.
    pub(crate) fn send_restart(&mut self, end: Termination, now: Tick) -> TurnOutcome {
        let frame = CloseFrame::new(SERVICE_RESTART, "");
        self.send_close([Some(&frame), None], end, now)
    }

    /// Gives up outliving its backend. Whether the backend can still be sent a Close.
    pub(crate) fn stop_resuming(&mut self, now: Tick) -> bool {
        let Some(frames) = self.frames.as_deref_mut() else {
            return true;
        };
        if frames.resume.take().is_none() {
            return true;
        }
        frames.filters[BACKEND].set_close_filter(CloseFilter::None);
        let client = &mut frames.filters[CLIENT];
        let is_paused = match &self.phase {
            SessionPhase::InDoubt(_) => false,
            SessionPhase::Migrating(migration) if !migration.is_closing() => true,
            SessionPhase::Migrating(_) | SessionPhase::Gap(_) => {
                let (_, rest) = client.detach_reader();
                let _ = client.pass(&rest, |_| FrameAction::Pass);
                client.truncate();
                self.phase = SessionPhase::Open;
                return false;
            }
            _ => return true,
        };
        if is_paused {
            let rest = client.end_pause();
            let passed = frames.direction(CLIENT).filter(rest, now);
            self.directions[CLIENT].append(passed, now);
        }
        self.phase = SessionPhase::Open;
        true
    }
}
