//! What a worker does of what others ask: adopting, answering, ending.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::super::closing::Closing;
use super::super::entry::Turn;
use super::super::frames::Goodbye;
use super::super::inbox::Command;
use super::super::inquiry::Question;
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
        let tick = self.scratch.now;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| entry.part(goodbye, tick))) {
            Ok(Turn::Ended) => self.remove(key),
            Ok(_) => {
                self.queue(key);
                self.bring_sweep_forward(key, now);
            }
            Err(_) => self.end_panicked(key),
        }
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
