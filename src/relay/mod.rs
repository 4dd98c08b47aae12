//! The relay plane: where an established connection spends its hours.
//!
//! [`Relay::adopt`] takes a session (two legs, the bytes already read from them, its lease, its record, its policy)
//! and owns it to the end, fire and forget: when it ends, the relay finishes the record and then drops the lease.
//! One thread per worker, each with its own epoll; no buffer while a connection idles. No tokio type crosses this
//! seam, and the relay knows nothing of pools: the lease is an opaque guard.

mod direction;
mod entry;
mod inquiry;
mod leg;
#[cfg(test)]
mod model;
mod pipe;
mod table;
#[cfg(test)]
mod tests;
mod worker;

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use crate::observe::Record;
use crate::tls::record;
pub use inquiry::{Connection, Cursor, Filter, MAX_PAGE, Page};
use worker::{Command, Inbox};

/// An established connection, ready to be relayed.
pub struct Session {
    pub client: Leg,
    pub backend: Leg,
    pub policy: Policy,
    pub record: Box<Record>,
    /// Dropped after the record is finished; what it guards is not the relay's business.
    pub lease: Box<dyn Any + Send>,
    /// Called, on the relay's thread, in place of ending the session, when the backend's leg breaks before any byte
    /// went either way. Dropped with the first byte.
    pub give_back: Option<GiveBack>,
}

/// Takes the client's leg and the record of an untouched session back; the lease is dropped before.
pub type GiveBack = Box<dyn FnOnce(Leg, Box<Record>) + Send>;

/// One of the two sockets of a session.
pub struct Leg {
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
    pub session: Box<record::Session>,
    /// Ciphertext to be written before anything that the session seals.
    pub output: Vec<u8>,
}

/// The limits of one session.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// No byte either way.
    pub idle_timeout: Duration,
    /// No byte on what is left of a half-closed connection; also bounds the wait for queued bytes before a RST.
    pub fin_timeout: Duration,
}

impl Policy {
    /// The limits that a pool's settings give its sessions.
    pub fn of(pool: &crate::config::Pool) -> Self {
        Self {
            idle_timeout: pool.idle_timeout,
            fin_timeout: pool.fin_timeout,
        }
    }
}

/// The relay plane's handle: its workers.
pub struct Relay {
    workers: Vec<WorkerHandle>,
    shared: Arc<Shared>,
}

struct WorkerHandle {
    inbox: Arc<Inbox>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the workers tell the outside.
#[derive(Default)]
struct Shared {
    live: AtomicU64,
    emptied: Notify,
}

impl Relay {
    /// Starts the relay threads; 0 = one per core the process may use.
    ///
    /// # Errors
    /// The kernel refused an epoll, an eventfd or a thread.
    pub fn start(workers: usize) -> io::Result<Arc<Self>> {
        let count = worker_count(workers);
        let shared = Arc::new(Shared::default());
        let workers = (0..count)
            .map(|number| worker::spawn(number, &shared))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Arc::new(Self { workers, shared }))
    }

    /// Takes a session over. It goes to the worker with fewer live ones of two candidates: connections that last must
    /// stay balanced over the threads.
    pub fn adopt(&self, session: Session) {
        let worker = self.lighter_of_two();
        worker.inbox.live.fetch_add(1, Ordering::Relaxed);
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        worker.inbox.send(Command::Adopt(Box::new(session)));
    }

    fn lighter_of_two(&self) -> &WorkerHandle {
        let (one, other) = (self.candidate(), self.candidate());
        if one.inbox.live.load(Ordering::Relaxed) <= other.inbox.live.load(Ordering::Relaxed) {
            one
        } else {
            other
        }
    }

    fn candidate(&self) -> &WorkerHandle {
        &self.workers[fastrand::usize(..self.workers.len())]
    }

    /// Sessions adopted and not ended.
    pub fn live(&self) -> u64 {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Closes every present session, and any adopted later, one by one, evenly over `spread`.
    pub fn close_all_within(&self, spread: Duration) {
        for worker in &self.workers {
            worker.inbox.send(Command::CloseAll(spread));
        }
    }

    /// Returns once no session is left.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.shared.emptied.notified();
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
        for worker in &self.workers {
            worker.inbox.send(Command::Stop);
        }
        for worker in &self.workers {
            let thread = match worker.thread.lock() {
                Ok(mut slot) => slot.take(),
                Err(poisoned) => poisoned.into_inner().take(),
            };
            if let Some(thread) = thread {
                // A worker that panicked has nothing left to wait for.
                let _ = thread.join();
            }
        }
    }
}

/// Descriptors that the relay's pipes take at most, beside its sessions' own.
pub fn pipe_descriptors(workers: usize) -> u64 {
    (worker_count(workers) * pipe::MAX_PIPES_PER_WORKER * 2) as u64
}

/// 0 = one worker per core the process may use.
fn worker_count(workers: usize) -> usize {
    match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// Uncounts one session of a worker and of the plane.
struct Counted {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inbox.live.fetch_sub(1, Ordering::Relaxed);
        if self.shared.live.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shared.emptied.notify_waiters();
        }
    }
}

/// Live sessions of one worker; read by `adopt` to choose.
type LiveCount = AtomicUsize;
