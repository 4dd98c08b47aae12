//! The way into a worker: what other threads ask of it, and what they may read of it without asking.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use tokio::sync::oneshot;

use super::NewSession;
use super::frames::CloseFrame;
use super::listener::{OnAccept, OpenListener};
use super::query::Query;
use super::resume_policy::NewBackend;
use super::table::SessionKey;
use crate::net::Peer;

/// What the set-up plane may ask of a worker.
pub(super) enum WorkerCommand {
    Adopt(Box<NewSession>),
    Listen(OpenListener),
    /// The door of that number accepts again.
    Resume(u32),
    Unlisten {
        door: u32,
        /// Connections that are still taken from the kernel's queue.
        queued: u32,
        done: oneshot::Sender<()>,
    },
    /// A connection that another worker has accepted.
    Arrive(Arc<dyn OnAccept>, OwnedFd, Peer),
    /// Look at some of the table; perhaps end what was found.
    Inquire(Query),
    /// End one entry.
    Close(SessionKey, Arc<CloseFrame>),
    /// Ping the backend of one entry.
    Ping(SessionKey),
    /// Take one entry from its backend.
    Migrate(SessionKey, Arc<CloseFrame>),
    /// Whether the backend that has ended an entry is lost to it.
    Judged(SessionKey, bool),
    /// Another backend for an entry that has lost its own.
    Attach(SessionKey, Box<NewBackend>),
    /// There is none for it.
    Forsake(SessionKey),
    /// End every entry, evenly over this time; later ones at once when it is over.
    CloseAll(Duration, Arc<CloseFrame>),
    Stop,
}

/// The way in. It has no cap of its own, as a command that is turned away would be a lost connection or somebody who waits for
/// ever. What bounds it is who sends; a worker takes all of it once in each round of events:
/// - `Adopt`, `Arrive`: one for each session on its way here. They are in `live`, and all of it in `max_connections`.
/// - `Attach`, `Forsake`: the end of a search; a session has one at a time.
/// - `Judged`: the end of a wait; a session has one at a time.
/// - `Part`, `Relieve`: one for each session and job. A job's next look at the table is an `Inquire` behind them, which finds
///   those sessions parting; of jobs there are `jobs::MAX_RUNNING` of each origin.
/// - `Ping`: one for each session of a backend whose check has taken it down, a portion at a time.
/// - `Inquire`: one for each job, and for each connection of the admin and the metrics endpoint (`MAX_ENDPOINT_CONNECTIONS`): who
///   asks waits for the answer. A client that hangs up leaves its question behind until the next round.
/// - `Listen`, `Resume`, `Unlisten`: one of each for a door, of which a listener has one; a `Resume` answers a pause.
/// - `PartAll`, `Stop`: once in a process's life.
pub(super) struct Inbox {
    /// `None`: the worker has ended.
    commands: Mutex<Option<VecDeque<WorkerCommand>>>,
    waker: Waker,
    /// Live sessions, and those on their way here.
    pub live: AtomicUsize,
    /// Bytes that the entries hold for peers that do not take them; as of the latest round of events.
    pub held_bytes: AtomicUsize,
}

impl Inbox {
    pub fn new(waker: Waker) -> Self {
        Self {
            commands: Mutex::new(Some(VecDeque::new())),
            waker,
            live: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
        }
    }

    /// A command to a worker that has ended is dropped, and with it what it holds.
    pub fn send(&self, command: WorkerCommand) {
        let was_empty = match &mut *self.lock() {
            Some(commands) => {
                commands.push_back(command);
                commands.len() == 1
            }
            None => false,
        };
        // Whoever made it non-empty wakes the worker; it takes everything at once.
        if was_empty && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "relay worker cannot be woken");
        }
    }

    /// All that was sent since the last time.
    pub fn take(&self) -> VecDeque<WorkerCommand> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<WorkerCommand>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes an inbox when its worker ends, by whatever way.
pub(super) struct CloseInbox(pub Arc<Inbox>);

impl Drop for CloseInbox {
    fn drop(&mut self) {
        let left = self.0.lock().take();
        // Behind the lock: what a command holds may send one.
        drop(left);
    }
}
