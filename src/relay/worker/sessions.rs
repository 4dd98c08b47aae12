//! A worker's sessions: their begin, their turns and their end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::Worker;
use crate::observe::{Cause, Termination};
use crate::relay::connect_handler::ConnectFailure;
use crate::relay::key::{Handle, SessionKey};
use crate::relay::leg::Readiness;
use crate::relay::new_session::NewSession;
use crate::relay::phase::TurnOutcome;
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT, SIDES};

/// Between two looks at a session that waits for something of which no event tells: a queue to be
/// sent before a RST, room for bytes that it may have to hold.
const LOOK_SPACING: Duration = Duration::from_millis(5);
/// Added for each session that waits, so that looking never takes more than a tenth of the thread.
const LOOK_SPACING_PER_SESSION: Duration = Duration::from_micros(10);

impl Worker {
    pub(super) fn adopt(&mut self, session: NewSession, now: Instant) {
        let key = self.table.reserve();
        let mut session = Session::new(session, self.scratch.now);
        let mut register = |side| self.register(key, side, session.leg(side).raw_fd());
        let registered = register(CLIENT).and_then(|()| register(BACKEND));
        let left = session.first_look_in(self.scratch.now);
        if session.phase.is_connecting() {
            self.connecting.push(key, self.scratch.now, now);
        }
        self.table.put(key, session);
        if let Err(error) = registered {
            tracing::warn!(%error, "a connection cannot be watched and is reset");
            return self.reset(key, Cause::Error);
        }
        if let Some(closing) = &mut self.closing {
            closing.add(key);
        }
        // Its first turn comes with its first events, which the registration brings at once.
        self.sweep.schedule(now, left);
    }

    /// Takes over a session whose sockets are watched under its key already, with the events that
    /// they have had.
    pub(super) fn adopt_watched(
        &mut self,
        key: SessionKey,
        session: NewSession,
        readiness: [Readiness; 2],
        now: Instant,
    ) {
        let mut session = Session::new(session, self.scratch.now);
        for side in SIDES {
            session.leg(side).restore(readiness[side]);
        }
        let left = session.first_look_in(self.scratch.now);
        self.table.put(key, session);
        if let Some(closing) = &mut self.closing {
            closing.add(key);
        }
        self.sweep.schedule(now, left);
        // No event tells of what has come already.
        self.queue_and_schedule(key, now);
    }

    pub(super) fn register(&self, key: SessionKey, side: usize, fd: i32) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Token(key.token(side));
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token, both)
    }

    /// Does something with a session, unless it is gone. A panic ends that session alone.
    pub(super) fn guarded<T>(
        &mut self,
        key: SessionKey,
        action: impl FnOnce(&mut Session, &mut Scratch) -> T,
    ) -> Option<T> {
        let session = self.table.get(key)?;
        let scratch = &mut self.scratch;
        let done = catch_unwind(AssertUnwindSafe(|| action(session, scratch)));
        if done.is_err() {
            tracing::error!("a relayed connection panicked and was reset");
            self.reset(key, Cause::Panic);
        }
        done.ok()
    }

    /// Gives a session its turn.
    pub(super) fn turn(&mut self, key: SessionKey, now: Instant) {
        if let Some(outcome) = self.guarded(key, Session::turn) {
            self.act_on(key, outcome, now);
        }
    }

    /// Takes the next step with a session.
    pub(super) fn act_on(&mut self, key: SessionKey, outcome: TurnOutcome, now: Instant) {
        match outcome {
            TurnOutcome::Wait => self.schedule_sweep(key, now),
            TurnOutcome::Again => self.queue_and_schedule(key, now),
            TurnOutcome::Soon => {
                self.look_soon(key, now);
                self.schedule_sweep(key, now);
            }
            TurnOutcome::Ended(end) => self.remove(key, end),
            TurnOutcome::ConnectFailed(failure) => self.give_back(key, failure),
            // It is others' code that answers, in both cases.
            TurnOutcome::QueryLoss => self.ask(key, now, Session::query_loss),
            TurnOutcome::BackendLost => self.ask(key, now, Session::find_backend),
        }
    }

    pub(super) fn ask(
        &mut self,
        key: SessionKey,
        now: Instant,
        ask: impl FnOnce(&mut Session, Handle),
    ) {
        let worker = self.number;
        let handle = Handle { worker, key };
        if self
            .guarded(key, |session, _| ask(session, handle))
            .is_some()
        {
            self.queue_and_schedule(key, now);
        }
    }

    /// Gives a session a turn soon, behind the others.
    pub(super) fn queue_and_schedule(&mut self, key: SessionKey, now: Instant) {
        if self.table.get(key).is_some_and(Session::queue) {
            self.again.push_back(key);
        }
        self.schedule_sweep(key, now);
    }

    fn look_soon(&mut self, key: SessionKey, now: Instant) {
        if self.table.get(key).is_some_and(Session::await_look) {
            self.soon.push(key);
        }
        let spacing = LOOK_SPACING + LOOK_SPACING_PER_SESSION * self.soon.len() as u32;
        self.look_at.get_or_insert(now + spacing);
    }

    /// Schedules the sweep for a session that has a nearer deadline than the sweep may know:
    /// it is connecting, half-closed or stalled.
    fn schedule_sweep(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.table.get(key)
            && session.is_urgent()
        {
            let left = session.due_in(self.scratch.now);
            self.sweep.schedule(now, left);
        }
    }

    /// Ends a session with a RST to both sides.
    pub(super) fn reset(&mut self, key: SessionKey, cause: Cause) {
        if let Some(session) = self.table.get(key) {
            session.reset();
            let end = session.close(cause);
            self.remove(key, end);
        }
    }

    pub(super) fn remove(&mut self, key: SessionKey, end: Termination) {
        let Some(mut session) = self.table.remove(key) else {
            return;
        };
        session.release(&mut self.scratch);
        self.finish(session, end);
    }

    fn finish(&mut self, session: Session, end: Termination) {
        // The guards and the record run others' code: a panic there must not end this thread.
        let finished = catch_unwind(AssertUnwindSafe(|| session.finish(end)));
        self.workers.uncount(&self.inbox);
        let dropped = finished.and_then(|guards| catch_unwind(AssertUnwindSafe(|| drop(guards))));
        if dropped.is_err() {
            tracing::error!("the end of a connection panicked");
        }
    }

    /// Gives the client of a session back to its handler.
    pub(super) fn give_back(&mut self, key: SessionKey, failure: ConnectFailure) {
        let Some(mut session) = self.table.remove(key) else {
            return;
        };
        session.release(&mut self.scratch);
        let client = session.leg(CLIENT).raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&client)) {
            tracing::warn!(%error, "a connection cannot be given back and is reset");
            session.reset();
            let end = session.close(Cause::Error);
            return self.finish(session, end);
        }
        self.workers.uncount(&self.inbox);
        // It is others' code that takes it.
        if catch_unwind(AssertUnwindSafe(|| session.give_back(failure))).is_err() {
            tracing::error!("giving a connection back panicked");
        }
    }
}
