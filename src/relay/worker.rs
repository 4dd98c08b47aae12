//! A relay thread: its epoll, its table, its inbox and its clock.

mod accepting;
mod commands;
mod moving;
mod sessions;
mod setting_up;
mod sweeping;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use self::setting_up::SetUps;
use super::accept::OpenListener;
use super::clock::Clock;
use super::closing_queue::ClosingQueue;
use super::connecting_queue::ConnectingQueue;
use super::inbox::{CloseInbox, Inbox};
use super::key::SessionKey;
use super::scratch::Scratch;
use super::sweep::{SPACING, Sweep};
use super::table::SessionTable;
use super::workers::Workers;

/// No key's token: a table never has so many slots.
const WAKE: Token = Token(usize::MAX);
/// Events taken at once. More only delays the commands.
const EVENTS: usize = 1024;

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
    pub(super) fn start(
        self,
        number: usize,
        workers: Arc<Workers>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let origin = Instant::now();
        let clock = Clock::new(origin);
        let worker = Worker {
            poll: self.poll,
            inbox: self.inbox,
            table: SessionTable::default(),
            scratch: Scratch::new(workers.buffer_budget(), workers.pipes, clock.tick(origin)),
            workers,
            clock,
            listeners: Vec::new(),
            again: VecDeque::new(),
            soon: Vec::new(),
            look_at: None,
            closing: None,
            sweep: Sweep::default(),
            connecting: ConnectingQueue::default(),
            set_ups: SetUps::default(),
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
    workers: Arc<Workers>,
    table: SessionTable,
    scratch: Scratch,
    clock: Clock,
    listeners: Vec<OpenListener>,
    /// Sessions that get a turn now: an event named them, or their last turn ran out of budget.
    again: VecDeque<SessionKey>,
    /// Sessions that wait for something of which no event tells.
    soon: Vec<SessionKey>,
    /// The time at which they are looked at.
    look_at: Option<Instant>,
    /// Sessions that are to be ended, where all are.
    closing: Option<ClosingQueue>,
    sweep: Sweep,
    connecting: ConnectingQueue,
    /// Connections that are no sessions yet.
    set_ups: SetUps,
    /// The index of this worker.
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
            self.note_events(&events);
            self.take_set_up_turns(now);
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
        if !self.again.is_empty() || self.listeners.iter().any(OpenListener::wants_turn) {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let due = [
            self.look_at,
            self.closing.as_ref().and_then(ClosingQueue::next),
            self.sweep.due(now),
            self.connecting.due(),
            self.set_ups.due(),
        ];
        let next = due.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Tells every leg its events before any of them is read: a RST behind a FIN shows only here,
    /// and a turn of one leg may read the other. Each session named gets one turn.
    fn note_events(&mut self, events: &Events) {
        for event in events {
            if event.token() == WAKE {
                continue;
            }
            let (key, side) = SessionKey::from_token(event.token().0);
            if let Some(number) = key.listener() {
                self.note_ready(number);
            } else if let Some(session) = self.table.get(key) {
                session.leg(side).note_event(event);
                if session.queue() {
                    self.again.push_back(key);
                }
            } else {
                self.set_ups.note_event(key, side, event);
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
                let Some(session) = self.table.get(key) else {
                    continue;
                };
                session.end_await();
                // One that waits for a turn anyway gets no second one.
                if !session.is_queued() {
                    self.turn(key, now);
                }
            }
        }
    }

    /// Publishes its counts for the metrics.
    fn publish(&self) {
        let held = self.scratch.held.bytes();
        if self.inbox.held_bytes.load(Ordering::Relaxed) != held {
            self.inbox.held_bytes.store(held, Ordering::Relaxed);
        }
    }
}
