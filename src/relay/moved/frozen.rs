//! Sessions that were taken out of a worker's care.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::StayReason;
use crate::admission::ConnectionPermit;
use crate::observe::Cause;
use crate::pool::Lease;
use crate::relay::clock::Tick;
use crate::relay::inbox::{Inbox, WorkerCommand};
use crate::relay::query::Cursor;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT};
use crate::relay::workers::Workers;
use crate::wire::moved::MovedSession;

/// The next sessions of a relay that move.
#[derive(Default)]
pub(crate) struct FrozenBatch {
    /// At most [`MAX_BATCH`](super::MAX_BATCH).
    pub sessions: Vec<FrozenSession>,
    /// Those among the slots that were looked at that stay, with the reasons.
    pub stayed: Vec<(u64, StayReason)>,
    /// Where the next call goes on; `None`: all workers were looked at. A session that stayed, or
    /// was thawed, is found again by a call that begins anew.
    pub next: Option<Cursor>,
}

/// A request for the next sessions of one worker.
pub(in crate::relay) struct Freeze {
    /// The first slot to look at.
    pub from: u32,
    /// Sessions, at most.
    pub most: usize,
    /// Ids of those that stay.
    pub declined: Arc<HashSet<u64>>,
    pub reply: oneshot::Sender<FreezeReply>,
}

#[derive(Default)]
pub(in crate::relay) struct FreezeReply {
    pub sessions: Vec<FrozenSession>,
    pub stayed: Vec<(u64, StayReason)>,
    /// The first slot not looked at; `None`: the table ends here.
    pub next: Option<u32>,
}

/// A session that no worker cares for. Dropping it thaws it.
pub(crate) struct FrozenSession {
    /// Absent once it was committed or thawed.
    held: Option<Thawing>,
    /// When it was frozen, by its worker's clock.
    at: Tick,
    inbox: Arc<Inbox>,
}

/// A frozen session on its way back to its worker. Where that has ended, it ends as all of the
/// worker's sessions have.
pub(in crate::relay) struct Thawing {
    session: Option<Box<Session>>,
    inbox: Arc<Inbox>,
    workers: Arc<Workers>,
}

/// Counts of a session that has moved away, which hold until this is dropped: its place at its
/// backend, and in the limits of its listener and source.
#[derive(Debug)]
pub(crate) struct Ghost {
    /// `None`: it was between two backends.
    lease: Option<Lease>,
    _permit: ConnectionPermit,
}

impl Ghost {
    /// Ends it, but for the place at its backend: the new process has that connection, and the
    /// limit is of both.
    pub(crate) fn keep_place(self) {
        if let Some(lease) = self.lease {
            lease.hand_over();
        }
    }
}

impl FrozenSession {
    pub(in crate::relay) fn new(
        session: Box<Session>,
        at: Tick,
        inbox: &Arc<Inbox>,
        workers: &Arc<Workers>,
    ) -> FrozenSession {
        FrozenSession {
            held: Some(Thawing {
                session: Some(session),
                inbox: Arc::clone(inbox),
                workers: Arc::clone(workers),
            }),
            at,
            inbox: Arc::clone(inbox),
        }
    }

    fn session(&self) -> Option<&Session> {
        self.held.as_ref()?.session.as_deref()
    }

    /// The id of its record.
    pub(crate) fn id(&self) -> u64 {
        self.session().map_or(0, |session| session.record.id)
    }

    /// The whole state. Ages are those at the freeze.
    ///
    /// # Errors
    /// A reason that shows only now: thaw it.
    pub(crate) fn export(&self) -> Result<MovedSession, StayReason> {
        let session = self.session().ok_or(StayReason::Closing)?;
        session.export(self.at)
    }

    /// The client's socket, and the backend's where it has one: what `export` says, too.
    pub(crate) fn sockets(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        let Some(session) = self.session() else {
            return (None, None);
        };
        let [client, backend] = [CLIENT, BACKEND].map(|side| session.legs[side].own_socket());
        (client, backend)
    }

    /// Gives it up: another relay has it. Its sockets are closed here, its record is left without
    /// a line, and its counts are kept by the ghost. Call it as soon as the other one has it.
    pub(crate) fn commit(mut self) -> Option<Ghost> {
        let held = self.held.take()?;
        let workers = Arc::clone(&held.workers);
        let guards = held.into_session()?.hand_over();
        workers.uncount(&self.inbox);
        Some(Ghost {
            lease: guards.lease,
            _permit: guards.permit,
        })
    }

    /// Gives it back to its worker, where it goes on: events that came meanwhile are found.
    pub(crate) fn thaw(self) {
        drop(self);
    }
}

impl Drop for FrozenSession {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.inbox.send(WorkerCommand::Thaw(held));
        }
    }
}

impl Thawing {
    /// Takes the session out; the caller cares for it from here on.
    pub(in crate::relay) fn into_session(mut self) -> Option<Box<Session>> {
        self.session.take()
    }
}

impl Drop for Thawing {
    fn drop(&mut self) {
        if let Some(mut session) = self.session.take() {
            let end = session.close(Cause::Stop);
            let guards = session.finish(end);
            self.workers.uncount(&self.inbox);
            drop(guards);
        }
    }
}
