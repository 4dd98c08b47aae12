//! What a worker does of what others ask: adopting, answering, ending.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::super::clock::Tick;
use super::super::closing::Closing;
use super::super::frames::CloseFrame;
use super::super::inbox::WorkerCommand;
use super::super::query::{Handle, Query};
use super::super::resume_policy::NewBackend;
use super::super::session::{BACKEND, MigrationDeclined, Session, TurnOutcome};
use super::super::table::SessionKey;
use super::Worker;
use crate::observe::Cause;

impl Worker {
    /// Carries out what was asked. False: stop.
    pub(super) fn handle_commands(&mut self, now: Instant) -> bool {
        let mut go_on = true;
        for command in self.inbox.take() {
            match command {
                WorkerCommand::Adopt(session) => self.adopt(*session, now),
                WorkerCommand::Arrive(arrivals, socket, peer) => {
                    self.arrive(&*arrivals, socket, peer, now);
                }
                WorkerCommand::Listen(door) => self.listen(door),
                WorkerCommand::Resume(number) => self.resume(number),
                WorkerCommand::Unlisten { door, queued, done } => {
                    self.unlisten(door, queued, now);
                    // Whoever asked may have left.
                    let _ = done.send(());
                }
                WorkerCommand::Inquire(question) => self.answer(question, now),
                WorkerCommand::Close(key, goodbye) => self.close(key, &goodbye, now),
                WorkerCommand::Ping(key) => self.ping_backend(key, now),
                WorkerCommand::Migrate(key, goodbye) => {
                    self.end_by(key, now, |entry, tick| entry.migrate(&goodbye, tick));
                }
                WorkerCommand::Judged(key, is_lost) => {
                    self.end_by(key, now, |entry, _| entry.judged(is_lost));
                }
                WorkerCommand::Attach(key, successor) => self.attach(key, *successor, now),
                WorkerCommand::Forsake(key) => self.end_by(key, now, Session::give_up_migration),
                WorkerCommand::CloseAll(spread, goodbye) => {
                    self.closing = Some(Closing::new(self.table.keys(), spread, goodbye, now));
                }
                WorkerCommand::Stop => go_on = false,
            }
        }
        if !go_on {
            self.end_all();
        }
        go_on
    }

    fn answer(&mut self, question: Query, now: Instant) {
        let goodbye = question.goodbye();
        for key in question.ask(&mut self.table, self.scratch.now) {
            if let Some(goodbye) = &goodbye {
                self.close(key, goodbye, now);
            }
        }
    }

    pub(super) fn close_due(&mut self, now: Instant) {
        while let Some((key, goodbye)) = self.closing.as_mut().and_then(|closing| closing.due(now))
        {
            self.close(key, &goodbye, now);
        }
    }

    /// Ends an entry, which may take a while where its ends are told. One that is gone is no more.
    fn close(&mut self, key: SessionKey, goodbye: &CloseFrame, now: Instant) {
        self.end_by(key, now, |entry, tick| entry.begin_close(goodbye, tick));
    }

    /// The same by whatever way.
    fn end_by(
        &mut self,
        key: SessionKey,
        now: Instant,
        end: impl FnOnce(&mut Session, Tick) -> TurnOutcome,
    ) {
        let tick = self.scratch.now;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| end(entry, tick))) {
            Ok(TurnOutcome::Ended) => self.remove(key),
            Ok(_) => {
                self.queue(key);
                self.schedule_sweep(key, now);
            }
            Err(_) => self.end_panicked(key),
        }
    }

    fn ping_backend(&mut self, key: SessionKey, now: Instant) {
        self.end_by(key, now, Session::ping_backend);
        let tick = self.scratch.now;
        if let Some(entry) = self.table.entry(key) {
            // Its answer is awaited for less time than the sweep may sleep.
            let due = entry.due_in(tick);
            self.sweep.bring_forward(now, due);
        }
    }

    /// Another backend for an entry. For one that is gone, or wants none, it is closed.
    fn attach(&mut self, key: SessionKey, successor: NewBackend, now: Instant) {
        let scratch = &mut self.scratch;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| entry.attach(successor, scratch))) {
            Ok(Ok(())) => {}
            Ok(Err(MigrationDeclined)) => return,
            Err(_) => return self.end_panicked(key),
        }
        let fd = entry.leg(BACKEND).raw_fd();
        if let Err(error) = self.register(key, BACKEND, fd) {
            tracing::warn!(%error, "another backend cannot be watched; its connection is reset");
            if let Some(entry) = self.table.entry(key) {
                entry.reset();
                entry.close(Cause::Error);
            }
            return self.remove(key);
        }
        self.queue(key);
        self.schedule_sweep(key, now);
    }

    /// An entry's backend has ended it: whether that is a loss is asked.
    pub(super) fn judge_loss(&mut self, key: SessionKey, now: Instant) {
        self.ask(key, now, Session::judge_loss);
    }

    /// An entry has lost its backend: a search for another one begins.
    pub(super) fn find_backend(&mut self, key: SessionKey, now: Instant) {
        self.ask(key, now, Session::find_backend);
    }

    fn ask(&mut self, key: SessionKey, now: Instant, ask: impl FnOnce(&mut Session, Handle)) {
        let session = Handle {
            worker: self.number,
            key,
        };
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        // It is others' code that answers.
        if catch_unwind(AssertUnwindSafe(|| ask(entry, session))).is_err() {
            return self.end_panicked(key);
        }
        self.queue(key);
        self.schedule_sweep(key, now);
    }

    fn end_all(&mut self) {
        for key in self.table.keys() {
            self.end(key);
        }
    }

    fn end(&mut self, key: SessionKey) {
        if let Some(entry) = self.table.entry(key) {
            entry.close(Cause::Stop);
            self.remove(key);
        }
    }
}
