//! The way into a worker: commands of other threads, and counts that they may read without asking.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use tokio::sync::oneshot;

use super::accept::{OnAccept, OpenListener};
use super::key::SessionKey;
use super::moved::{Adoption, Freeze, Thawing};
use super::new_session::NewSession;
use super::query::Query;
use super::resume_policy::NewBackend;
use super::websocket::close_frame::CloseFrame;
use crate::net::Peer;

/// Command to a worker.
pub(super) enum WorkerCommand {
    Adopt(Box<NewSession>),
    Listen(OpenListener),
    /// The listener of that number accepts again.
    ResumeAccept(u32),
    Unlisten {
        listener: u32,
        /// Connections that are still taken from the kernel's queue.
        queued: u32,
        done: oneshot::Sender<()>,
    },
    /// A connection that another worker has accepted.
    Accepted(Arc<dyn OnAccept>, OwnedFd, Peer),
    /// Looks at a part of the table; perhaps ends the sessions that it finds.
    Query(Query),
    /// Takes the next sessions out of the worker's care.
    Freeze(Freeze),
    /// Gives one of them back.
    Thaw(Thawing),
    /// A session of another relay.
    AdoptMoved(Box<Adoption>),
    /// Ends one session.
    Close(SessionKey, Arc<CloseFrame>),
    /// Pings the backend of one session.
    PingBackend(SessionKey),
    /// Takes one session from its backend.
    Migrate(SessionKey, Arc<CloseFrame>),
    /// Tells whether the backend that has ended a session is lost to it.
    LossJudged(SessionKey, bool),
    /// Another backend for a session that has lost its own.
    Attach(SessionKey, Box<NewBackend>),
    /// There is none for it.
    GiveUpMigration(SessionKey),
    /// Ends every session, evenly over this time; later ones at once when it is over.
    CloseAll(Duration, Arc<CloseFrame>),
    Stop,
}

/// Commands to a worker, and counts that others may read without asking it.
///
/// It has no cap of its own, as a command that is turned away would be a lost connection or
/// somebody who waits for ever. Its senders bound it; a worker takes all of it once in each round
/// of events:
/// - `Adopt`, `Accepted`: one for each session on its way here. They are in `live`, and all of it
///   in `max_connections`.
/// - `Attach`, `GiveUpMigration`: the end of a search; a session has one at a time.
/// - `LossJudged`: the end of a wait; a session has one at a time.
/// - `Close`, `Migrate`: one for each session and job. A job's next look at the table is a `Query`
///   behind them, which finds those sessions closing; of jobs there are `jobs::MAX_RUNNING` of each
///   origin.
/// - `PingBackend`: one for each session of a backend whose check has taken it down, a portion at a
///   time.
/// - `Query`: one for each job, and for each connection of the admin and the metrics endpoint
///   (`MAX_ENDPOINT_CONNECTIONS`): who asks waits for the answer. A client that hangs up leaves its
///   query behind until the next round.
/// - `Listen`, `ResumeAccept`, `Unlisten`: one of each for a listener; a `ResumeAccept` answers a
///   pause.
/// - `Freeze`: one at a time, of the upgrade that moves sessions; `Thaw`: at most a batch of them.
/// - `AdoptMoved`: one for each session on its way here, which `live` counts.
/// - `CloseAll`, `Stop`: once in a process's life.
pub(super) struct Inbox {
    /// `None`: the worker has ended.
    commands: Mutex<Option<VecDeque<WorkerCommand>>>,
    waker: Waker,
    /// Live sessions, and those on their way here.
    pub live: AtomicUsize,
    /// Bytes that the sessions hold for peers that do not take them; as of the latest round of
    /// events.
    pub held_bytes: AtomicUsize,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            commands: Mutex::new(Some(VecDeque::new())),
            waker,
            live: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
        }
    }

    /// Sends a command. A worker that has ended drops it with all that it holds.
    pub(super) fn send(&self, command: WorkerCommand) {
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

    /// Takes all commands that were sent since the last call.
    pub(super) fn take(&self) -> VecDeque<WorkerCommand> {
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
