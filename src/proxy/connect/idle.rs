//! Connections to backends that wait for another HTTP request. They hold no lease, and end at a
//! drain, with the backend, at a reload and before the servers of the field close them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::config;
use crate::net::fds;
use crate::pool::{Backend, Pool};
use crate::proxy::client::maybe_tls::MaybeTlsStream;

/// Part of the process's descriptors that idle connections may take: live ones come first.
const SHARE_OF_DESCRIPTORS: u64 = 16;
/// Between two looks for those that are to end. A drain is seen by then.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How long a backend may take to close a connection that was announced to be its last.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may wait for that at once; others are closed by us.
const MAX_CLOSING: usize = 1024;

/// The idle connections of all pools.
#[derive(Debug)]
pub(crate) struct IdleConnections {
    inner: Mutex<Inner>,
    closing: Arc<Semaphore>,
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the address of their backend, which they hold.
    by_backend: HashMap<usize, Vec<IdleConnection>>,
    count: usize,
    has_sweeper: bool,
}

struct IdleConnection {
    stream: MaybeTlsStream,
    backend: Arc<Backend>,
    pool: Weak<Pool>,
    settings: Arc<config::Pool>,
    until: Instant,
}

impl std::fmt::Debug for IdleConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "IdleConnection({})", self.backend.name())
    }
}

impl IdleConnection {
    /// Whether another request may go on it. Bytes that nobody has asked for end it, as they would
    /// be taken for the answer.
    fn is_usable(&mut self, now: Instant) -> bool {
        let is_current = self
            .pool
            .upgrade()
            .is_some_and(|pool| Arc::ptr_eq(&pool.settings(), &self.settings));
        is_current
            && now < self.until
            && self.backend.takes_new()
            && !self.backend.is_leaving()
            && is_quiet(&mut self.stream)
    }
}

/// Whether neither bytes nor an end have come.
fn is_quiet(stream: &mut MaybeTlsStream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream)
        .poll_read(&mut context, &mut buffer)
        .is_pending()
}

fn key(backend: &Arc<Backend>) -> usize {
    Arc::as_ptr(backend).addr()
}

impl Default for IdleConnections {
    fn default() -> Self {
        IdleConnections {
            inner: Mutex::default(),
            closing: Arc::new(Semaphore::new(MAX_CLOSING)),
            most: usize::try_from(fds::limit() / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX),
        }
    }
}

impl IdleConnections {
    /// Takes the connection of a backend that was used last.
    pub(in crate::proxy) fn take(&self, backend: &Arc<Backend>) -> Option<MaybeTlsStream> {
        let now = Instant::now();
        let mut inner = self.inner();
        let idle = inner.by_backend.get_mut(&key(backend))?;
        let mut found = None;
        let mut taken = 0;
        while let Some(mut connection) = idle.pop() {
            taken += 1;
            if connection.is_usable(now) {
                found = Some(connection.stream);
                break;
            }
        }
        inner.count -= taken;
        found
    }

    /// Ends the oldest connection of a backend whose `max_connections` a new one would exceed.
    pub(in crate::proxy) fn make_room(&self, backend: &Arc<Backend>) {
        let max = backend.max_connections();
        if max == 0 {
            return;
        }
        let mut inner = self.inner();
        let Some(idle) = inner.by_backend.get_mut(&key(backend)) else {
            return;
        };
        if !idle.is_empty() && backend.live() + idle.len() as u64 > max {
            idle.remove(0);
            inner.count -= 1;
        }
    }

    /// Keeps a connection on which nothing is under way, where there is room.
    pub(in crate::proxy) fn put(
        self: &Arc<Self>,
        stream: MaybeTlsStream,
        backend: &Arc<Backend>,
        pool: &Arc<Pool>,
        settings: &Arc<config::Pool>,
    ) {
        let mut connection = IdleConnection {
            stream,
            backend: Arc::clone(backend),
            pool: Arc::downgrade(pool),
            settings: Arc::clone(settings),
            until: Instant::now() + settings.http.reuse_timeout,
        };
        if !connection.is_usable(Instant::now()) {
            return;
        }
        let mut inner = self.inner();
        let has_room = inner.count < self.most;
        let idle = inner.by_backend.entry(key(backend)).or_default();
        if !has_room || idle.len() >= settings.http.max_idle_connections {
            return;
        }
        idle.push(connection);
        inner.count += 1;
        if !inner.has_sweeper {
            inner.has_sweeper = true;
            // Weak: a sweeper must not keep the process's state.
            let all = Arc::downgrade(self);
            tokio::spawn(sweep(all));
        }
    }

    /// Lets a backend close a connection that was announced to be its last, so that the wait for
    /// stray segments (TIME_WAIT) is not on our side: it would hold one of our ports.
    pub(in crate::proxy) fn let_close(&self, mut stream: MaybeTlsStream) {
        let Ok(permit) = Arc::clone(&self.closing).try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let mut byte = [0];
            let closed = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
            let _ = timeout(CLOSE_TIMEOUT, closed).await;
            drop(permit);
        });
    }

    /// Ends those that are not to be used any more. Returns whether any is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut ended = Vec::new();
        let mut inner = self.inner();
        for idle in inner.by_backend.values_mut() {
            ended.extend(idle.extract_if(.., |connection| !connection.is_usable(now)));
        }
        inner.by_backend.retain(|_, idle| !idle.is_empty());
        inner.count -= ended.len();
        inner.has_sweeper = inner.count > 0;
        inner.has_sweeper
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(in crate::proxy) fn count(&self) -> usize {
        self.inner().count
    }
}

async fn sweep(all: Weak<IdleConnections>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let has_more = all.upgrade().is_some_and(|all| all.sweep());
        if !has_more {
            return;
        }
    }
}
