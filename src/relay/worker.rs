//! A relay thread: its epoll, its table, its inbox and its clock.

mod commands;
mod doors;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::Clock;
use super::closing::Closing;
use super::connect_handler::ConnectFailure;
use super::connecting_queue::ConnectingQueue;
use super::inbox::{CloseInbox, Inbox};
use super::listener::{OpenListener, door_of};
use super::scratch::Scratch;
use super::session::{BACKEND, CLIENT, Session, TurnOutcome};
use super::sweep::{SLOTS_PER_SLICE, SPACING, Sweep};
use super::table::{SessionKey, SessionTable};
use super::{NewSession, Plane};
use crate::observe::Cause;

/// No key's token: a table never has so many slots.
const WAKE: Token = Token(usize::MAX);
/// Events taken at once. More only delays the commands.
const EVENTS: usize = 1024;
/// Between two looks at an entry that waits for something of which no event tells: a queue to be sent before a RST, room
/// for what it may have to hold.
const LOOK_SPACING: Duration = Duration::from_millis(5);
/// And this much more for each entry that waits, so that looking never takes more than a tenth of the thread.
const LOOK_SPACING_PER_ENTRY: Duration = Duration::from_micros(10);

/// A worker that has its epoll but does not run yet.
pub(super) struct ReadyWorker {
    poll: Poll,
    pub inbox: Arc<Inbox>,
}

/// # Errors
/// The kernel refused an epoll or an eventfd.
pub(super) fn prepare() -> io::Result<ReadyWorker> {
    let poll = Poll::new()?;
    let inbox = Arc::new(Inbox::new(Waker::new(poll.registry(), WAKE)?));
    Ok(ReadyWorker { poll, inbox })
}

impl ReadyWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start(
        self,
        number: usize,
        plane: Arc<Plane>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let origin = Instant::now();
        let clock = Clock::new(origin);
        let worker = Worker {
            poll: self.poll,
            inbox: self.inbox,
            table: SessionTable::default(),
            scratch: Scratch::new(Arc::clone(&plane.max_held), plane.pipes, clock.tick(origin)),
            plane,
            clock,
            doors: Vec::new(),
            again: VecDeque::new(),
            soon: Vec::new(),
            look_at: None,
            closing: None,
            sweep: Sweep::default(),
            opening: ConnectingQueue::default(),
            number: number as u32,
        };
        std::thread::Builder::new()
            .name(format!("relay-{number}"))
            .spawn(move || worker.run())
    }
}

struct Worker {
    poll: Poll,
    inbox: Arc<Inbox>,
    plane: Arc<Plane>,
    table: SessionTable,
    scratch: Scratch,
    clock: Clock,
    doors: Vec<OpenListener>,
    /// Entries that get a turn now: an event named them, or their last turn ran out of budget.
    again: VecDeque<SessionKey>,
    /// Entries that wait for something of which no event tells.
    soon: Vec<SessionKey>,
    /// When they are looked at.
    look_at: Option<Instant>,
    closing: Option<Closing>,
    sweep: Sweep,
    opening: ConnectingQueue,
    /// Its place among the workers.
    number: u32,
}

impl Worker {
    fn run(mut self) {
        // However this ends: nobody is to wait for an answer of a worker that is gone.
        let _closed = CloseInbox(Arc::clone(&self.inbox));
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.wait_at_most();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "relay worker cannot poll");
                    // Nothing is known to bring this about; it must not become a busy loop.
                    std::thread::park_timeout(SPACING);
                }
                continue;
            }
            let now = Instant::now();
            self.scratch.now = self.clock.tick(now);
            self.announce(&events);
            self.take_turns(now);
            self.accept(now);
            if !self.handle_commands(now) {
                return;
            }
            self.close_due(now);
            self.give_up_overdue(now);
            self.sweep_due(now);
            self.publish();
        }
    }

    /// `None`: until something happens. An idle worker with an empty table never wakes.
    fn wait_at_most(&self) -> Option<Duration> {
        if !self.again.is_empty() || self.doors.iter().any(OpenListener::wants_turn) {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let closing = self.closing.as_ref().and_then(Closing::next);
        let due = [
            self.look_at,
            closing,
            self.sweep.due(now),
            self.opening.due(),
        ];
        let next = due.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Tells every leg what epoll said of it before any of them is read: a RST behind a FIN shows only here, and a
    /// turn of one leg may read the other. Each entry named gets one turn.
    fn announce(&mut self, events: &Events) {
        for event in events {
            if event.token() == WAKE {
                continue;
            }
            let (key, side) = SessionKey::from_token(event.token().0);
            if let Some(number) = door_of(key) {
                if let Some(door) = self.door(number) {
                    door.is_ready = true;
                }
            } else if let Some(entry) = self.table.entry(key) {
                entry.leg(side).announced(event);
                if entry.queue() {
                    self.again.push_back(key);
                }
            }
        }
    }

    fn take_turns(&mut self, now: Instant) {
        for _ in 0..self.again.len() {
            if let Some(key) = self.again.pop_front() {
                self.turn(key, now);
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            for key in std::mem::take(&mut self.soon) {
                let Some(entry) = self.table.entry(key) else {
                    continue;
                };
                entry.looked_at();
                // One that waits for a turn anyway gets no second one.
                if !entry.is_queued() {
                    self.turn(key, now);
                }
            }
        }
    }

    /// One turn of one entry. A panic in it ends that entry alone.
    fn turn(&mut self, key: SessionKey, now: Instant) {
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        let scratch = &mut self.scratch;
        match catch_unwind(AssertUnwindSafe(|| entry.turn(scratch))) {
            Ok(TurnOutcome::Wait) => {}
            Ok(TurnOutcome::Again) => self.queue(key),
            Ok(TurnOutcome::Soon) => self.look_soon(key, now),
            Ok(TurnOutcome::Ended) => return self.remove(key),
            Ok(TurnOutcome::ConnectFailed(why)) => return self.give_back(key, why),
            Ok(TurnOutcome::Judge) => return self.judge_loss(key, now),
            Ok(TurnOutcome::BackendLost) => return self.find_backend(key, now),
            Err(_) => return self.end_panicked(key),
        }
        self.schedule_sweep(key, now);
    }

    /// It gets a turn soon, behind the others.
    fn queue(&mut self, key: SessionKey) {
        if self.table.entry(key).is_some_and(Session::queue) {
            self.again.push_back(key);
        }
    }

    fn end_panicked(&mut self, key: SessionKey) {
        if let Some(entry) = self.table.entry(key) {
            tracing::error!("a relayed connection panicked and was reset");
            entry.reset();
            entry.close(Cause::Panic);
            self.remove(key);
        }
    }

    fn look_soon(&mut self, key: SessionKey, now: Instant) {
        if self.table.entry(key).is_some_and(Session::look_soon) {
            self.soon.push(key);
        }
        let spacing = LOOK_SPACING + LOOK_SPACING_PER_ENTRY * self.soon.len() as u32;
        self.look_at.get_or_insert(now + spacing);
    }

    /// An entry that is opening, half-closed or stalled has a nearer deadline than the sweep may know.
    fn schedule_sweep(&mut self, key: SessionKey, now: Instant) {
        if let Some(entry) = self.table.entry(key)
            && entry.is_urgent()
        {
            let left = entry.due_in(self.scratch.now);
            self.sweep.bring_forward(now, left);
        }
    }

    fn remove(&mut self, key: SessionKey) {
        let Some(mut entry) = self.table.remove(key) else {
            return;
        };
        entry.release(&mut self.scratch);
        self.finish(entry);
    }

    fn finish(&mut self, entry: Session) {
        // What hangs on the guards and the record is others' code: a panic there must not end this thread.
        let finished = catch_unwind(AssertUnwindSafe(|| entry.finish()));
        self.plane.uncount(&self.inbox);
        let released = finished.and_then(|guards| catch_unwind(AssertUnwindSafe(|| drop(guards))));
        if released.is_err() {
            tracing::error!("the end of a connection panicked");
        }
    }

    fn give_back(&mut self, key: SessionKey, why: ConnectFailure) {
        let Some(mut entry) = self.table.remove(key) else {
            return;
        };
        entry.release(&mut self.scratch);
        let client = entry.leg(CLIENT).raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&client)) {
            tracing::warn!(%error, "a connection cannot be given back and is reset");
            entry.reset();
            entry.close(Cause::Error);
            return self.finish(entry);
        }
        self.plane.uncount(&self.inbox);
        // It is others' code that takes it.
        if catch_unwind(AssertUnwindSafe(|| entry.give_back(why))).is_err() {
            tracing::error!("giving a connection back panicked");
        }
    }

    fn adopt(&mut self, session: NewSession, now: Instant) {
        let key = self.table.reserve();
        let mut entry = Session::new(session, self.scratch.now);
        let mut register = |side| self.register(key, side, entry.leg(side).raw_fd());
        let registered = register(CLIENT).and_then(|()| register(BACKEND));
        if registered.is_err() {
            entry.reset();
            entry.close(Cause::Error);
        }
        let left = entry.first_look_in(self.scratch.now);
        if !entry.is_established() {
            self.opening.push(key, self.scratch.now, now);
        }
        self.table.put(key, entry);
        if let Err(error) = registered {
            tracing::warn!(%error, "a connection cannot be watched and is reset");
            return self.remove(key);
        }
        if let Some(closing) = &mut self.closing {
            closing.add(key);
        }
        // Its first turn comes with its first events, which the registration brings at once.
        self.sweep.bring_forward(now, left);
    }

    fn register(&self, key: SessionKey, side: usize, fd: i32) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Token(key.token(side));
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token, both)
    }

    /// The next slice of the sweep, if one is due.
    fn sweep_due(&mut self, now: Instant) {
        let Some(first) = self.sweep.begin(now) else {
            return;
        };
        let end = first
            .saturating_add(SLOTS_PER_SLICE)
            .min(self.table.slots());
        for index in first..end {
            let Some(Some((key, _))) = self.table.slot(index) else {
                continue;
            };
            if catch_unwind(AssertUnwindSafe(|| self.maintain(key, now))).is_err() {
                self.end_panicked(key);
            }
        }
        self.sweep.went_on_to(end, self.table.slots(), now);
    }

    /// Gives back those whose connect is overdue and whom another backend is to serve.
    fn give_up_overdue(&mut self, now: Instant) {
        let tick = self.scratch.now;
        for key in self.opening.take_due(tick, now) {
            let Some(entry) = self.table.entry(key).filter(|one| !one.is_established()) else {
                continue;
            };
            // It is others' code that decides.
            match catch_unwind(AssertUnwindSafe(|| entry.give_up_connect(tick))) {
                Ok(Some(TurnOutcome::ConnectFailed(why))) => self.give_back(key, why),
                Ok(_) => self.opening.push(key, tick, now),
                Err(_) => self.end_panicked(key),
            }
        }
    }

    /// Ends an entry that is past its deadline; does for another what is to be done now and then.
    fn maintain(&mut self, key: SessionKey, now: Instant) {
        let tick = self.scratch.now;
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        match entry.overdue(tick) {
            Some(TurnOutcome::Ended) => return self.remove(key),
            Some(TurnOutcome::ConnectFailed(why)) => return self.give_back(key, why),
            Some(TurnOutcome::Judge) => return self.judge_loss(key, now),
            Some(TurnOutcome::BackendLost) => return self.find_backend(key, now),
            Some(TurnOutcome::Again) => self.queue(key),
            Some(TurnOutcome::Wait | TurnOutcome::Soon) | None => {}
        }
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        entry.maintain(&mut self.scratch);
        let left = entry.due_in(tick);
        self.sweep.bring_forward(now, left);
    }

    /// For the metrics.
    fn publish(&self) {
        let held = self.scratch.held.bytes();
        if self.inbox.held_bytes.load(Ordering::Relaxed) != held {
            self.inbox.held_bytes.store(held, Ordering::Relaxed);
        }
    }
}
