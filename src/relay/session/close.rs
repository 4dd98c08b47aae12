//! How a WebSocket is ended by our own decision: each side is told with a Close frame at a frame boundary, and has a while
//! for its answer. And why: the operator, a leg that does not answer; for what the client did wrong see `refuse`.

use std::time::Duration;

use super::super::clock::{Tick, Ticks};
use super::super::frames::{Alive, CloseFrame, ClosingHandshake, LegProgress};
use super::{BACKEND, CLIENT, Session, TurnOutcome, ended_by};
use crate::base::close_code::GOING_AWAY;
use crate::observe::{Cause, Phase, Side, Termination};

/// The wait for a place between two frames; a frame that is longer under way is cut off.
pub(super) const BOUNDARY_WAIT: Duration = Duration::from_secs(5);
/// The wait for the peers' answers, as the closing handshake wants them (RFC 6455 section 7.1.1).
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// "An unexpected condition": the backend does not answer.
const UNEXPECTED: u16 = 1011;

impl Session {
    /// Ends the session by the operator's decision: a WebSocket is told why, all others are closed. What is over already
    /// takes its course.
    pub fn begin_close(&mut self, goodbye: &CloseFrame, now: Tick) -> TurnOutcome {
        if self.is_in_doubt() {
            // Its backend is gone whatever the verdict: the client is told by us.
            let turn = self.lose_backend(self.how_gone(), now);
            if !matches!(turn, TurnOutcome::BackendLost) {
                return turn;
            }
        }
        let stop = Termination::new(Side::Evenkeel, Phase::Relay, Cause::Stop);
        self.farewell([Some(goodbye), Some(goodbye)], stop, now)
    }

    /// Ends the session because its time is over.
    pub(super) fn time_out(&mut self, now: Tick) -> TurnOutcome {
        let goodbye = CloseFrame::going_away();
        let end = Termination::new(Side::Evenkeel, Phase::Relay, Cause::Timeout);
        self.farewell([Some(&goodbye), Some(&goodbye)], end, now)
    }

    /// Ends the session, telling each side what is given for it; what has none is not told.
    pub(super) fn farewell(
        &mut self,
        mut goodbyes: [Option<&CloseFrame>; 2],
        end: Termination,
        now: Tick,
    ) -> TurnOutcome {
        let can_tell = self.can_tell();
        if self.stop_seeking(now) {
            goodbyes[BACKEND] = None;
        }
        if self.resetting.is_some() {
            // It is over and only waits for its last bytes to be sent, for a bounded time.
            return TurnOutcome::Wait;
        }
        let Some(frames) = self.frames.as_deref_mut().filter(|_| can_tell) else {
            let first = self.end;
            self.close(end.how);
            if self.is_established() {
                self.end = first.or(Some(end));
            }
            return TurnOutcome::Ended;
        };
        if frames.farewell.is_some() {
            return TurnOutcome::Wait;
        }
        for side in [CLIENT, BACKEND] {
            if let Some(goodbye) = goodbyes[side] {
                let frame = goodbye.frame(side);
                frames.passages[1 - side].insert_close(frame);
            }
        }
        frames.farewell = Some(Box::new(ClosingHandshake {
            began: now,
            said: None,
            told: goodbyes.map(|goodbye| goodbye.is_some()),
            last_word: None,
        }));
        self.end.get_or_insert(end);
        TurnOutcome::Again
    }

    /// Established, and neither side has ended or broken. The FIN of a client that is refused is held,
    /// and it still listens.
    pub(super) fn can_tell(&self) -> bool {
        let is_refused = |frames: &super::Frames| frames.breach().is_some();
        let has_ended = [CLIENT, BACKEND].map(|side| self.directions[side].has_ended());
        self.is_established()
            && self.resetting.is_none()
            && !has_ended[BACKEND]
            && (!has_ended[CLIENT] || self.frames.as_deref().is_some_and(is_refused))
            && !self.legs.iter().any(|leg| leg.is_broken())
    }

    pub(super) fn is_parting(&self) -> bool {
        let farewell = |frames: &super::Frames| frames.farewell.is_some();
        self.frames.as_deref().is_some_and(farewell)
    }

    /// Goes on with a farewell, if there is one, behind what was moved.
    pub(super) fn go_on_parting(&mut self, now: Tick) -> Option<TurnOutcome> {
        if let Some(turn) = self.go_on_refusing(now) {
            return Some(turn);
        }
        let sides = [CLIENT, BACKEND];
        let (told, said) = {
            let farewell = self.frames.as_deref()?.farewell.as_ref()?;
            (farewell.told, farewell.said)
        };
        if said.is_none() {
            if !sides
                .iter()
                .all(|side| !told[*side] || self.is_settled(*side))
            {
                return Some(TurnOutcome::Wait);
            }
            if let Some(farewell) = self
                .frames
                .as_mut()
                .and_then(|frames| frames.farewell.as_mut())
            {
                farewell.said = Some(now);
            }
        }
        self.hang_up_on_lost_client();
        let is_over = sides
            .iter()
            .all(|side| !told[*side] || self.has_answered(*side));
        let is_sent = !sides.iter().any(|side| self.directions[*side].is_blocked());
        if is_over && is_sent {
            self.end_parting();
            return Some(TurnOutcome::Ended);
        }
        Some(TurnOutcome::Wait)
    }

    /// This side was told, or never will be.
    fn is_settled(&self, side: usize) -> bool {
        let passage = |frames: &super::Frames| {
            let passage = &frames.passages[1 - side];
            let is_lost = passage.lost().is_some() && !passage.has_insert();
            passage.is_told() || passage.is_cut() || is_lost
        };
        self.legs[side].is_broken()
            || self.directions[1 - side].is_over()
            || self.frames.as_deref().is_none_or(passage)
    }

    /// A FIN must not make a frame look complete that the other side is not to see whole.
    pub(super) fn holds_fin(&self, side: usize) -> bool {
        let is_told = |frames: &super::Frames| frames.passages[side].is_told();
        self.is_parting() && !self.frames.as_deref().is_some_and(is_told)
    }

    /// A client that is not understood any more answers with its FIN: see [`Entry::hang_up_on_lost_client`].
    pub(super) fn has_answered(&self, side: usize) -> bool {
        let has_closed = |frames: &super::Frames| {
            let passage = &frames.passages[side];
            let is_lost = side == BACKEND && passage.lost().is_some();
            passage.has_closed() || passage.has_left() || is_lost
        };
        self.legs[side].is_broken()
            || self.directions[side].has_ended()
            || self.frames.as_deref().is_none_or(has_closed)
    }

    /// What is left of the farewell's time.
    pub(super) fn parting_left(&self, now: Tick) -> Option<Duration> {
        let farewell = self.frames.as_deref()?.farewell.as_ref()?;
        let (since, wait) = match farewell.said {
            None => (farewell.began, BOUNDARY_WAIT),
            Some(said) => (said, ANSWER_WAIT),
        };
        Some(Ticks::from(wait).left(now.since(since)))
    }

    /// The coming close is a RST for whoever could not be told: what it has is cut short. For the others it is an end in order,
    /// which TLS says for itself.
    pub(super) fn end_parting(&mut self) {
        let Some(farewell) = self
            .frames
            .as_deref()
            .and_then(|frames| frames.farewell.as_ref())
        else {
            return;
        };
        let told = farewell.told;
        let mut left_out = false;
        for side in [CLIENT, BACKEND] {
            let is_told = |frames: &super::Frames| frames.passages[1 - side].is_told();
            // What it has not taken ends in the middle of a frame, perhaps that of the Close.
            if !self.frames.as_deref().is_some_and(is_told) || self.owes(side) {
                left_out |= told[side] && !self.legs[side].is_broken();
                self.legs[side].reset();
            } else {
                self.legs[side].finish(true);
            }
        }
        if left_out {
            tracing::debug!(
                id = self.record.id,
                "ended without a close frame: no frame ended in time"
            );
            self.record.without_close();
        }
    }

    /// This side has not taken all that goes to it.
    pub(super) fn owes(&self, side: usize) -> bool {
        self.directions[1 - side].is_blocked() || self.legs[side].held_bytes() > 0
    }

    /// Pings a leg that is silent; ends the session when it does not answer.
    pub(super) fn keep_alive(&mut self, now: Tick) -> Option<TurnOutcome> {
        if !self.may_ping() {
            return None;
        }
        let mut frames = self.frames.take()?;
        let alive = frames.keep_alive(|side| self.taken(side), now);
        self.frames = Some(frames);
        match alive {
            Alive::Yes => None,
            Alive::Asked => Some(TurnOutcome::Again),
            Alive::No(side) => {
                let mut goodbyes = [None, None];
                let code = if side == CLIENT {
                    GOING_AWAY
                } else {
                    UNEXPECTED
                };
                let goodbye = CloseFrame::new(code, "");
                goodbyes[1 - side] = Some(&goodbye);
                self.legs[side].reset();
                if side == BACKEND && self.outlives_a_dead_backend() {
                    return Some(self.lose_backend(Cause::Timeout, now));
                }
                Some(self.farewell(goodbyes, ended_by(side, Cause::Timeout), now))
            }
        }
    }

    /// One that was told Close is to be told nothing more, and its answer is waited for.
    fn may_ping(&self) -> bool {
        !self.is_parting() && !self.is_leaving() && self.can_tell()
    }

    fn taken(&self, side: usize) -> LegProgress {
        let unsent = self.legs[side].unsent_bytes() + self.directions[1 - side].held_bytes();
        let sent = match side {
            CLIENT => self.record.bytes_from_backend,
            _ => self.record.bytes_from_client,
        };
        LegProgress {
            unsent,
            delivered: sent.saturating_sub(unsent as u64),
            is_unread: self.directions[side].is_blocked() || self.legs[side].is_readable(),
        }
    }

    /// Pings the backend once, whichever sides are pinged otherwise: its check says that it is down.
    pub fn ping_backend(&mut self, now: Tick) -> TurnOutcome {
        if !self.may_ping() || self.is_in_gap() {
            return TurnOutcome::Wait;
        }
        let delivered = self.taken(BACKEND).delivered;
        let frames = self.frames.as_deref_mut();
        match frames.is_some_and(|frames| frames.ask(BACKEND, delivered, now)) {
            true => TurnOutcome::Again,
            false => TurnOutcome::Wait,
        }
    }

    /// What each side has said at its end is for the log.
    pub(super) fn note_close_codes(&mut self) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        for (side, passage) in [Side::Client, Side::Backend]
            .into_iter()
            .zip(&mut frames.passages)
        {
            if let Some(code) = passage.take_close_code() {
                self.record.said_close(side, code);
            }
        }
    }

    /// Frames that are not understood any more are not followed any more; the bytes go on.
    pub(super) fn note_lost_frames(&mut self) {
        let lost = self.frames.as_deref().and_then(super::Frames::lost);
        let holds = self.frames.as_deref().is_some_and(super::Frames::holds);
        if let Some(violation) = lost.filter(|_| !self.is_parting() && !holds) {
            tracing::debug!(id = self.record.id, %violation, "websocket frames are not followed any more");
            self.record.lost_frames();
            self.frames = None;
        }
    }
}
