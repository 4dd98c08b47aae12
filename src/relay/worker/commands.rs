//! What a worker does of what others ask: adopting, answering, ending.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::super::clock::Tick;
use super::super::closing::Closing;
use super::super::entry::{BACKEND, Entry, Turn, Unwanted};
use super::super::frames::Goodbye;
use super::super::inbox::Command;
use super::super::inquiry::{Handle, Question};
use super::super::resumption::Successor;
use super::super::table::Key;
use super::Worker;
use crate::observe::How;

impl<L: Send + 'static> Worker<L> {
    /// Carries out what was asked. False: stop.
    pub(super) fn obey(&mut self, now: Instant) -> bool {
        let mut go_on = true;
        for command in self.inbox.take() {
            match command {
                Command::Adopt(session) => self.adopt(*session, now),
                Command::Arrive(arrivals, socket, peer) => {
                    self.arrive(&*arrivals, socket, peer, now);
                }
                Command::Listen(door) => self.listen(door),
                Command::Resume(number) => self.resume(number),
                Command::Unlisten { door, queued, done } => {
                    self.unlisten(door, queued, now);
                    // Whoever asked may have left.
                    let _ = done.send(());
                }
                Command::Inquire(question) => self.answer(question, now),
                Command::Part(key, goodbye) => self.part(key, &goodbye, now),
                Command::Ping(key) => self.ping_backend(key, now),
                Command::Relieve(key, goodbye) => {
                    self.end_by(key, now, |entry, tick| entry.relieve(&goodbye, tick));
                }
                Command::Judged(key, is_lost) => {
                    self.end_by(key, now, |entry, _| entry.judged(is_lost));
                }
                Command::Attach(key, successor) => self.attach(key, *successor, now),
                Command::Forsake(key) => self.end_by(key, now, Entry::forsake),
                Command::PartAll(spread, goodbye) => {
                    self.closing = Some(Closing::new(self.table.keys(), spread, goodbye, now));
                }
                Command::Stop => go_on = false,
            }
        }
        if !go_on {
            self.end_all();
        }
        go_on
    }

    fn answer(&mut self, question: Question, now: Instant) {
        let goodbye = question.goodbye();
        for key in question.ask(&mut self.table, self.scratch.now) {
            if let Some(goodbye) = &goodbye {
                self.part(key, goodbye, now);
            }
        }
    }

    pub(super) fn close_due(&mut self, now: Instant) {
        while let Some((key, goodbye)) = self.closing.as_mut().and_then(|closing| closing.due(now))
        {
            self.part(key, &goodbye, now);
        }
    }

    /// Ends an entry, which may take a while where its ends are told. One that is gone is no more.
    fn part(&mut self, key: Key, goodbye: &Goodbye, now: Instant) {
        self.end_by(key, now, |entry, tick| entry.part(goodbye, tick));
    }

    /// The same by whatever way.
    fn end_by(&mut self, key: Key, now: Instant, end: impl FnOnce(&mut Entry<L>, Tick) -> Turn) {
        let tick = self.scratch.now;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| end(entry, tick))) {
            Ok(Turn::Ended) => self.remove(key),
            Ok(_) => {
                self.queue(key);
                self.bring_sweep_forward(key, now);
            }
            Err(_) => self.end_panicked(key),
        }
    }

    fn ping_backend(&mut self, key: Key, now: Instant) {
        self.end_by(key, now, Entry::ping_backend);
        let tick = self.scratch.now;
        if let Some(entry) = self.table.entry(key) {
            // Its answer is awaited for less time than the sweep may sleep.
            let due = entry.due_in(tick);
            self.sweep.bring_forward(now, due);
        }
    }

    /// Another backend for an entry. For one that is gone, or wants none, it is closed.
    fn attach(&mut self, key: Key, successor: Successor<L>, now: Instant) {
        let scratch = &mut self.scratch;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| entry.attach(successor, scratch))) {
            Ok(Ok(())) => {}
            Ok(Err(Unwanted)) => return,
            Err(_) => return self.end_panicked(key),
        }
        let fd = entry.leg(BACKEND).raw_fd();
        if let Err(error) = self.register(key, BACKEND, fd) {
            tracing::warn!(%error, "another backend cannot be watched; its connection is reset");
            if let Some(entry) = self.table.entry(key) {
                entry.reset();
                entry.close(How::Error);
            }
            return self.remove(key);
        }
        self.queue(key);
        self.bring_sweep_forward(key, now);
    }

    /// An entry's backend has ended it: whether that is a loss is asked.
    pub(super) fn judge(&mut self, key: Key, now: Instant) {
        self.ask(key, now, Entry::judge);
    }

    /// An entry has lost its backend: a search for another one begins.
    pub(super) fn seek(&mut self, key: Key, now: Instant) {
        self.ask(key, now, Entry::seek);
    }

    fn ask(&mut self, key: Key, now: Instant, ask: impl FnOnce(&mut Entry<L>, Handle)) {
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
        self.bring_sweep_forward(key, now);
    }

    fn end_all(&mut self) {
        for key in self.table.keys() {
            self.end(key);
        }
    }

    fn end(&mut self, key: Key) {
        if let Some(entry) = self.table.entry(key) {
            entry.close(How::Stop);
            self.remove(key);
        }
    }
}
