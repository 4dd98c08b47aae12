//! The handle of the relay plane: all that others ask of it.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::accept::{OnAccept, OpenListener};
use super::filter::Filter;
use super::inbox::{Inbox, WorkerCommand};
use super::info::SessionInfo;
use super::key::{Handle, SessionKey};
use super::listener::RelayListener;
use super::moved::{Adoption, ArrivalError, ArrivingSession, Freeze, FrozenBatch};
use super::new_session::NewSession;
use super::query::{Cursor, MAX_PAGE, Query, QueryAction, TablePage};
use super::resume_policy::NewBackend;
use super::websocket::close_frame::CloseFrame;
use super::workers::Workers;
use super::{leg, pipe, worker};
use crate::net::fds;

/// The relay plane's handle: its workers.
pub(crate) struct Relay {
    workers: Arc<Workers>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    listeners: AtomicU32,
}

/// Start, limits and end.
impl Relay {
    /// Starts the relay threads; `workers` 0 = one per core the process may use. For `max_held` see
    /// [`Relay::set_max_held`].
    ///
    /// # Errors
    /// The kernel refused an epoll, an eventfd or a thread.
    pub(crate) fn start(workers: usize, max_held: usize) -> io::Result<Arc<Self>> {
        let count = worker_count(workers);
        leg::prepare()?;
        let ready = (0..count)
            .map(|_| worker::prepare())
            .collect::<io::Result<Vec<_>>>()?;
        let workers = Arc::new(Workers {
            inboxes: ready.iter().map(|one| Arc::clone(&one.inbox)).collect(),
            live: AtomicU64::new(0),
            max_held: Arc::new(AtomicUsize::new(max_held / count)),
            set_up_held: Arc::default(),
            pipes: pipe::pipes_per_worker(fds::limit(), count),
        });
        let relay = Arc::new(Self {
            workers: Arc::clone(&workers),
            threads: Mutex::default(),
            listeners: AtomicU32::new(0),
        });
        for (number, one) in ready.into_iter().enumerate() {
            match one.start(number, Arc::clone(&workers)) {
                Ok(thread) => relay.threads().push(thread),
                Err(error) => {
                    relay.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(relay)
    }

    /// Bounds the bytes that the sessions together hold for peers that do not take them. At that
    /// limit nothing more is read for a peer that has not taken everything before it.
    pub(crate) fn set_max_held(&self, bytes: usize) {
        let share = bytes / self.workers.inboxes.len();
        self.workers.max_held.store(share, Ordering::Relaxed);
    }

    /// Sessions adopted and not ended.
    pub(crate) fn live(&self) -> u64 {
        self.workers.live.load(Ordering::Relaxed)
    }

    /// Bytes that sessions, and connections in set-up, hold for peers that do not take them.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held = |inbox: &Arc<Inbox>| inbox.held_bytes.load(Ordering::Relaxed) as u64;
        let sessions: u64 = self.workers.inboxes.iter().map(held).sum();
        sessions + self.workers.set_up_held.load(Ordering::Relaxed) as u64
    }

    /// Accounts for a connection in set-up that held `before` and holds `now`.
    pub(crate) fn charge_set_up(&self, before: usize, now: usize) {
        let held = &self.workers.set_up_held;
        if now >= before {
            held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            held.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether all that is held is below its bound.
    pub(crate) fn has_room(&self) -> bool {
        let workers = self.workers.inboxes.len() as u64;
        let share = self.workers.max_held.load(Ordering::Relaxed) as u64;
        self.held_bytes() < share.saturating_mul(workers)
    }

    /// Ends every session at once and joins the threads.
    pub(crate) fn shutdown(&self) {
        for inbox in &self.workers.inboxes {
            inbox.send(WorkerCommand::Stop);
        }
        for thread in self.threads().drain(..) {
            // A worker that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// New sessions.
impl Relay {
    /// Takes a session over.
    pub(crate) fn adopt(&self, session: NewSession) {
        let worker = self.workers.lighter_of_two();
        self.workers.count(worker);
        worker.send(WorkerCommand::Adopt(Box::new(session)));
    }

    /// Accepts from a listening socket from now on. `socket` is a duplicate in no epoll.
    pub(crate) fn listen(&self, socket: OwnedFd, on_accept: Arc<dyn OnAccept>) -> RelayListener {
        let number = self.listeners.fetch_add(1, Ordering::Relaxed) & SessionKey::GENERATION_MASK;
        let worker = number as usize % self.workers.inboxes.len();
        let inbox = Arc::clone(&self.workers.inboxes[worker]);
        let listener = OpenListener::new(number, socket, on_accept);
        inbox.send(WorkerCommand::Listen(listener));
        RelayListener::new(number, inbox)
    }
}

/// Sessions that move to another relay, and from one; see [`moved`](super::moved).
impl Relay {
    /// Freezes the next sessions that can move, at most `most` and at most
    /// [`MAX_BATCH`](super::MAX_BATCH), all of one worker. Begin with the default cursor, and go on
    /// with the batch's own until it has none. A batch may be empty before that.
    ///
    /// # Cancel safety
    /// Dropping the future thaws what was frozen.
    #[cfg(any(test, fuzzing))]
    pub(crate) async fn freeze(&self, from: Cursor, most: usize) -> FrozenBatch {
        self.freeze_others(from, most, &Arc::default()).await
    }

    /// Freezes as `freeze` does, but for the sessions of those ids, which the other
    /// relay has declined. They are not touched.
    ///
    /// # Cancel safety
    /// Dropping the future thaws what was frozen.
    pub(crate) async fn freeze_others(
        &self,
        from: Cursor,
        most: usize,
        declined: &Arc<HashSet<u64>>,
    ) -> FrozenBatch {
        let Some(inbox) = self.workers.inboxes.get(from.worker as usize) else {
            return FrozenBatch::default();
        };
        let (reply, replied) = oneshot::channel();
        inbox.send(WorkerCommand::Freeze(Freeze {
            from: from.slot,
            most,
            declined: Arc::clone(declined),
            reply,
        }));
        // A worker that has stopped has no sessions.
        let reply = replied.await.unwrap_or_default();
        let next = match reply.next {
            Some(slot) => Cursor { slot, ..from },
            None => from.next_worker(),
        };
        let is_more = (next.worker as usize) < self.workers.inboxes.len();
        FrozenBatch {
            sessions: reply.sessions,
            stayed: reply.stayed,
            next: is_more.then_some(next),
        }
    }

    /// Takes in a session of another relay, whose sockets are non-blocking and in no epoll here.
    /// Nobody else may read or write them from here on.
    ///
    /// # Errors
    /// The sockets do not fit the session, which is dropped with them.
    pub(crate) fn adopt_moved(
        &self,
        session: ArrivingSession,
        client: OwnedFd,
        backend: Option<OwnedFd>,
    ) -> Result<(), ArrivalError> {
        let worker = self.workers.lighter_of_two();
        let adoption = Adoption::new(session, (client, backend), worker, &self.workers)?;
        worker.send(WorkerCommand::AdoptMoved(Box::new(adoption)));
        Ok(())
    }
}

/// Single sessions. A command to a session that is gone does nothing.
impl Relay {
    /// Ends a session; a WebSocket is sent the Close.
    pub(crate) fn close_one(&self, session: Handle, frame: &Arc<CloseFrame>) {
        self.send(session, |key| WorkerCommand::Close(key, Arc::clone(frame)));
    }

    /// Takes a session from its backend: another one takes it where it is resumable, or else it is
    /// ended, and a WebSocket sent the Close.
    pub(crate) fn migrate(&self, session: Handle, frame: &Arc<CloseFrame>) {
        self.send(session, |key| {
            WorkerCommand::Migrate(key, Arc::clone(frame))
        });
    }

    /// Pings the backend of a session, which ends when it does not answer in time. Nothing to one
    /// without pings.
    pub(crate) fn ping_backend(&self, session: Handle) {
        self.send(session, WorkerCommand::PingBackend);
    }

    /// Tells whether the backend that ended a session without a Close is lost to it.
    pub(crate) fn judged(&self, session: Handle, is_lost: bool) {
        self.send(session, |key| WorkerCommand::LossJudged(key, is_lost));
    }

    /// Gives a session that has lost its backend another one. If the session is gone meanwhile, the
    /// socket is closed.
    pub(crate) fn attach(&self, session: Handle, backend: NewBackend) {
        self.send(session, |key| WorkerCommand::Attach(key, Box::new(backend)));
    }

    /// Ends a session for which there is no other backend.
    pub(crate) fn give_up_migration(&self, session: Handle) {
        self.send(session, WorkerCommand::GiveUpMigration);
    }

    fn send(&self, session: Handle, command: impl FnOnce(SessionKey) -> WorkerCommand) {
        if let Some(inbox) = self.workers.inboxes.get(session.worker as usize) {
            inbox.send(command(session.key));
        }
    }
}

/// Many sessions.
impl Relay {
    /// Ends every present session, and any adopted later, one by one, evenly over `spread`;
    /// WebSockets are sent the Close.
    pub(crate) fn close_all_within(&self, spread: Duration, frame: &Arc<CloseFrame>) {
        for inbox in &self.workers.inboxes {
            inbox.send(WorkerCommand::CloseAll(spread, Arc::clone(frame)));
        }
    }

    /// The next connections that match, at most `limit` (and at most [`MAX_PAGE`]).
    pub(crate) async fn list(&self, filter: Filter, from: Cursor, limit: usize) -> TablePage {
        self.query(filter, from, limit, QueryAction::Describe).await
    }

    /// Names every connection that matches.
    pub(crate) async fn list_all(&self, filter: Filter) -> Vec<SessionInfo> {
        self.query_all(filter, QueryAction::Name).await
    }

    /// Brings the byte counters of listeners and backends up to date: bytes that live connections
    /// have moved since the latest sweep are in their records only.
    pub(crate) async fn tally(&self) {
        self.query_all(Filter::default(), QueryAction::Tally).await;
    }

    /// Ends every connection that matches; how many there were. WebSockets are sent the Close.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest open.
    pub(crate) async fn close(&self, filter: Filter, frame: &Arc<CloseFrame>) -> u64 {
        let action = QueryAction::Close(Arc::clone(frame));
        self.query_all(filter, action).await.len() as u64
    }

    async fn query_all(&self, filter: Filter, action: QueryAction) -> Vec<SessionInfo> {
        let mut found = Vec::new();
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let page = self.query(filter.clone(), cursor, MAX_PAGE, action.clone());
            let page = page.await;
            found.extend(page.sessions);
            from = page.next;
        }
        found
    }

    async fn query(
        &self,
        filter: Filter,
        from: Cursor,
        limit: usize,
        action: QueryAction,
    ) -> TablePage {
        let limit = limit.clamp(1, MAX_PAGE);
        let filter = Arc::new(filter);
        let mut page = TablePage::default();
        let mut at = from;
        while let Some(inbox) = self.workers.inboxes.get(at.worker as usize) {
            let (reply, replied) = oneshot::channel();
            inbox.send(WorkerCommand::Query(Query {
                filter: Arc::clone(&filter),
                from: at.slot,
                limit: limit - page.len(),
                worker: at.worker,
                action: action.clone(),
                reply,
            }));
            // A worker that has stopped has no connections.
            let reply = replied.await.unwrap_or_default();
            page.connections.extend(reply.connections);
            page.sessions.extend(reply.sessions);
            at = match reply.next {
                Some(slot) => Cursor { slot, ..at },
                None => at.next_worker(),
            };
            if page.len() >= limit {
                break;
            }
        }
        let is_more = (at.worker as usize) < self.workers.inboxes.len();
        page.next = is_more.then_some(at);
        page
    }
}

/// Descriptors that the relay's pipes take at most, beside its sessions' own.
pub(crate) fn pipe_descriptors(workers: usize) -> u64 {
    let count = worker_count(workers);
    (count * pipe::pipes_per_worker(fds::limit(), count) * 2) as u64
}

/// 0 = one worker per core the process may use.
fn worker_count(workers: usize) -> usize {
    match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}
