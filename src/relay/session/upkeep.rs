//! What happens to an entry between its events: its deadlines, and what is done now and then while it lives. The sweep
//! asks for both.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::clock::{Tick, Ticks};
use super::super::connect_handler::ConnectFailure;
use super::super::direction::Direction;
use super::super::leg::Leg;
use super::super::scratch::Scratch;
use super::{BACKEND, CLIENT, Session, TurnOutcome};
use crate::observe::{Cause, Phase, Side, Termination};

/// A TLS session silent for so long gives up its expanded keys (1.2 KB); a message then pays 164 ns to make them again.
const COOL_AFTER: Duration = Duration::from_secs(10);
/// A reader that leaves a pipe full for so long is slow: its pipe is to serve others.
const FREE_PIPE_AFTER: Duration = Duration::from_secs(1);
/// Pings are sent to about this precision.
const PING_PRECISION: Duration = Duration::from_millis(500);

impl Session {
    /// What is left until it is ended if nothing happens.
    fn left(&self, now: Tick) -> Duration {
        self.timeout().left(now.since(self.last_activity))
    }

    /// What is left until it is to be looked at after its adoption: a timeout may be shorter than that of the connect.
    pub fn first_look_in(&self, now: Tick) -> Duration {
        self.due_in(now).min(self.idle_timeout.into())
    }

    /// What is left until it is to be looked at: the deadline, or before it a line of the log, or a pipe to be freed.
    pub fn due_in(&self, now: Tick) -> Duration {
        let due = [
            Some(self.left(now)),
            self.life_left(),
            self.record.interval_due(),
            self.pipe_left(now),
            self.parting_left(now),
            self.answers_left(now),
            self.change_left(now),
            self.ping_due_in(now),
        ];
        due.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// What is left of a bounded life.
    fn life_left(&self) -> Option<Duration> {
        let is_bounded = self.lifetime < Ticks::MAX;
        is_bounded.then(|| self.lifetime.left(self.record.age().into()))
    }

    /// No more often than each second: a sweep looks at everybody.
    fn ping_due_in(&self, now: Tick) -> Option<Duration> {
        let due = self.frames.as_deref()?.ping_due_in(now)?;
        (!self.is_parting()).then_some(due.max(PING_PRECISION))
    }

    fn pipe_left(&self, now: Tick) -> Option<Duration> {
        let since = self.directions.iter().filter_map(Direction::pipe_since);
        since
            .map(|since| Ticks::from(FREE_PIPE_AFTER).left(now.since(since)))
            .min()
    }

    /// Whether its deadline is nearer than the idle timeout that the worker's sweep goes by.
    pub fn is_urgent(&self) -> bool {
        self.held > 0
            || self.is_parting()
            || self.is_changing()
            || self.is_opening()
            || self.is_half_over()
    }

    fn timeout(&self) -> Ticks {
        match self.role.early() {
            Some(early) if early.opening => early.origin.connect_timeout().into(),
            _ if self.is_half_over() => self.fin_timeout,
            _ => self.idle_timeout,
        }
    }

    fn is_half_over(&self) -> bool {
        self.resetting.is_some()
            || self.directions.iter().any(Direction::has_ended)
            || self.legs.iter().any(Leg::is_broken)
    }

    /// What becomes of it if a deadline of its is over.
    pub fn overdue(&mut self, now: Tick) -> Option<TurnOutcome> {
        if let Some(left) = self.answers_left(now) {
            return left.is_zero().then_some(TurnOutcome::Again);
        }
        if let Some(left) = self.parting_left(now) {
            return left.is_zero().then(|| {
                self.end_parting();
                TurnOutcome::Ended
            });
        }
        if let Some(turn) = self.change_overdue(now).or_else(|| self.keep_alive(now)) {
            return Some(turn);
        }
        if self.is_established() && self.life_left().is_some_and(|left| left.is_zero()) {
            return Some(self.time_out(now));
        }
        self.left(now).is_zero().then(|| self.expire(now))
    }

    /// At its deadline. While the kernel still delivers what was written, a peer is
    /// slow, not gone. What is cut short is reset, so that it cannot look complete.
    fn expire(&mut self, now: Tick) -> TurnOutcome {
        if self.is_opening() {
            return TurnOutcome::ConnectFailed(ConnectFailure::ConnectTimeout);
        }
        let unsent = u32::try_from(self.unsent_bytes()).unwrap_or(u32::MAX);
        let before = self.unsent_before.map_or(u32::MAX, NonZeroU32::get);
        if let Some(unsent) = NonZeroU32::new(unsent).filter(|unsent| unsent.get() < before) {
            self.unsent_before = Some(unsent);
            self.last_activity = now;
            return TurnOutcome::Wait;
        }
        if self.frames.is_some() && self.can_tell() {
            return self.time_out(now);
        }
        if self.is_half_over() {
            self.reset_cut_short();
        }
        let fault = self.end.filter(|end| end.how != Cause::Fin);
        self.close(Cause::Timeout);
        self.end = fault.or(self.end);
        TurnOutcome::Ended
    }

    /// Ends the entry by our own decision: a quiet session with a FIN, one that is cut short with a RST.
    pub fn close(&mut self, how: Cause) {
        if self.is_opening() || !self.is_quiet() {
            self.reset_cut_short();
        }
        let phase = match self.is_opening() {
            true => Phase::Connect,
            false => Phase::Relay,
        };
        self.end = Some(Termination::new(Side::Evenkeel, phase, how));
    }

    /// The coming close is a RST for each leg that has not been told the end of what goes to it.
    fn reset_cut_short(&self) {
        for side in [CLIENT, BACKEND] {
            if !self.directions[side].is_finished() {
                self.legs[1 - side].reset();
            }
        }
    }

    /// True when everything that came from either side has been delivered.
    fn is_quiet(&self) -> bool {
        self.unsent_bytes() == 0
            && !self.directions.iter().any(Direction::is_blocked)
            && !self.legs.iter().any(Leg::is_readable)
            && !self.legs.iter().any(Leg::is_within_record)
    }

    fn unsent_bytes(&self) -> usize {
        self.legs.iter().map(Leg::unsent_bytes).sum()
    }

    /// What is done now and then while it lives: the counters and the log kept up to date, what it does not need let
    /// go, and what only a long life needs set.
    pub fn maintain(&mut self, scratch: &mut Scratch) {
        self.log_when_due();
        if self.idle(scratch.now) >= COOL_AFTER {
            self.legs.iter_mut().for_each(Leg::drop_keys);
        }
        if self
            .pipe_left(scratch.now)
            .is_some_and(|left| left.is_zero())
        {
            let [client, backend] = &mut self.directions;
            client.free_pipe(scratch);
            backend.free_pipe(scratch);
            self.account(scratch);
        }
        if !self.settled && !self.is_opening() && !self.is_in_gap() {
            self.settled = true;
            self.legs[BACKEND].settle();
        }
    }

    /// Brings the counters up to date and writes the line of a live connection when it is due.
    fn log_when_due(&mut self) {
        self.record.tally();
        if self
            .record
            .interval_due()
            .is_some_and(|left| left.is_zero())
        {
            self.record.interval();
        }
    }
}
