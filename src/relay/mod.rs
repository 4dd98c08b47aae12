//! The relay plane: where an established connection spends its hours.
//!
//! [`Relay::adopt`] takes a session (two legs, the bytes already read from them, its guards, its record, its limits)
//! and owns it to the end, fire and forget: when it ends, the relay finishes the record and then drops the guards.
//! One thread per worker, each with its own epoll; no buffer while a connection idles. No tokio type crosses this
//! seam. What the relay needs of the data path above it, it calls through a trait: [`ConnectHandler`], [`Migrator`] and
//! [`OnAccept`].

mod clock;
mod closing;
mod connect_handler;
mod connecting_queue;
mod direction;
mod filter;
mod frames;
mod inbox;
mod leg;
mod listener;
#[cfg(any(test, fuzzing))]
pub mod model;
mod pipe;
mod query;
mod resume_policy;
mod scratch;
mod session;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use crate::admission::ConnectionPermit;
use crate::net::fds;
use crate::observe::ConnectionRecord;
use crate::pool::Lease;
use crate::tls::record;
pub use connect_handler::{ConnectFailure, ConnectHandler};
pub use filter::Filter;
pub use frames::{CloseFrame, FramePolicy};
use inbox::{Inbox, WorkerCommand};
pub use listener::{OnAccept, RelayListener};
pub use query::{ConnectionInfo, Cursor, Handle, MAX_PAGE, SessionInfo, TablePage};
pub use resume_policy::{LostBackend, LostMessages, Migrator, NewBackend, ResumePolicy};
use table::SessionKey;

/// A connection, ready to be relayed.
pub struct NewSession {
    pub client: SocketHandoff,
    pub backend: SocketHandoff,
    pub framing: Framing,
    /// The connect of the backend's leg was begun and is not done; it needs an origin.
    pub connecting: bool,
    pub limits: SessionLimits,
    pub record: ConnectionRecord,
    /// Dropped after the record is finished.
    pub guards: SessionGuards,
    /// Takes the client back while no byte went either way. Dropped with the first byte.
    pub connect_handler: Option<Box<dyn ConnectHandler>>,
    /// Lets it outlive its backend; its frames are to be followed.
    pub resume_policy: Option<Box<ResumePolicy>>,
}

/// Counts that a session holds to its end. They are dropped in this order.
#[derive(Debug)]
pub struct SessionGuards {
    /// `None`: its session has lost one backend and looks for another.
    pub lease: Option<Lease>,
    pub permit: ConnectionPermit,
}

impl SessionGuards {
    pub fn new(lease: Lease, permit: ConnectionPermit) -> SessionGuards {
        SessionGuards {
            lease: Some(lease),
            permit,
        }
    }
}

/// What the bytes of a session are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Just bytes.
    Bytes,
    /// WebSocket frames both ways, from the first byte: where they begin and end is followed.
    WebSocket(FramePolicy),
}

/// One of the two sockets of a session.
pub struct SocketHandoff {
    /// Non-blocking, in no other epoll.
    pub socket: OwnedFd,
    pub transport: Transport,
    /// Plaintext already read from this leg and not yet written to the other.
    pub read: Vec<u8>,
}

/// How bytes are carried on a leg.
pub enum Transport {
    Raw,
    /// After its handshake.
    Tls(Tls),
}

/// An established TLS connection.
pub struct Tls {
    /// Holds a record of which not all has come.
    pub session: Box<record::TlsSession>,
    /// Ciphertext to be written before anything that the session seals.
    pub output: Vec<u8>,
}

/// The limits of one session.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// No byte either way.
    pub idle_timeout: Duration,
    /// No byte on what is left of a half-closed connection; also bounds the wait for queued bytes before a RST.
    pub fin_timeout: Duration,
    /// From accept to the end, whatever moves; give or take a tenth, so that what came at once does not go at once.
    pub max_lifetime: Option<Duration>,
}

impl SessionLimits {
    /// The limits that a pool's settings give its sessions.
    pub fn of(pool: &crate::config::Pool) -> Self {
        Self {
            idle_timeout: pool.idle_timeout,
            fin_timeout: pool.fin_timeout,
            max_lifetime: pool.max_lifetime,
        }
    }
}

/// The relay plane's handle: its workers.
pub struct Relay {
    plane: Arc<Plane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    doors: AtomicU32,
}

/// What the workers know of each other, and tell the outside.
struct Plane {
    /// One for each worker.
    inboxes: Box<[Arc<Inbox>]>,
    live: AtomicU64,
    emptied: Notify,
    /// Bytes that the entries of one worker may hold.
    max_held: Arc<AtomicUsize>,
    /// Of each worker.
    pipes: usize,
}

impl Relay {
    /// Starts the relay threads; `workers` 0 = one per core the process may use. For `max_held` see
    /// [`Relay::set_max_held`].
    ///
    /// # Errors
    /// The kernel refused an epoll, an eventfd or a thread.
    pub fn start(workers: usize, max_held: usize) -> io::Result<Arc<Self>> {
        let count = worker_count(workers);
        leg::prepare()?;
        let idle = (0..count)
            .map(|_| worker::prepare())
            .collect::<io::Result<Vec<_>>>()?;
        let plane = Arc::new(Plane {
            inboxes: idle.iter().map(|idle| Arc::clone(&idle.inbox)).collect(),
            live: AtomicU64::new(0),
            emptied: Notify::new(),
            max_held: Arc::new(AtomicUsize::new(max_held / count)),
            pipes: pipe::pipes_per_worker(fds::limit(), count),
        });
        let relay = Arc::new(Self {
            plane: Arc::clone(&plane),
            threads: Mutex::default(),
            doors: AtomicU32::new(0),
        });
        for (number, idle) in idle.into_iter().enumerate() {
            match idle.start(number, Arc::clone(&plane)) {
                Ok(thread) => relay.threads().push(thread),
                Err(error) => {
                    relay.shutdown();
                    return Err(error);
                }
            }
        }
        Ok(relay)
    }

    /// Together the sessions hold at most `bytes` for peers that do not take them. At that limit nothing more is read for a
    /// peer that has not taken everything before it.
    pub fn set_max_held(&self, bytes: usize) {
        let share = bytes / self.plane.inboxes.len();
        self.plane.max_held.store(share, Ordering::Relaxed);
    }

    /// Takes a session over. It goes to the worker with fewer live ones of two candidates: connections that last must
    /// stay balanced over the threads.
    pub fn adopt(&self, session: NewSession) {
        let worker = self.plane.lighter_of_two();
        self.plane.count(worker);
        worker.send(WorkerCommand::Adopt(Box::new(session)));
    }

    /// A number and a worker for the next door.
    fn next_door(&self) -> (u32, Arc<Inbox>) {
        let id = self.doors.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
        let worker = id as usize % self.plane.inboxes.len();
        (id, Arc::clone(&self.plane.inboxes[worker]))
    }

    /// Sessions adopted and not ended.
    pub fn live(&self) -> u64 {
        self.plane.live.load(Ordering::Relaxed)
    }

    /// Bytes that sessions hold for peers that do not take them.
    pub fn held_bytes(&self) -> u64 {
        let held = |inbox: &Arc<Inbox>| inbox.held_bytes.load(Ordering::Relaxed) as u64;
        self.plane.inboxes.iter().map(held).sum()
    }

    /// Ends every present session, and any adopted later, one by one, evenly over `spread`; WebSockets are told why.
    pub fn close_all_within(&self, spread: Duration, goodbye: &Arc<CloseFrame>) {
        for inbox in &self.plane.inboxes {
            inbox.send(WorkerCommand::CloseAll(spread, Arc::clone(goodbye)));
        }
    }

    /// Ends one session; a WebSocket is told why. One that is gone is no more.
    pub fn close_one(&self, session: Handle, goodbye: &Arc<CloseFrame>) {
        self.tell(session, |key| {
            WorkerCommand::Close(key, Arc::clone(goodbye))
        });
    }

    /// Takes one session from its backend: another one takes it where it is resumable, or else it is ended, and a WebSocket
    /// told why.
    pub fn migrate(&self, session: Handle, goodbye: &Arc<CloseFrame>) {
        self.tell(session, |key| {
            WorkerCommand::Migrate(key, Arc::clone(goodbye))
        });
    }

    /// Pings the backend of one session, which ends when it does not answer in time. Nothing to one without pings.
    pub fn ping_backend(&self, session: Handle) {
        self.tell(session, WorkerCommand::Ping);
    }

    fn tell(&self, session: Handle, command: impl FnOnce(SessionKey) -> WorkerCommand) {
        if let Some(inbox) = self.plane.inboxes.get(session.worker as usize) {
            inbox.send(command(session.key));
        }
    }

    /// Returns once no session is left.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.plane.emptied.notified();
            tokio::pin!(emptied);
            // Listening before looking: an end in between is not missed.
            emptied.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Ends every session at once and joins the threads.
    pub fn shutdown(&self) {
        for inbox in &self.plane.inboxes {
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

impl Plane {
    fn lighter_of_two(&self) -> &Arc<Inbox> {
        let (one, other) = (self.candidate(), self.candidate());
        if one.live.load(Ordering::Relaxed) <= other.live.load(Ordering::Relaxed) {
            one
        } else {
            other
        }
    }

    fn candidate(&self) -> &Arc<Inbox> {
        match &*self.inboxes {
            [only] => only,
            inboxes => &inboxes[fastrand::usize(..inboxes.len())],
        }
    }

    /// Counts one session of a worker and of the plane.
    fn count(&self, worker: &Inbox) {
        worker.live.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    fn uncount(&self, worker: &Inbox) {
        worker.live.fetch_sub(1, Ordering::Relaxed);
        if self.live.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

/// Descriptors that the relay's pipes take at most, beside its sessions' own.
pub fn pipe_descriptors(workers: usize) -> u64 {
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
