//! Deadlines of a session, and what is done for it now and then. The worker's sweep asks for both.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::observe::{Cause, Phase, Side, Termination};
use crate::relay::clock::{Tick, Ticks};
use crate::relay::connect_handler::ConnectFailure;
use crate::relay::direction::Direction;
use crate::relay::leg::Leg;
use crate::relay::phase::{SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, SIDES, ended_by_us};

/// A TLS session silent for so long gives up its expanded keys (1.2 KB); a message then pays 164 ns
/// to make them again.
const DROP_KEYS_AFTER: Duration = Duration::from_secs(10);
/// A reader that leaves a pipe full for so long is slow: its pipe is to serve others.
const FREE_PIPE_AFTER: Duration = Duration::from_secs(1);

/// Time that is left.
impl Session {
    /// Until the session is ended if nothing happens.
    fn left(&self, now: Tick) -> Duration {
        self.timeout().left(now.since(self.last_activity))
    }

    fn timeout(&self) -> Ticks {
        match &self.phase {
            SessionPhase::Connecting(handler) => handler.connect_timeout().into(),
            _ if self.is_half_over() => self.fin_timeout,
            _ => self.idle_timeout,
        }
    }

    /// Until the first look after its adoption: a timeout may be shorter than that of the connect.
    pub(crate) fn first_look_in(&self, now: Tick) -> Duration {
        self.due_in(now).min(self.idle_timeout.into())
    }

    /// Until the next look: the deadline, or before it a line of the log, or a pipe to be freed.
    pub(crate) fn due_in(&self, now: Tick) -> Duration {
        let due = [
            Some(self.left(now)),
            self.life_left(),
            self.record.interval_due(),
            self.pipe_left(now),
            self.phase_left(now),
            self.ping_due_in(now),
        ];
        due.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Until the end of a bounded life.
    fn life_left(&self) -> Option<Duration> {
        let is_bounded = self.lifetime < Ticks::MAX;
        is_bounded.then(|| self.lifetime.left(self.record.age().into()))
    }

    fn pipe_left(&self, now: Tick) -> Option<Duration> {
        let since = self.directions.iter().filter_map(Direction::pipe_since);
        since
            .map(|since| Ticks::from(FREE_PIPE_AFTER).left(now.since(since)))
            .min()
    }

    /// Until the end of a phase that has its own bound.
    fn phase_left(&self, now: Tick) -> Option<Duration> {
        match &self.phase {
            SessionPhase::Refusing(refusal) => Some(self.answers_left(refusal, now)),
            SessionPhase::Closing(handshake) => Some(handshake.left(now)),
            _ => self.change_left(now),
        }
    }

    /// Whether its deadline is nearer than the idle timeout that the worker's sweep goes by.
    pub(crate) fn is_urgent(&self) -> bool {
        !matches!(self.phase, SessionPhase::Open | SessionPhase::Unserved(_))
            || self.is_half_over()
            || self.directions.iter().any(Direction::is_accounted)
    }

    fn is_half_over(&self) -> bool {
        matches!(self.phase, SessionPhase::Resetting { .. })
            || self.directions.iter().any(Direction::has_ended)
            || self.legs.iter().any(Leg::is_broken)
    }
}

/// Deadlines that are over.
impl Session {
    /// Does what is due where a deadline is over.
    pub(crate) fn overdue(&mut self, now: Tick) -> Option<TurnOutcome> {
        match &self.phase {
            SessionPhase::Refusing(refusal) => {
                let left = self.answers_left(refusal, now);
                return left.is_zero().then_some(TurnOutcome::Again);
            }
            SessionPhase::Closing(handshake) => {
                let is_over = handshake.left(now).is_zero();
                let end = handshake.end;
                return is_over.then(|| self.end_closing(end));
            }
            SessionPhase::InDoubt(_) | SessionPhase::Migrating(_) | SessionPhase::Gap(_) => {
                if self.change_left(now).is_some_and(|left| left.is_zero()) {
                    return self.change_overdue(now);
                }
            }
            SessionPhase::Open
            | SessionPhase::Connecting(_)
            | SessionPhase::Unserved(_)
            | SessionPhase::Resetting { .. } => {}
        }
        if let Some(outcome) = self.keep_alive(now) {
            return Some(outcome);
        }
        let has_lived = !matches!(
            self.phase,
            SessionPhase::Connecting(_) | SessionPhase::Resetting { .. }
        );
        if has_lived && self.life_left().is_some_and(|left| left.is_zero()) {
            return Some(self.time_out(now));
        }
        self.left(now).is_zero().then(|| self.expire(now))
    }

    /// Ends the session at its deadline. While the kernel still delivers bytes, a peer is slow, not
    /// gone. A stream that is cut short is reset, so that it cannot look complete.
    fn expire(&mut self, now: Tick) -> TurnOutcome {
        if self.phase.is_connecting() {
            return TurnOutcome::ConnectFailed(ConnectFailure::ConnectTimeout);
        }
        let unsent = u32::try_from(self.unsent_bytes()).unwrap_or(u32::MAX);
        let before = self.unsent_before.map_or(u32::MAX, NonZeroU32::get);
        if let Some(unsent) = NonZeroU32::new(unsent).filter(|unsent| unsent.get() < before) {
            self.unsent_before = Some(unsent);
            self.last_activity = now;
            return TurnOutcome::Wait;
        }
        if self.frames.is_some() && self.can_send_close() {
            return self.time_out(now);
        }
        if self.is_half_over() {
            self.reset_cut_short();
        }
        let timeout = self.close(Cause::Timeout);
        TurnOutcome::Ended(match self.phase {
            SessionPhase::Resetting { end, .. } => end,
            _ => timeout,
        })
    }

    /// Prepares the sockets for an end by our own decision: a quiet session ends with a FIN, one
    /// that is cut short with a RST.
    pub(crate) fn close(&mut self, cause: Cause) -> Termination {
        let is_connecting = self.phase.is_connecting();
        if is_connecting || !self.is_quiet() {
            self.reset_cut_short();
        }
        if is_connecting {
            Termination::new(Side::Evenkeel, Phase::Connect, cause)
        } else {
            ended_by_us(cause)
        }
    }

    /// The coming close is a RST for each leg that has not seen the end of what goes to it.
    fn reset_cut_short(&self) {
        for side in SIDES {
            if !self.directions[side].is_finished() {
                self.legs[1 - side].reset();
            }
        }
    }

    /// Everything that came from either side has been delivered.
    fn is_quiet(&self) -> bool {
        self.unsent_bytes() == 0
            && !self.directions.iter().any(Direction::is_blocked)
            && !self.legs.iter().any(Leg::is_readable)
            && !self.legs.iter().any(Leg::is_within_record)
    }

    fn unsent_bytes(&self) -> usize {
        self.legs.iter().map(Leg::unsent_bytes).sum()
    }
}

/// Upkeep.
impl Session {
    /// Keeps the counters and the log up to date, lets go of what the session does not need, and
    /// sets options that only a long life needs.
    pub(crate) fn maintain(&mut self, scratch: &mut Scratch) {
        self.record.tally();
        let interval = self.record.interval_due();
        if interval.is_some_and(|left| left.is_zero()) {
            self.record.interval();
        }
        if self.idle(scratch.now) >= DROP_KEYS_AFTER {
            self.legs.iter_mut().for_each(Leg::drop_keys);
        }
        let pipe = self.pipe_left(scratch.now);
        if pipe.is_some_and(|left| left.is_zero()) {
            for direction in &mut self.directions {
                direction.free_pipe(scratch);
            }
            self.account(scratch);
        }
        if !matches!(
            self.phase,
            SessionPhase::Connecting(_) | SessionPhase::Gap(_)
        ) {
            self.legs[BACKEND].prepare_long_life();
        }
    }
}
