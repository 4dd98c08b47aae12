//! Commands of other threads to a worker.

use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use crate::observe::Cause;
use crate::relay::closing_queue::ClosingQueue;
use crate::relay::inbox::WorkerCommand;
use crate::relay::key::SessionKey;
use crate::relay::phase::TurnOutcome;
use crate::relay::query::Query;
use crate::relay::resume_policy::NewBackend;
use crate::relay::session::Session;
use crate::relay::side::BACKEND;
use crate::relay::websocket::close_frame::CloseFrame;

impl Worker {
    /// Carries out all commands that have come. False: stop.
    pub(super) fn handle_commands(&mut self, now: Instant) -> bool {
        let tick = self.scratch.now;
        let mut goes_on = true;
        for command in self.inbox.take() {
            match command {
                WorkerCommand::Adopt(session) => self.adopt(*session, now),
                WorkerCommand::Accepted(on_accept, socket, peer) => {
                    self.begin_accepted(&*on_accept, socket, peer, now);
                }
                WorkerCommand::Listen(listener) => self.listen(listener),
                WorkerCommand::ResumeAccept(number) => self.resume_accept(number),
                WorkerCommand::Unlisten {
                    listener,
                    queued,
                    done,
                } => {
                    self.unlisten(listener, queued, now);
                    // Whoever asked may have left.
                    let _ = done.send(());
                }
                WorkerCommand::Query(query) => self.answer(query, now),
                WorkerCommand::Freeze(freeze) => self.freeze(freeze),
                WorkerCommand::Thaw(thawing) => self.thaw(thawing, now),
                WorkerCommand::AdoptMoved(adoption) => self.adopt_moved(*adoption, now),
                WorkerCommand::Close(key, frame) => self.close(key, &frame, now),
                WorkerCommand::PingBackend(key) => self.ping_backend(key, now),
                WorkerCommand::Migrate(key, frame) => {
                    self.command(key, now, |session| session.migrate(&frame, tick));
                }
                WorkerCommand::LossJudged(key, is_lost) => {
                    self.command(key, now, |session| session.take_verdict(is_lost));
                }
                WorkerCommand::Attach(key, backend) => self.attach(key, *backend, now),
                WorkerCommand::GiveUpMigration(key) => {
                    self.command(key, now, |session| session.give_up_migration(tick));
                }
                WorkerCommand::CloseAll(spread, frame) => {
                    self.leave_set_ups();
                    let keys = self.table.keys();
                    self.closing = Some(ClosingQueue::new(keys, spread, frame, now));
                }
                WorkerCommand::Stop => goes_on = false,
            }
        }
        if !goes_on {
            self.stop_all();
        }
        goes_on
    }

    fn answer(&mut self, query: Query, now: Instant) {
        let frame = query.close_frame();
        for key in query.run(&mut self.table, self.scratch.now) {
            if let Some(frame) = &frame {
                self.close(key, frame, now);
            }
        }
    }

    /// Ends the sessions that are due where all are to be ended.
    pub(super) fn close_due(&mut self, now: Instant) {
        while let Some((key, frame)) = self.closing.as_mut().and_then(|closing| closing.due(now)) {
            self.close(key, &frame, now);
        }
    }

    /// Ends a session, which may take a while where it is sent a Close.
    fn close(&mut self, key: SessionKey, frame: &Arc<CloseFrame>, now: Instant) {
        let tick = self.scratch.now;
        self.command(key, now, |session| session.begin_close(frame, tick));
    }

    /// Carries out a command to one session. One that is gone does nothing.
    fn command(
        &mut self,
        key: SessionKey,
        now: Instant,
        action: impl FnOnce(&mut Session) -> TurnOutcome,
    ) {
        match self.guarded(key, |session, _| action(session)) {
            Some(TurnOutcome::Ended(end)) => self.remove(key, end),
            Some(_) => self.queue_and_schedule(key, now),
            None => {}
        }
    }

    fn ping_backend(&mut self, key: SessionKey, now: Instant) {
        let tick = self.scratch.now;
        self.command(key, now, |session| session.ping_backend(tick));
        if let Some(session) = self.table.get(key) {
            // Its answer is awaited for less time than the sweep may sleep.
            let due = session.due_in(tick);
            self.sweep.schedule(now, due);
        }
    }

    /// Gives a session another backend. Where it is gone, or wants none, the backend is closed.
    fn attach(&mut self, key: SessionKey, backend: NewBackend, now: Instant) {
        let attached = self.guarded(key, |session, scratch| {
            let attached = session.attach(backend, scratch);
            attached.map(|()| session.leg(BACKEND).raw_fd())
        });
        let Some(Ok(fd)) = attached else {
            return;
        };
        if let Err(error) = self.register(key, BACKEND, fd) {
            tracing::warn!(%error, "another backend cannot be watched; its connection is reset");
            return self.reset(key, Cause::Error);
        }
        self.queue_and_schedule(key, now);
    }

    fn stop_all(&mut self) {
        self.stop_set_ups();
        for key in self.table.keys() {
            if let Some(session) = self.table.get(key) {
                let end = session.close(Cause::Stop);
                self.remove(key, end);
            }
        }
    }
}
