//! A relay thread: its epoll, its table, its inbox and its clock.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::entry::{BACKEND, CLIENT, Entry, Turn};
use super::inquiry::Question;
use super::leg::Scratch;
use super::table::{Key, Table};
use super::{Counted, LiveCount, Session, Shared, WorkerHandle};
use crate::observe::How;

/// No key's token: a generation has 31 bits.
const WAKE: Token = Token(usize::MAX);
/// Events taken at once. More only delays the commands.
const EVENTS: usize = 1024;
/// Two looks at all deadlines are at least this far apart: timeouts are kept to this precision.
const SWEEP_SPACING: Duration = Duration::from_millis(50);
/// And this far per thousand entries: looking at all of them costs time.
const SWEEP_SPACING_PER_1000: Duration = Duration::from_millis(20);
/// And never further, so that interval lines switched on by a reload begin soon.
const LONGEST_SWEEP_SPACING: Duration = Duration::from_secs(30);
/// Between two looks at a leg whose queue must be sent before its RST: no event tells of it.
const RESET_POLL: Duration = Duration::from_millis(5);

/// What the set-up plane may ask of a worker.
pub(super) enum Command {
    Adopt(Box<Session>),
    /// Look at some of the table; perhaps end what was found.
    Inquire(Question),
    /// Close every entry, evenly over this time; later ones at once when it is over.
    CloseAll(Duration),
    Stop,
}

/// The way in. Its length is bounded by who sends: one `Adopt` per connection, and those are capped by `max_connections`;
/// questions come from the admin endpoint, which serves few at a time.
pub(super) struct Inbox {
    commands: Mutex<VecDeque<Command>>,
    waker: Waker,
    pub live: LiveCount,
}

impl Inbox {
    pub fn send(&self, command: Command) {
        let was_empty = {
            let mut commands = self.lock();
            commands.push_back(command);
            commands.len() == 1
        };
        // Whoever made it non-empty wakes the worker; it takes everything at once.
        if was_empty && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "relay worker cannot be woken");
        }
    }

    fn take(&self) -> VecDeque<Command> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Command>> {
        match self.commands.lock() {
            Ok(commands) => commands,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

pub(super) fn spawn(number: usize, shared: &Arc<Shared>) -> io::Result<WorkerHandle> {
    let poll = Poll::new()?;
    let inbox = Arc::new(Inbox {
        commands: Mutex::default(),
        waker: Waker::new(poll.registry(), WAKE)?,
        live: LiveCount::default(),
    });
    let worker = Worker {
        poll,
        inbox: Arc::clone(&inbox),
        shared: Arc::clone(shared),
        table: Table::default(),
        scratch: Scratch::new(),
        again: VecDeque::new(),
        soon: Vec::new(),
        look_at: None,
        closing: None,
        next_sweep: None,
    };
    let thread = std::thread::Builder::new()
        .name(format!("relay-{number}"))
        .spawn(move || worker.run())?;
    Ok(WorkerHandle {
        inbox,
        thread: Mutex::new(Some(thread)),
    })
}

struct Worker {
    poll: Poll,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    table: Table,
    scratch: Scratch,
    /// Entries that get a turn now: an event named them, or their last turn ran out of budget.
    again: VecDeque<Key>,
    /// Entries that wait for their queue to be sent.
    soon: Vec<Key>,
    /// When they are looked at.
    look_at: Option<Instant>,
    closing: Option<Closing>,
    /// When deadlines are looked at; `None` with an empty table: an idle worker never wakes.
    next_sweep: Option<Instant>,
}

/// The closing of everything, spread over time.
struct Closing {
    queue: VecDeque<(Instant, Key)>,
    until: Instant,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.wait_at_most(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "relay worker cannot poll");
                    // Nothing is known to bring this about; it must not become a busy loop.
                    std::thread::park_timeout(SWEEP_SPACING);
                }
                continue;
            }
            let now = Instant::now();
            self.announce(&events);
            self.take_turns(now);
            if !self.obey(now) {
                return;
            }
            self.close_due(now);
            self.sweep_due(now);
        }
    }

    fn wait_at_most(&self, now: Instant) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let close = self
            .closing
            .as_ref()
            .and_then(|closing| closing.queue.front())
            .map(|(at, _)| *at);
        [self.look_at, close, self.next_sweep]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    /// Tells every leg what epoll said of it before any of them is read: a RST behind a FIN shows only here, and a
    /// turn of one leg may read the other. Each entry named gets one turn.
    fn announce(&mut self, events: &Events) {
        for event in events {
            if event.token() == WAKE {
                continue;
            }
            let (key, side) = Key::from_token(event.token().0);
            if let Some(entry) = self.table.entry(key) {
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
                if let Some(entry) = self.table.entry(key) {
                    entry.looked_at();
                    self.turn(key, now);
                }
            }
        }
    }

    /// One turn of one entry. A panic in it ends that entry alone.
    fn turn(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.table.entry(key) else {
            return;
        };
        let scratch = &mut self.scratch;
        match catch_unwind(AssertUnwindSafe(|| entry.turn(scratch, now))) {
            Ok(Turn::Wait) => {}
            Ok(Turn::Again) => {
                if entry.queue() {
                    self.again.push_back(key);
                }
            }
            Ok(Turn::Soon) => {
                if entry.look_soon() {
                    self.soon.push(key);
                }
                self.look_at.get_or_insert(now + RESET_POLL);
            }
            Ok(Turn::Ended) => self.remove(key),
            Ok(Turn::GivenBack) => self.give_back(key),
            Err(_) => {
                tracing::error!("a relayed connection panicked and was reset");
                entry.reset();
                entry.close(How::Panic);
                self.remove(key);
                return;
            }
        }
        self.bring_sweep_forward(key, now);
    }

    /// A half-closed entry has a nearer deadline than the sweep may know.
    fn bring_sweep_forward(&mut self, key: Key, now: Instant) {
        if let Some(entry) = self.table.entry(key) {
            let deadline = entry.due(now).max(now + SWEEP_SPACING);
            self.next_sweep = Some(self.next_sweep.map_or(deadline, |next| next.min(deadline)));
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.table.remove(key) {
            // What hangs on the lease and the record is others' code: a panic there must not end this thread.
            let finished = catch_unwind(AssertUnwindSafe(|| entry.finish()));
            if finished.is_err() {
                tracing::error!("the end of a connection panicked");
            }
        }
    }

    fn give_back(&mut self, key: Key) {
        let Some(mut entry) = self.table.remove(key) else {
            return;
        };
        let client = entry.leg(CLIENT).raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&client)) {
            tracing::warn!(%error, "a connection cannot be given back and is reset");
            entry.reset();
            entry.close(How::Error);
            return entry.finish();
        }
        entry.give_back();
    }

    /// Carries out what was asked. False: stop.
    fn obey(&mut self, now: Instant) -> bool {
        let mut go_on = true;
        for command in self.inbox.take() {
            match command {
                Command::Adopt(session) => self.adopt(*session, now),
                Command::Inquire(question) => self.answer(question, now),
                Command::CloseAll(spread) => self.close_all(spread, now),
                Command::Stop => go_on = false,
            }
        }
        if !go_on {
            self.end_all();
        }
        go_on
    }

    fn adopt(&mut self, session: Session, now: Instant) {
        let counted = Counted {
            inbox: Arc::clone(&self.inbox),
            shared: Arc::clone(&self.shared),
        };
        let key = self.table.reserve();
        let mut entry = Box::new(Entry::new(session, counted, now));
        if let Err(error) = self.register(&mut entry, key) {
            tracing::warn!(%error, "a connection cannot be watched and is reset");
            entry.reset();
            entry.close(How::Error);
            self.table.put(key, entry);
            self.remove(key);
            return;
        }
        self.table.put(key, entry);
        if let Some(closing) = &mut self.closing {
            closing.queue.push_back((closing.until, key));
        }
        // Its first turn comes with its first events, which the registration brings at once.
        self.bring_sweep_forward(key, now);
    }

    fn answer(&mut self, question: Question, now: Instant) {
        for key in question.ask(&mut self.table, now) {
            self.end(key, |entry| entry.close(How::Stop));
        }
    }

    fn register(&self, entry: &mut Entry, key: Key) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        for side in [CLIENT, BACKEND] {
            let fd = entry.leg(side).raw_fd();
            let token = Token(key.token(side));
            self.poll
                .registry()
                .register(&mut SourceFd(&fd), token, both)?;
        }
        Ok(())
    }

    fn close_all(&mut self, spread: Duration, now: Instant) {
        let mut keys = self.table.keys();
        fastrand::shuffle(&mut keys);
        let count = keys.len().max(1) as u32;
        let queue = (0u32..)
            .zip(keys)
            .map(|(place, key)| {
                (
                    now + spread.mul_f64(f64::from(place) / f64::from(count)),
                    key,
                )
            })
            .collect();
        self.closing = Some(Closing {
            queue,
            until: now + spread,
        });
    }

    fn close_due(&mut self, now: Instant) {
        while let Some(closing) = &mut self.closing {
            match closing.queue.front() {
                Some((at, key)) if *at <= now => {
                    let key = *key;
                    closing.queue.pop_front();
                    self.end(key, |entry| entry.close(How::Stop));
                }
                _ => return,
            }
        }
    }

    fn end_all(&mut self) {
        for key in self.table.keys() {
            self.end(key, |entry| entry.close(How::Stop));
        }
    }

    fn end(&mut self, key: Key, how: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.table.entry(key) {
            how(entry);
            self.remove(key);
        }
    }

    fn sweep_due(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|next| next <= now) {
            self.sweep(now);
        }
    }

    /// Ends what is past its deadline, writes the log lines that are due, and sets the time of the next look.
    fn sweep(&mut self, now: Instant) {
        let mut expired = Vec::new();
        let mut next: Option<Instant> = None;
        let mut count = 0u32;
        for (key, entry) in self.table.iter_mut() {
            count += 1;
            if entry.deadline() <= now {
                expired.push(key);
                continue;
            }
            entry.log_when_due();
            entry.cool_when_idle(now);
            let due = entry.due(now);
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        let spacing = SWEEP_SPACING + SWEEP_SPACING_PER_1000 * (count / 1000);
        let spacing = spacing.min(LONGEST_SWEEP_SPACING);
        self.next_sweep = next.map(|next| next.clamp(now + spacing, now + LONGEST_SWEEP_SPACING));
        for key in expired {
            if self.table.entry(key).is_some_and(|entry| entry.expire(now)) {
                self.remove(key);
            }
            self.bring_sweep_forward(key, now);
        }
    }
}
