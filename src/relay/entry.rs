//! One session inside a worker: two legs, two directions, and the rules of how it ends.
//!
//! A FIN goes on as a FIN behind the bytes before it, and the other direction goes on; a RST goes on as a RST behind
//! the bytes before it, so that a truncated answer cannot look complete.

use std::any::Any;
use std::time::{Duration, Instant};

use super::direction::{Direction, Flow};
use super::inquiry::Connection;
use super::leg::{Leg, Scratch};
use super::{Counted, GiveBack, Policy};
use crate::net::options::unacknowledged_bytes;
use crate::observe::{End, How, Phase, Record, Side};

/// A TLS session silent for so long gives up its expanded keys (1.2 KB); a message then pays 164 ns to make them again.
const COOL_AFTER: Duration = Duration::from_secs(10);

pub(super) const CLIENT: usize = 0;
pub(super) const BACKEND: usize = 1;

/// What the worker does with an entry after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// Look again soon: it waits for the kernel to send what is queued.
    Soon,
    /// It is over.
    Ended,
    /// The backend broke untouched: the client's leg goes back to whoever gave it.
    GivenBack,
}

pub(super) struct Entry {
    legs: [Leg; 2],
    /// By source: `directions[CLIENT]` goes from the client to the backend.
    directions: [Direction; 2],
    policy: Policy,
    record: Box<Record>,
    last_activity: Instant,
    /// Stands in the worker's list of those that get a turn.
    queued: bool,
    /// Stands in the worker's list of those that are looked at soon.
    awaited: bool,
    /// What the kernel still held at the last deadline.
    unsent_before: Option<usize>,
    /// What will be the record's end: the first event that ended the session, a fault before a FIN.
    end: Option<End>,
    /// The leg that gets a RST as soon as its queue is sent, at the latest at `last_activity + fin_timeout`.
    resetting: Option<usize>,
    lease: Box<dyn Any + Send>,
    /// Until the first byte.
    give_back: Option<GiveBack>,
    counted: Counted,
}

impl Entry {
    pub fn new(session: super::Session, counted: Counted, now: Instant) -> Self {
        let super::Session {
            client,
            backend,
            policy,
            record,
            lease,
            give_back,
        } = session;
        Self {
            directions: [Direction::new(client.read), Direction::new(backend.read)],
            legs: [
                Leg::new(client.socket, client.transport),
                Leg::new(backend.socket, backend.transport),
            ],
            policy,
            record,
            last_activity: now,
            queued: false,
            awaited: false,
            unsent_before: None,
            end: None,
            resetting: None,
            lease,
            give_back,
            counted,
        }
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Since the last byte either way.
    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_activity)
    }

    /// As the operator sees it.
    pub fn describe(&mut self, now: Instant) -> Connection {
        self.write_bytes();
        Connection {
            summary: self.record.summary(),
            idle: self.idle(now),
            tls: self.legs[CLIENT].is_tls(),
        }
    }

    /// True unless it waits for a turn already.
    pub fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
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
    pub fn turn(&mut self, scratch: &mut Scratch, now: Instant) -> Turn {
        self.queued = false;
        if let Some(victim) = self.resetting {
            return self.reset_when_sent(victim);
        }
        let before = self.moved();
        let was_faulty = self.is_faulty();
        let flows = [self.pump(CLIENT, scratch), self.pump(BACKEND, scratch)];
        // What one leg answered to its own peer (a key update, an alert) while the other was read.
        let _ = self.legs[CLIENT].flush() && self.legs[BACKEND].flush();
        if self.moved() != before {
            self.last_activity = now;
            self.unsent_before = None;
        }
        if self.bytes() > 0 {
            self.give_back = None;
        }
        self.note_fins();
        if let Some(turn) = self.pass_on_fault(flows, was_faulty, now) {
            return turn;
        }
        match flows {
            [Flow::Finished, Flow::Finished] => Turn::Ended,
            [Flow::OutOfBudget, _] | [_, Flow::OutOfBudget] => Turn::Again,
            _ => Turn::Wait,
        }
    }

    fn pump(&mut self, side: usize, scratch: &mut Scratch) -> Flow {
        let [client, backend] = &mut self.legs;
        let (from, to) = match side {
            CLIENT => (client, backend),
            _ => (backend, client),
        };
        if to.fault().is_some() {
            return Flow::Blocked;
        }
        self.directions[side].pump(from, to, scratch)
    }

    fn is_faulty(&self) -> bool {
        self.legs.iter().any(|leg| leg.fault().is_some())
    }

    fn moved(&self) -> u64 {
        self.legs[CLIENT].moved + self.legs[BACKEND].moved
    }

    fn bytes(&self) -> u64 {
        self.directions[CLIENT].bytes + self.directions[BACKEND].bytes
    }

    fn note_fins(&mut self) {
        for side in [CLIENT, BACKEND] {
            if self.directions[side].has_ended() && self.end.is_none() {
                self.end = Some(ended_by(side, How::Fin));
            }
        }
    }

    /// A broken leg ends the session: what it had sent is delivered, then the other leg is reset.
    fn pass_on_fault(&mut self, flows: [Flow; 2], was_faulty: bool, now: Instant) -> Option<Turn> {
        let side = [CLIENT, BACKEND]
            .into_iter()
            .find(|side| self.legs[*side].is_broken())?;
        let other = 1 - side;
        let how = self.legs[side].fault().unwrap_or(How::Rst);
        if self.legs[other].fault().is_some() {
            self.end = Some(ended_by(side, how));
            return Some(Turn::Ended);
        }
        if side == BACKEND && self.can_be_given_back(flows[BACKEND]) {
            return Some(Turn::GivenBack);
        }
        if !matches!(flows[side], Flow::Broken | Flow::Finished) {
            // Not all of what it sent before it broke has been delivered. A fault that this very turn found in a
            // write leaves something to read, and no event may tell of it.
            return (self.is_faulty() && !was_faulty).then_some(Turn::Again);
        }
        self.end = Some(ended_by(side, how));
        self.resetting = Some(other);
        self.last_activity = now;
        Some(self.reset_when_sent(other))
    }

    /// A backend that broke before a byte went either way, under a client that is still there.
    fn can_be_given_back(&self, flow: Flow) -> bool {
        self.give_back.is_some()
            && flow == Flow::Broken
            && !self.legs[CLIENT].is_broken()
            && !self.directions.iter().any(Direction::has_ended)
    }

    /// Gives the client's leg back.
    pub fn give_back(self) {
        let Self {
            legs: [client, backend],
            record,
            lease,
            give_back,
            counted,
            ..
        } = self;
        drop((backend, lease, counted));
        if let Some(give_back) = give_back {
            give_back(client.into_session_leg(), record);
        }
    }

    /// A close with linger 0 throws away what is queued, so it waits until nothing is.
    fn reset_when_sent(&mut self, victim: usize) -> Turn {
        let leg = &self.legs[victim];
        if !leg.is_broken() && unacknowledged_bytes(leg.as_fd()) > 0 {
            return Turn::Soon;
        }
        leg.reset();
        Turn::Ended
    }

    /// When this entry is to be ended if nothing happens before.
    pub fn deadline(&self) -> Instant {
        self.last_activity + self.timeout()
    }

    /// When the sweep must look at this entry, at the latest.
    pub fn due(&self, now: Instant) -> Instant {
        let deadline = self.deadline();
        self.record
            .interval_due()
            .map_or(deadline, |left| deadline.min(now + left))
    }

    fn timeout(&self) -> Duration {
        if self.is_half_over() {
            self.policy.fin_timeout
        } else {
            self.policy.idle_timeout
        }
    }

    fn is_half_over(&self) -> bool {
        self.resetting.is_some()
            || self.directions.iter().any(Direction::has_ended)
            || self.legs.iter().any(Leg::is_broken)
    }

    /// At its deadline: true when it is to be ended. While the kernel still delivers what was written, a peer is
    /// slow, not gone. What is cut short is reset, so that it cannot look complete.
    pub fn expire(&mut self, now: Instant) -> bool {
        let unsent = self.unsent_bytes();
        if unsent > 0 && self.unsent_before.is_none_or(|before| unsent < before) {
            self.unsent_before = Some(unsent);
            self.last_activity = now;
            return false;
        }
        if self.is_half_over() {
            self.reset_cut_short();
        }
        let fault = self.end.filter(|end| end.how != How::Fin);
        self.close(How::Timeout);
        self.end = fault.or(self.end);
        true
    }

    /// Ends the entry by our own decision: a quiet session with a FIN, one that is cut short with a RST.
    pub fn close(&mut self, how: How) {
        if !self.is_quiet() {
            self.reset_cut_short();
        }
        self.end = Some(End::new(Side::Evenkeel, Phase::Relay, how));
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
            && !self.legs.iter().any(|leg| leg.readable)
    }

    fn unsent_bytes(&self) -> usize {
        self.legs.iter().map(Leg::unsent_bytes).sum()
    }

    /// The coming close of both legs is a RST.
    pub fn reset(&self) {
        self.legs.iter().for_each(Leg::reset);
    }

    /// Makes a session that has been silent for a while small.
    pub fn cool_when_idle(&mut self, now: Instant) {
        if self.idle(now) >= COOL_AFTER {
            self.legs.iter_mut().for_each(Leg::cool);
        }
    }

    /// Brings the counters up to date and writes the line of a live connection when it is due.
    pub fn log_when_due(&mut self) {
        self.write_bytes();
        self.record.tally();
        if self
            .record
            .interval_due()
            .is_some_and(|left| left.is_zero())
        {
            self.record.interval();
        }
    }

    fn write_bytes(&mut self) {
        self.record.bytes_from_client = self.directions[CLIENT].bytes;
        self.record.bytes_from_backend = self.directions[BACKEND].bytes;
    }

    /// Closes the sockets, finishes the record, then lets the lease go.
    pub fn finish(mut self) {
        self.write_bytes();
        let Self {
            legs,
            record,
            end,
            lease,
            counted,
            ..
        } = self;
        drop(legs);
        record.finish(end.unwrap_or(End {
            side: Side::Evenkeel,
            phase: Phase::Relay,
            how: How::Error,
        }));
        drop(counted);
        drop(lease);
    }
}

fn ended_by(side: usize, how: How) -> End {
    End {
        side: match side {
            CLIENT => Side::Client,
            _ => Side::Backend,
        },
        phase: Phase::Relay,
        how,
    }
}
