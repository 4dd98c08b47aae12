//! One session inside a worker: two legs, two directions, and the rules of how it ends.
//!
//! A FIN goes on as a FIN behind the bytes before it, and the other direction goes on; a RST goes on as a RST behind
//! the bytes before it, so that a truncated answer cannot look complete. Every live connection is one of these for
//! hours, so it is kept small.

mod close;
mod connecting;
mod gap;
mod loss_query;
mod migration;
mod refuse;
mod resume;
mod role;
mod talk;
mod upkeep;

use std::num::NonZeroU32;
use std::time::Duration;

use self::connecting::Connecting;
pub(super) use self::gap::MigrationDeclined;
use self::resume::ResumeState;
use self::role::Role;
use super::clock::{Tick, Ticks};
use super::connect_handler::ConnectFailure;
use super::direction::{Direction, Flow, Pump};
use super::frames::Frames;
use super::leg::Leg;
use super::query::{ConnectionInfo, Handle, SessionInfo};
use super::resume_policy::ResumePolicy;
use super::scratch::Scratch;
use super::{Framing, SessionGuards};
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};

pub(super) const CLIENT: usize = 0;
pub(super) const BACKEND: usize = 1;

/// What the worker does with an entry after its turn.
#[derive(Debug)]
pub(super) enum TurnOutcome {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// Look again soon: it waits for something of which no event tells.
    Soon,
    /// It is over.
    Ended,
    /// Its backend has ended it without a Close: whether that is a loss is to be asked.
    Judge,
    /// It has lost its backend, and may go on with another one.
    BackendLost,
    /// The backend could not serve it, and nothing was lost: the client's leg goes back to where it came from.
    ConnectFailed(ConnectFailure),
}

pub(super) struct Session {
    record: ConnectionRecord,
    legs: [Leg; 2],
    /// By source: `directions[CLIENT]` goes from the client to the backend.
    directions: [Direction; 2],
    guards: SessionGuards,
    /// The frames of each direction, where they are followed.
    frames: Option<Box<Frames>>,
    role: Role,
    idle_timeout: Ticks,
    fin_timeout: Ticks,
    lifetime: Ticks,
    last_activity: Tick,
    /// What the kernel still held at the last deadline.
    unsent_before: Option<NonZeroU32>,
    /// Bytes that stand in the worker's account of what is held.
    held: u32,
    /// What will be the record's end: the first event that ended the session, a fault before a FIN.
    end: Option<Termination>,
    /// The leg that gets a RST as soon as its queue is sent, at the latest `fin_timeout` after the last activity.
    resetting: Option<u8>,
    /// Stands in the worker's list of those that get a turn.
    queued: bool,
    /// Stands in the worker's list of those that are looked at soon.
    awaited: bool,
    /// Has the options that a long life needs.
    settled: bool,
}

/// What an idle session costs in user space, but for what the records of TLS and the names of an HTTP request take.
const _: () = assert!(size_of::<Session>() <= 248, "an entry has grown");

impl Session {
    pub fn new(session: super::NewSession, now: Tick) -> Self {
        let super::NewSession {
            mut client,
            mut backend,
            limits,
            record,
            guards,
            connect_handler,
            framing,
            connecting,
            resume_policy,
        } = session;
        let mut frames = match framing {
            Framing::Bytes => None,
            Framing::WebSocket(watched) => {
                let read = [&mut client.read, &mut backend.read];
                let takes_leave = |resumption: &ResumePolicy| resumption.settings.on.close_code;
                let takes_leave = resume_policy.as_deref().is_some_and(takes_leave);
                Some(Box::new(Frames::new(&watched, takes_leave, read, now)))
            }
        };
        let role = Role::new(
            connect_handler.map(|origin| Connecting {
                origin,
                opening: connecting,
            }),
            resume_policy
                .zip(frames.as_deref_mut())
                .map(|(resumption, frames)| {
                    let has_spoken = frames.passages[CLIENT].take_spoken();
                    ResumeState::new(*resumption, has_spoken, now)
                }),
        );
        Self {
            record,
            directions: [
                Direction::new(client.read, now),
                Direction::new(backend.read, now),
            ],
            legs: [
                Leg::new(client.socket, client.transport, false),
                Leg::new(backend.socket, backend.transport, connecting),
            ],
            guards,
            frames,
            role,
            idle_timeout: limits.idle_timeout.into(),
            fin_timeout: limits.fin_timeout.into(),
            lifetime: lifetime(limits.max_lifetime),
            last_activity: now,
            unsent_before: None,
            held: 0,
            end: None,
            resetting: None,
            queued: false,
            awaited: false,
            settled: false,
        }
        .counting_what_was_read()
    }

    fn counting_what_was_read(mut self) -> Self {
        self.record.bytes_from_client += self.directions[CLIENT].held_bytes() as u64;
        self.record.bytes_from_backend += self.directions[BACKEND].held_bytes() as u64;
        self
    }

    pub fn record(&self) -> &ConnectionRecord {
        &self.record
    }

    /// Not before its backend's leg is connected.
    pub fn is_established(&self) -> bool {
        !self.is_opening()
    }

    fn is_opening(&self) -> bool {
        self.role.early().is_some_and(|early| early.opening)
    }

    /// Since the last byte either way.
    pub fn idle(&self, now: Tick) -> Duration {
        now.since(self.last_activity).into()
    }

    /// As the operator sees it.
    pub fn describe(&self, now: Tick) -> ConnectionInfo {
        ConnectionInfo {
            summary: self.record.summary(),
            idle: self.idle(now),
            tls: self.legs[CLIENT].is_tls(),
        }
    }

    /// Brings the counters up to date.
    pub fn tally(&mut self) {
        self.record.tally();
    }

    /// As a job needs it.
    pub fn standing(&self, handle: Handle, now: Tick) -> SessionInfo {
        SessionInfo {
            handle,
            idle: self.idle(now),
            is_parting: self.is_parting(),
            is_changing: self.is_changing(),
            age: self.record.age(),
            is_told: self.frames.is_some(),
            is_resumable: self.may_move(),
        }
    }

    /// True unless it waits for a turn already.
    pub fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    pub fn is_queued(&self) -> bool {
        self.queued
    }

    /// True unless it is looked at soon already.
    pub fn look_soon(&mut self) -> bool {
        !std::mem::replace(&mut self.awaited, true)
    }

    /// It is being looked at.
    pub fn looked_at(&mut self) {
        self.awaited = false;
    }

    pub fn leg(&mut self, side: usize) -> &mut Leg {
        &mut self.legs[side & 1]
    }

    /// Moves what can be moved and finds out whether the session is over.
    pub fn turn(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        self.queued = false;
        #[cfg(test)]
        super::tests::panic_if_asked(&self.record);
        let turn = match (self.resetting, self.is_opening()) {
            (Some(victim), _) => self.reset_when_sent(victim),
            (None, true) => self.open(scratch),
            (None, false) if self.is_in_gap() => self.turn_in_gap(scratch),
            (None, false) => self.relay(scratch),
        };
        self.account(scratch);
        self.note_close_codes();
        self.note_lost_frames();
        turn
    }

    fn relay(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let was_faulty = self.is_faulty();
        let had_ended = self.directions.each_ref().map(Direction::has_ended);
        let from_client = match self.is_left_alone() {
            true => Flow::Blocked,
            false => self.pump(CLIENT, scratch),
        };
        self.keep_client_close();
        let flows = [from_client, self.pump(BACKEND, scratch)];
        // What one leg answered to its own peer (a key update, an alert) while the other was read.
        let _ = self.legs[CLIENT].flush() && self.legs[BACKEND].flush();
        // Not short-circuited: each leg's mark is taken.
        if self.legs[CLIENT].take_activity() | self.legs[BACKEND].take_activity()
            && self.frames.as_deref_mut().is_none_or(Frames::take_activity)
        {
            self.last_activity = scratch.now;
            self.unsent_before = None;
        }
        if self.directions.each_ref().map(Direction::has_ended) != had_ended {
            // A FIN is no byte, but what is left after it has its own time.
            self.last_activity = scratch.now;
        }
        self.leave_origin();
        self.note_fins();
        let parting = self.judge_client(scratch.now);
        if let Some(turn) = parting.or_else(|| self.go_on_parting(scratch.now)) {
            return match turn {
                TurnOutcome::Wait if flows.contains(&Flow::OutOfBudget) => TurnOutcome::Again,
                TurnOutcome::Wait if flows.contains(&Flow::Starved) => TurnOutcome::Soon,
                turn => turn,
            };
        }
        if let Some(turn) = self.go_on_leaving(flows[BACKEND], scratch.now) {
            return turn;
        }
        if let Some(turn) = self.pass_on_fault(flows, was_faulty, scratch.now) {
            return turn;
        }
        match flows {
            [_, Flow::Ended] => self.leave_to_another(),
            [Flow::Finished, Flow::Finished] => TurnOutcome::Ended,
            [Flow::OutOfBudget, _] | [_, Flow::OutOfBudget] => TurnOutcome::Again,
            [Flow::Starved, _] | [_, Flow::Starved] => TurnOutcome::Soon,
            _ => self.rest(),
        }
    }

    fn pump(&mut self, side: usize, scratch: &mut Scratch) -> Flow {
        let untouched = self.role.early().is_some() && self.is_untouched();
        let is_last = self.directions[1 - side].is_finished();
        let may_resume = || self.role.resume().is_some() && self.is_resumable();
        let hold_fin = (side == BACKEND && (untouched || may_resume())) || self.holds_fin(side);
        let [client, backend] = &mut self.legs;
        let (from, to, bytes) = match side {
            CLIENT => (client, backend, &mut self.record.bytes_from_client),
            _ => (backend, client, &mut self.record.bytes_from_backend),
        };
        if to.fault().is_some() {
            return Flow::Blocked;
        }
        let before = *bytes;
        let frames = self.frames.as_deref_mut();
        let how = Pump {
            bytes: &mut *bytes,
            frames: frames.map(|frames| frames.way(side)),
            other_held: self.directions[1 - side].held_bytes(),
            hold_fin,
            is_last,
        };
        let flow = self.directions[side].pump(from, to, scratch, how);
        let came = *bytes > before;
        if let Some(frames) = &mut self.frames {
            frames.pumped(side, came, scratch.now);
        }
        if came {
            self.note_speech(side, scratch.now);
        }
        flow
    }

    fn is_faulty(&self) -> bool {
        self.legs.iter().any(|leg| leg.fault().is_some())
    }

    fn note_fins(&mut self) {
        for side in [CLIENT, BACKEND] {
            if self.directions[side].has_ended() && self.end.is_none() {
                self.end = Some(ended_by(side, Cause::Fin));
            }
        }
    }

    /// A broken leg ends the session: what it had sent is delivered, then the other leg is reset.
    fn pass_on_fault(
        &mut self,
        flows: [Flow; 2],
        was_faulty: bool,
        now: Tick,
    ) -> Option<TurnOutcome> {
        let side = [CLIENT, BACKEND]
            .into_iter()
            .find(|side| self.legs[*side].is_broken())?;
        let other = 1 - side;
        let how = self.legs[side].fault().unwrap_or(Cause::Rst);
        if self.legs[other].fault().is_some() {
            self.end = Some(ended_by(side, how));
            return Some(TurnOutcome::Ended);
        }
        let is_over = matches!(flows[side], Flow::Broken | Flow::Finished | Flow::Ended);
        if side == BACKEND && is_over && self.can_be_given_back() {
            return Some(TurnOutcome::ConnectFailed(ConnectFailure::Reset));
        }
        if !is_over {
            // Not all of what it sent before it broke has been delivered. A fault that this very turn found in a
            // write leaves something to read, and no event may tell of it.
            return (self.is_faulty() && !was_faulty).then_some(TurnOutcome::Again);
        }
        self.end = Some(ended_by(side, how));
        self.resetting = Some(other as u8);
        self.last_activity = now;
        Some(self.reset_when_sent(other as u8))
    }

    /// A close with linger 0 throws away what is queued, so it waits until nothing is.
    fn reset_when_sent(&mut self, victim: u8) -> TurnOutcome {
        let leg = self.leg(victim.into());
        if !leg.is_broken() && leg.unsent_bytes() > 0 {
            return TurnOutcome::Soon;
        }
        leg.reset();
        TurnOutcome::Ended
    }

    /// Brings the worker's account of held bytes up to date.
    fn account(&mut self, scratch: &mut Scratch) {
        let held = self
            .directions
            .iter()
            .map(Direction::held_bytes)
            .sum::<usize>()
            + self.legs.iter().map(Leg::held_bytes).sum::<usize>()
            + self.legs.iter().map(Leg::begun_bytes).sum::<usize>()
            + self.role.resume().map_or(0, ResumeState::held_bytes);
        if held != self.held as usize {
            scratch.held.change(self.held as usize, held);
            self.held = u32::try_from(held).unwrap_or(u32::MAX);
        }
    }

    /// It leaves the worker: what it held is no more.
    pub fn release(&mut self, scratch: &mut Scratch) {
        scratch.held.change(self.held as usize, 0);
        self.held = 0;
    }

    /// The coming close of both legs is a RST.
    pub fn reset(&self) {
        self.legs.iter().for_each(Leg::reset);
    }

    /// Closes the sockets and finishes the record; the guards are dropped after that.
    pub fn finish(self) -> SessionGuards {
        let Self {
            legs,
            record,
            end,
            guards,
            role,
            ..
        } = self;
        drop((legs, role));
        record.finish(end.unwrap_or(Termination {
            side: Side::Evenkeel,
            phase: Phase::Relay,
            how: Cause::Error,
        }));
        guards
    }
}

/// With a jitter of a tenth either way; the longest there is for none.
fn lifetime(max: Option<Duration>) -> Ticks {
    let jitter = 0.9 + 0.2 * fastrand::f64();
    max.map_or(Ticks::MAX, |max| max.mul_f64(jitter).into())
}

fn ended_by(side: usize, how: Cause) -> Termination {
    Termination {
        side: match side {
            CLIENT => Side::Client,
            _ => Side::Backend,
        },
        phase: Phase::Relay,
        how,
    }
}
