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

use crate::admission::Limits;
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
    limits: Arc<Limits>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the address of their backend, which they hold.
    by_backend: HashMap<usize, Vec<IdleConnection>>,
    count: usize,
    has_sweeper: bool,
}

/// A connection on which nothing is under way.
pub(in crate::proxy) struct UnusedConnection {
    pub stream: MaybeTlsStream,
    /// The backend reads a second request on it: it has done so, or said so.
    pub is_proven: bool,
}

/// Idle connections that a request may go on. Some servers answer one request, leave their
/// connection open and never read another: of them a client's first request is to know nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy) enum TakesIdle {
    #[default]
    Never,
    Proven,
    Any,
}

struct IdleConnection {
    stream: MaybeTlsStream,
    backend: Arc<Backend>,
    pool: Weak<Pool>,
    settings: Arc<config::Pool>,
    until: Instant,
    /// The backend reads a second request on it: it has done so, or said so.
    is_proven: bool,
}

impl std::fmt::Debug for IdleConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "IdleConnection({})", self.backend.name())
    }
}

impl IdleConnection {
    /// Closes it by a reset: nothing is under way on it, and after a FIN one of our ports would
    /// wait for stray segments (TIME_WAIT).
    fn give_up(self) {
        self.stream.reset_on_close();
    }

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

/// Whether neither bytes nor an end have come, as far as the kernel knows.
fn is_quiet(stream: &mut MaybeTlsStream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    let read = Pin::new(&mut *stream).poll_read(&mut context, &mut buffer);
    read.is_pending() && stream.socket().has_nothing()
}

fn key(backend: &Arc<Backend>) -> usize {
    Arc::as_ptr(backend).addr()
}

impl IdleConnections {
    pub(crate) fn new(limits: &Arc<Limits>) -> Arc<IdleConnections> {
        Arc::new(IdleConnections {
            inner: Mutex::default(),
            closing: Arc::new(Semaphore::new(MAX_CLOSING)),
            most: usize::try_from(fds::limit() / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX),
            limits: Arc::clone(limits),
        })
    }

    /// Whether one more connection leaves live ones their descriptors: a client has two, and each
    /// client that may still come counts for as many.
    fn has_descriptors(&self, count: usize) -> bool {
        let closing = MAX_CLOSING - self.closing.available_permits();
        let free = self
            .limits
            .max_connections()
            .saturating_sub(self.limits.live());
        count < self.most && ((count + closing) as u64) < free.saturating_mul(2)
    }

    /// Takes the connection of a backend that was used last, of those that are proven or of all.
    pub(in crate::proxy) fn take(
        &self,
        backend: &Arc<Backend>,
        takes: TakesIdle,
    ) -> Option<MaybeTlsStream> {
        let now = Instant::now();
        let mut inner = self.inner();
        let idle = inner.by_backend.get_mut(&key(backend))?;
        let mut found = None;
        let mut taken = 0;
        let is_taken = |one: &IdleConnection| match takes {
            TakesIdle::Never => false,
            TakesIdle::Proven => one.is_proven,
            TakesIdle::Any => true,
        };
        while let Some(place) = idle.iter().rposition(is_taken) {
            let mut connection = idle.remove(place);
            taken += 1;
            if connection.is_usable(now) {
                found = Some(connection.stream);
                break;
            }
            connection.give_up();
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
            idle.remove(0).give_up();
            inner.count -= 1;
        }
    }

    /// Keeps a connection on which nothing is under way, where there is room.
    pub(in crate::proxy) fn put(
        self: &Arc<Self>,
        unused: UnusedConnection,
        backend: &Arc<Backend>,
        pool: &Arc<Pool>,
        settings: &Arc<config::Pool>,
    ) {
        let mut connection = IdleConnection {
            stream: unused.stream,
            is_proven: unused.is_proven,
            backend: Arc::clone(backend),
            pool: Arc::downgrade(pool),
            settings: Arc::clone(settings),
            until: Instant::now() + settings.http.reuse_timeout,
        };
        if !connection.is_usable(Instant::now()) {
            return connection.give_up();
        }
        let mut inner = self.inner();
        let has_room = self.has_descriptors(inner.count);
        let idle = inner.by_backend.entry(key(backend)).or_default();
        if !has_room || idle.len() >= settings.http.max_idle_connections {
            return connection.give_up();
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
        let has_room = self.has_descriptors(self.inner().count);
        let permit = Arc::clone(&self.closing).try_acquire_owned();
        let (true, Ok(permit)) = (has_room, permit) else {
            return stream.reset_on_close();
        };
        tokio::spawn(async move {
            let mut byte = [0];
            let closed = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
            if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
                stream.reset_on_close();
            }
            drop(permit);
        });
    }

    /// Ends those that are not to be used any more. Returns whether any is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut ended = Vec::new();
        let mut inner = self.inner();
        let has_room = self.has_descriptors(inner.count.saturating_sub(1));
        for idle in inner.by_backend.values_mut() {
            ended.extend(idle.extract_if(.., |connection| !has_room || !connection.is_usable(now)));
        }
        inner.by_backend.retain(|_, idle| !idle.is_empty());
        inner.count -= ended.len();
        ended.into_iter().for_each(IdleConnection::give_up);
        inner.has_sweeper = inner.count > 0;
        inner.has_sweeper
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use tokio::io::AsyncWriteExt as _;
    use tokio::task::yield_now;

    use super::*;
    use crate::net::Stream;
    use crate::pool::{BackendRequest, OperatorState};

    /// Idle connections of a pool with one backend.
    struct Bench {
        idle: Arc<IdleConnections>,
        pool: Arc<Pool>,
        backend: Arc<Backend>,
    }

    fn settings(keys: &str) -> config::Pool {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"websocket\"\npool = \"p\"\n\
             [pool.p]\nhttp_reuse = \"safe\"\n{keys}\n\
             backend = [{{ name = \"n1\", address = \"127.0.0.1:1\", max_connections = 2 }}]\n"
        );
        let config = config::parse(&text, Path::new("test.toml"));
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        config.pools["p"].clone()
    }

    /// Room for some, whatever the process has.
    fn idle() -> IdleConnections {
        let limits = Limits::new(&config::Global::default(), 0);
        Arc::into_inner(IdleConnections::new(&limits)).unwrap()
    }

    impl Bench {
        fn new(keys: &str) -> Bench {
            let pool = Pool::new(&settings(keys));
            Bench {
                idle: Arc::new(idle()),
                backend: pool.backend("n1").unwrap(),
                pool,
            }
        }

        /// Puts a new connection and returns its other end.
        fn put(&self) -> UnixStream {
            let (near, far) = pair();
            self.put_again(near);
            far
        }

        fn put_again(&self, stream: MaybeTlsStream) {
            self.keep(stream, true);
        }

        fn keep(&self, stream: MaybeTlsStream, is_proven: bool) {
            let settings = self.pool.settings();
            let unused = UnusedConnection { stream, is_proven };
            self.idle.put(unused, &self.backend, &self.pool, &settings);
        }

        fn take(&self) -> Option<MaybeTlsStream> {
            self.idle.take(&self.backend, TakesIdle::Proven)
        }

        fn count(&self) -> usize {
            self.idle.inner().count
        }

        /// Takes until what has come on the only connection is seen.
        async fn take_none(&self) {
            while let Some(stream) = self.take() {
                self.put_again(stream);
                yield_now().await;
            }
        }
    }

    fn pair() -> (MaybeTlsStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        (MaybeTlsStream::Plain(Stream::Unix(near)), far)
    }

    fn is_closed(mut far: &UnixStream) -> bool {
        match far.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_first_request_goes_on_no_connection_that_is_not_proven() {
        let bench = Bench::new("");
        let (near, _far) = pair();
        bench.keep(near, false);
        assert!(bench.take().is_none() && bench.count() == 1);
        let any = bench.idle.take(&bench.backend, TakesIdle::Any);
        bench.keep(any.unwrap(), true);
        assert!(bench.take().is_some() && bench.count() == 0);
    }

    #[tokio::test]
    async fn the_connection_that_was_used_last_is_taken_first() {
        let bench = Bench::new("");
        let (mut old, mut new) = (bench.put(), bench.put());
        for (far, left) in [(&mut new, 1), (&mut old, 0)] {
            let mut stream = bench.take().unwrap();
            assert_eq!(bench.count(), left);
            stream.write_all(b"x").await.unwrap();
            let mut byte = [0];
            far.read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"x");
        }
        assert!(bench.take().is_none());
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed() {
        let bench = Bench::new("max_idle_connections = 1");
        let _kept = bench.put();
        assert!(is_closed(&bench.put()));
        assert_eq!(bench.count(), 1);
        let full = Bench {
            idle: Arc::new(IdleConnections { most: 1, ..idle() }),
            ..Bench::new("")
        };
        let _kept = full.put();
        assert!(is_closed(&full.put()));
        assert_eq!(full.count(), 1);
    }

    #[tokio::test]
    async fn a_connection_on_which_something_has_come_is_not_taken() {
        let bench = Bench::new("");
        let mut far = bench.put();
        far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            .unwrap();
        timeout(Duration::from_secs(20), bench.take_none())
            .await
            .unwrap();
        drop(bench.put());
        timeout(Duration::from_secs(20), bench.take_none())
            .await
            .unwrap();
        assert_eq!(bench.count(), 0);
    }

    #[tokio::test]
    async fn a_connection_of_a_backend_that_drains_is_neither_taken_nor_kept() {
        let bench = Bench::new("");
        let far = bench.put();
        bench.backend.set_operator(OperatorState::Drain);
        assert!(bench.take().is_none());
        assert!(is_closed(&far));
        assert!(is_closed(&bench.put()));
        bench.backend.set_operator(OperatorState::Ready);
        let _kept = bench.put();
        assert!(bench.take().is_some());
    }

    #[tokio::test]
    async fn a_connection_of_older_settings_is_not_taken() {
        let bench = Bench::new("");
        let far = bench.put();
        bench.pool.apply(&settings("http_reuse_timeout = \"3s\""));
        assert!(bench.take().is_none());
        assert!(is_closed(&far));
    }

    #[tokio::test]
    async fn the_oldest_connection_makes_room_at_the_backends_limit() {
        let bench = Bench::new("");
        let (old, new) = (bench.put(), bench.put());
        bench.idle.make_room(&bench.backend);
        assert_eq!(bench.count(), 2);
        let request = BackendRequest::default();
        let _lease = bench.pool.acquire(&request).await.unwrap();
        bench.idle.make_room(&bench.backend);
        assert!(is_closed(&old) && !is_closed(&new));
        bench.idle.make_room(&bench.backend);
        assert_eq!(bench.count(), 1);
    }

    /// No byte moves, so that the paused clock overtakes none.
    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_with_its_time() {
        let bench = Bench::new("http_reuse_timeout = \"3s\"");
        let _far = bench.put();
        sleep(Duration::from_secs(2)).await;
        let _later = bench.put();
        sleep(Duration::from_millis(990)).await;
        assert_eq!(bench.count(), 2);
        sleep(SWEEP_EVERY).await;
        assert_eq!(bench.count(), 1);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(bench.count(), 0);
        assert!(!bench.idle.inner().has_sweeper);
        // Another one is swept, too.
        let _far = bench.put();
        sleep(Duration::from_secs(4)).await;
        assert_eq!(bench.count(), 0);
    }

    /// Waits until no connection is left that is to be closed by its backend.
    async fn all_closed(idle: &IdleConnections) {
        let all = u32::try_from(MAX_CLOSING).unwrap();
        drop(idle.closing.acquire_many(all).await.unwrap());
    }

    #[tokio::test]
    async fn a_last_connection_is_closed_behind_its_backend() {
        let idle = idle();
        let (near, far) = pair();
        idle.let_close(near);
        yield_now().await;
        assert!(!is_closed(&far));
        far.shutdown(Shutdown::Write).unwrap();
        timeout(Duration::from_secs(20), all_closed(&idle))
            .await
            .unwrap();
        assert!(is_closed(&far));
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_connection_is_closed_all_the_same_when_its_backend_stays() {
        let idle = idle();
        let (near, far) = pair();
        let begun = Instant::now();
        idle.let_close(near);
        all_closed(&idle).await;
        assert!(begun.elapsed() >= CLOSE_TIMEOUT && is_closed(&far));
        // Where too many wait, another one does not.
        let _all = idle.closing.acquire_many(MAX_CLOSING as u32).await;
        let (near, far) = pair();
        idle.let_close(near);
        assert!(is_closed(&far));
    }
}
