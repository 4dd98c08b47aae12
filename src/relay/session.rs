//! One session inside a worker: two legs, two directions, and the phase that it is in.
//!
//! A FIN goes on as a FIN behind the bytes before it, and the other direction goes on. A RST goes
//! on as a RST behind the bytes before it, so that a truncated answer cannot look complete. Every
//! live connection is one of these for hours, so it is kept small.

use std::num::NonZeroU32;
use std::time::Duration;

use super::clock::{Tick, Ticks};
use super::connect_handler::ConnectFailure;
use super::direction::{Direction, Flow, Pump};
use super::handoff::SessionGuards;
use super::info::{ConnectionInfo, SessionInfo};
use super::key::Handle;
use super::leg::Leg;
use super::new_session::{Framing, NewSession};
use super::phase::{SessionPhase, TurnOutcome};
use super::scratch::Scratch;
use super::side::{BACKEND, CLIENT, SIDES, ended_by, named};
use super::websocket::frames::Frames;
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};

pub(super) struct Session {
    pub record: ConnectionRecord,
    pub legs: [Leg; 2],
    /// `directions[CLIENT]` goes from the client to the backend.
    pub directions: [Direction; 2],
    pub guards: SessionGuards,
    /// Frames of a WebSocket, while they are followed.
    pub frames: Option<Box<Frames>>,
    pub phase: SessionPhase,
    pub idle_timeout: Ticks,
    pub fin_timeout: Ticks,
    pub lifetime: Ticks,
    pub last_activity: Tick,
    /// Bytes that the kernel still held at the last deadline.
    pub unsent_before: Option<NonZeroU32>,
    /// The side whose FIN came first.
    pub first_fin: Option<Side>,
    /// Stands in the worker's list of those that get a turn.
    pub is_queued: bool,
    /// Stands in the worker's list of those that are looked at soon.
    pub is_awaited: bool,
}

/// An idle session in user space, without the records of TLS and the names of an HTTP request.
const _: () = assert!(size_of::<Session>() <= 248, "a session has grown");

/// Outcome of moving bytes both ways.
pub(super) struct Transfer {
    /// The flow from each side.
    pub flows: [Flow; 2],
    /// A leg was found to be broken.
    found_fault: bool,
}

impl Transfer {
    /// Nothing more comes from this side.
    pub(super) fn is_over(&self, side: usize) -> bool {
        matches!(
            self.flows[side],
            Flow::Broken | Flow::Finished | Flow::Ended
        )
    }

    /// The outcome of a turn that itself only waits.
    pub(super) fn or_wait(&self) -> TurnOutcome {
        if self.flows.contains(&Flow::OutOfBudget) {
            TurnOutcome::Again
        } else if self.flows.contains(&Flow::Starved) {
            TurnOutcome::Soon
        } else {
            TurnOutcome::Wait
        }
    }
}

impl Session {
    pub(super) fn new(session: NewSession, now: Tick) -> Self {
        let NewSession {
            mut client,
            mut backend,
            limits,
            mut record,
            guards,
            connect_handler,
            framing,
            connecting,
            resume_policy,
        } = session;
        let frames = match framing {
            Framing::Bytes => None,
            Framing::WebSocket(policy) => {
                let read = [&mut client.read, &mut backend.read];
                let resume = resume_policy.map(|policy| *policy);
                Some(Box::new(Frames::new(&policy, resume, read, now)))
            }
        };
        record.bytes_from_client += client.read.len() as u64;
        record.bytes_from_backend += backend.read.len() as u64;
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
            phase: match connect_handler {
                None => SessionPhase::Open,
                Some(handler) if connecting => SessionPhase::Connecting(Box::new(handler)),
                Some(handler) => SessionPhase::Unserved(Box::new(handler)),
            },
            idle_timeout: limits.idle_timeout.into(),
            fin_timeout: limits.fin_timeout.into(),
            lifetime: jittered(limits.max_lifetime),
            last_activity: now,
            unsent_before: None,
            first_fin: None,
            is_queued: false,
            is_awaited: false,
        }
    }

    pub(super) fn record(&self) -> &ConnectionRecord {
        &self.record
    }

    /// Since the last byte either way.
    pub(super) fn idle(&self, now: Tick) -> Duration {
        now.since(self.last_activity).into()
    }

    /// The session as an operator sees it.
    pub(super) fn connection_info(&self, now: Tick) -> ConnectionInfo {
        ConnectionInfo {
            summary: self.record.summary(),
            idle: self.idle(now),
            tls: self.legs[CLIENT].is_tls(),
        }
    }

    /// The session as a job needs it.
    pub(super) fn session_info(&self, handle: Handle, now: Tick) -> SessionInfo {
        SessionInfo {
            handle,
            idle: self.idle(now),
            state: self.phase.state(),
            age: self.record.age(),
            takes_close_frame: self.frames.is_some(),
            is_resumable: self.may_migrate(),
        }
    }

    /// Brings the counters up to date.
    pub(super) fn tally(&mut self) {
        self.record.tally();
    }

    /// True unless it waits for a turn already.
    pub(super) fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    pub(super) fn is_queued(&self) -> bool {
        self.is_queued
    }

    /// True unless it is looked at soon already.
    pub(super) fn await_look(&mut self) -> bool {
        !std::mem::replace(&mut self.is_awaited, true)
    }

    /// Takes note that it is being looked at.
    pub(super) fn end_await(&mut self) {
        self.is_awaited = false;
    }

    pub(super) fn leg(&mut self, side: usize) -> &mut Leg {
        &mut self.legs[side & 1]
    }

    /// Moves what can be moved and finds out whether the session is over.
    pub(super) fn turn(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        self.is_queued = false;
        #[cfg(test)]
        super::tests::panic_if_asked(&self.record);
        let outcome = match &self.phase {
            SessionPhase::Open => self.turn_open(scratch),
            SessionPhase::Connecting(_) => self.turn_connecting(scratch),
            SessionPhase::Unserved(_) => self.turn_unserved(scratch),
            SessionPhase::InDoubt(_) => self.turn_in_doubt(scratch),
            SessionPhase::Migrating(_) => self.turn_migrating(scratch),
            SessionPhase::Gap(_) => self.turn_in_gap(scratch),
            SessionPhase::Refusing(_) => self.turn_refusing(scratch),
            SessionPhase::Closing(_) => self.turn_closing(scratch),
            SessionPhase::Resetting { .. } => self.turn_resetting(),
        };
        self.account(scratch);
        self.note_close_codes();
        self.note_violation();
        outcome
    }

    /// Moves bytes both ways, as far as the legs allow.
    pub(super) fn transfer(&mut self, scratch: &mut Scratch) -> Transfer {
        let was_faulty = self.has_fault();
        let had_ended = self.directions.each_ref().map(Direction::has_ended);
        let from_client = if self.leaves_client_unread() {
            Flow::Blocked
        } else {
            self.pump(CLIENT, scratch)
        };
        if let Some(frames) = &mut self.frames {
            frames.keep_client_close();
        }
        let flows = [from_client, self.pump(BACKEND, scratch)];
        // What one leg answered to its own peer (a key update, an alert) while the other was read.
        let _ = self.legs[CLIENT].flush() && self.legs[BACKEND].flush();
        self.note_activity(scratch.now);
        if self.directions.each_ref().map(Direction::has_ended) != had_ended {
            // A FIN is no byte, but what is left after it has its own time.
            self.last_activity = scratch.now;
        }
        for (side, name) in [(CLIENT, Side::Client), (BACKEND, Side::Backend)] {
            if self.directions[side].has_ended() {
                self.first_fin.get_or_insert(name);
            }
        }
        Transfer {
            flows,
            found_fault: self.has_fault() && !was_faulty,
        }
    }

    pub(super) fn note_activity(&mut self, now: Tick) {
        // Not short-circuited: each leg's mark is taken.
        let was_active = self.legs[CLIENT].take_activity() | self.legs[BACKEND].take_activity();
        if was_active && self.frames.as_deref_mut().is_none_or(Frames::take_activity) {
            self.last_activity = now;
            self.unsent_before = None;
        }
    }

    pub(super) fn pump(&mut self, side: usize, scratch: &mut Scratch) -> Flow {
        let hold_fin = self.holds_fin(side);
        let is_last = self.directions[1 - side].is_finished();
        let [client, backend] = &mut self.legs;
        let (from, to, bytes) = if side == CLIENT {
            (client, backend, &mut self.record.bytes_from_client)
        } else {
            (backend, client, &mut self.record.bytes_from_backend)
        };
        if to.fault().is_some() {
            return Flow::Blocked;
        }
        let before = *bytes;
        let frames = self.frames.as_deref_mut();
        let pump = Pump {
            bytes: &mut *bytes,
            frames: frames.map(|frames| frames.direction(side)),
            other_held: self.directions[1 - side].held_bytes(),
            hold_fin,
            is_last,
        };
        let flow = self.directions[side].pump(from, to, scratch, pump);
        let came = *bytes > before;
        if before == 0 && came {
            self.record.first_byte_passed(named(side));
        }
        if let Some(frames) = &mut self.frames {
            frames.note_pumped(side, came, scratch.now);
            if came {
                frames.note_messages(side, scratch.now);
            }
        }
        flow
    }

    /// Whether the FIN of this side is not to go on yet.
    fn holds_fin(&self, side: usize) -> bool {
        match &self.phase {
            SessionPhase::Unserved(_) => side == BACKEND && self.is_untouched(),
            SessionPhase::Open
            | SessionPhase::InDoubt(_)
            | SessionPhase::Migrating(_)
            | SessionPhase::Gap(_) => side == BACKEND && self.is_resumable(),
            // A FIN must not make a frame look complete that the other side is not to see whole.
            SessionPhase::Refusing(_) | SessionPhase::Closing(_) => {
                !self.has_close_gone_to(1 - side)
            }
            SessionPhase::Connecting(_) | SessionPhase::Resetting { .. } => false,
        }
    }

    fn has_fault(&self) -> bool {
        self.legs.iter().any(|leg| leg.fault().is_some())
    }

    /// The end of a session that ends in order, or whose FIN came before all else.
    pub(super) fn fin_end(&self) -> Option<Termination> {
        let side = self.first_fin?;
        Some(Termination::new(side, Phase::Relay, Cause::Fin))
    }

    /// A broken leg ends the session: bytes that it had sent are delivered, then the other leg is
    /// reset.
    pub(super) fn pass_on_fault(&mut self, transfer: &Transfer, now: Tick) -> Option<TurnOutcome> {
        let side = SIDES
            .into_iter()
            .find(|side| self.legs[*side].is_broken())?;
        let end = ended_by(side, self.legs[side].fault().unwrap_or(Cause::Rst));
        if self.legs[1 - side].fault().is_some() {
            return Some(TurnOutcome::Ended(end));
        }
        if !transfer.is_over(side) {
            // Not all of what it sent before it broke has been delivered. A fault that this very
            // turn found in a write leaves something to read, and no event may tell of it.
            return transfer.found_fault.then_some(TurnOutcome::Again);
        }
        Some(self.reset_side(1 - side, end, now))
    }

    /// Ends the session with a RST for this side.
    pub(super) fn reset_side(&mut self, side: usize, end: Termination, now: Tick) -> TurnOutcome {
        self.phase = SessionPhase::Resetting {
            side: side as u8,
            end,
        };
        self.last_activity = now;
        self.turn_resetting()
    }

    /// Brings the worker's account of held bytes up to date.
    pub(super) fn account(&mut self, scratch: &mut Scratch) {
        let in_gap = match &self.phase {
            SessionPhase::Gap(gap) => gap.held.len(),
            _ => 0,
        };
        for side in SIDES {
            let held = self.directions[side].held_bytes()
                + self.legs[1 - side].held_bytes()
                + self.legs[side].begun_bytes()
                + if side == CLIENT { in_gap } else { 0 };
            self.directions[side].account(held, &mut scratch.held);
        }
    }

    /// Takes what it holds out of the account of the worker that it leaves.
    pub(super) fn release(&mut self, scratch: &mut Scratch) {
        for direction in &mut self.directions {
            direction.account(0, &mut scratch.held);
        }
    }

    /// The coming close of both legs is a RST.
    pub(super) fn reset(&self) {
        self.legs.iter().for_each(Leg::reset);
    }

    /// Closes the sockets and finishes the record; the guards are to be dropped after that.
    pub(super) fn finish(self, end: Termination) -> SessionGuards {
        let Self {
            legs,
            record,
            guards,
            phase,
            ..
        } = self;
        drop((legs, phase));
        record.finish(end);
        guards
    }

    /// Closes the backend's socket and gives the client back to its handler.
    pub(super) fn give_back(self, failure: ConnectFailure) {
        let Self {
            legs: [client, backend],
            record,
            guards,
            phase,
            ..
        } = self;
        drop(backend);
        let end = Termination::new(Side::Backend, Phase::Connect, Cause::Rst);
        let (SessionPhase::Connecting(handler) | SessionPhase::Unserved(handler)) = phase else {
            client.reset();
            drop(client);
            return record.finish(end);
        };
        match client.into_handoff() {
            Some(client) => handler.failed(failure, client, record, guards),
            None => record.finish(end),
        }
    }
}

/// With a jitter of a tenth either way; the longest there is for none.
fn jittered(lifetime: Option<Duration>) -> Ticks {
    let jitter = 0.9 + 0.2 * fastrand::f64();
    lifetime.map_or(Ticks::MAX, |lifetime| lifetime.mul_f64(jitter).into())
}
