//! Connects a routed TCP client and hands both ends to the relay. Until the first byte goes either
//! way a backend that fails is replaced: nothing was sent to it.
//!
//! A relay thread goes as far as it can without a wait; the set-up plane goes on with the same
//! search. The client is out of tokio here, with its bytes unread. While it waits only its hang-up
//! is watched for: a FIN is no end, as a client may have sent all it has to send.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::outgoing_proxy_header::OutgoingProxyHeader;
use super::{
    BackendUnavailable, ConnectAttempt, ConnectBy, ConnectNow, Connected, RetryState, RetryStep,
    connect, connect_now,
};
use crate::admission::ConnectionPermit;
use crate::config::HashKey;
use crate::net::options::reset_on_close;
use crate::net::{Peer, local_address, wait_for_hangup};
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::pool::{Lease, Pool};
use crate::proxy::client::ClientConnection;
use crate::proxy::client::identify::Identified;
use crate::proxy::shared::Proxy;
use crate::relay::SessionGuards;
use crate::relay::{
    ConnectFailure, ConnectHandler, Framing, NewSession, SessionLimits, SocketHandoff, Transport,
};

/// The wait after which a client is watched: nearly every connect is done before, and pays no
/// system call for it.
const WATCH_AFTER: Duration = Duration::from_millis(50);

/// The wait for a descriptor: not only our connections free them.
const RETRY_SHORTAGE: Duration = Duration::from_millis(50);

/// A TCP client that waits for a backend, and all that it holds.
pub(in crate::proxy) struct TcpClient {
    pub handoff: SocketHandoff,
    pub record: ConnectionRecord,
    pub permit: ConnectionPermit,
}

impl TcpClient {
    /// Takes an identified client out of tokio. `None`: it cannot be, and its record is finished.
    pub(crate) fn new(
        identified: Identified,
        record: ConnectionRecord,
        permit: ConnectionPermit,
    ) -> Option<TcpClient> {
        match identified.stream.into_handoff(identified.read) {
            Ok(handoff) => Some(TcpClient {
                handoff,
                record,
                permit,
            }),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                record.finish(Termination::new(Side::Evenkeel, Phase::Route, Cause::Error));
                None
            }
        }
    }

    /// Refuses the client because no route leads anywhere, or a reload has removed its pool.
    pub(crate) fn refuse_unrouted(self) {
        self.record.refused(Refusal::NoRoute);
        let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Refused);
        self.refuse(end);
    }

    /// Refuses the client by a RST: no refusal must look like an orderly, empty response.
    pub(crate) fn refuse(self, end: Termination) {
        let Self {
            handoff,
            record,
            permit,
        } = self;
        reset_on_close(handoff.socket.as_fd());
        drop(handoff);
        record.finish(end);
        drop(permit);
    }

    fn refuse_unavailable(self, pool: &Pool, error: &BackendUnavailable) {
        tracing::debug!(id = self.record.id, pool = %pool.name(), %error, "refused");
        self.refuse(error.end());
    }
}

/// The search of a TCP client for a backend of its pool.
pub(in crate::proxy) struct TcpConnect {
    proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pool: Weak<Pool>,
    client: Peer,
    /// For a pool that sends PROXY headers; without it only the client's addresses are known.
    proxy_header: Option<Box<OutgoingProxyHeader>>,
    search: RetryState,
}

impl TcpConnect {
    pub(crate) fn new(proxy: &Arc<Proxy>, pool: &Arc<Pool>, client: Peer) -> TcpConnect {
        TcpConnect {
            proxy: Arc::clone(proxy),
            pool: Arc::downgrade(pool),
            client,
            proxy_header: None,
            search: RetryState::new(client.ip(), None, None),
        }
    }

    /// A search for an identified client, whose set-up ends.
    pub(crate) fn of_client(
        client: ClientConnection,
        pool: &Arc<Pool>,
        identified: &Identified,
    ) -> TcpConnect {
        let mut connect = TcpConnect::new(&client.proxy, pool, client.peer);
        let settings = pool.settings();
        let sni = identified.hello.sni.as_deref();
        if settings.request_key() == Some(&HashKey::Sni) {
            connect.search.key = sni.map(|sni| sni.as_bytes().into());
        }
        if settings.send_proxy.is_some() {
            let stream = &identified.stream;
            let handshake = identified.handshake.as_ref();
            let certificate = handshake.is_some_and(|handshake| handshake.identity.is_some());
            let details = stream.details(sni, certificate);
            let header = OutgoingProxyHeader::of(&client, stream.local_address(), details);
            connect.proxy_header = Some(Box::new(header));
        }
        connect
    }

    /// Gives the client a backend and both to the relay, or refuses the client.
    pub(crate) async fn run(self, mut client: TcpClient) {
        let step = RetryState::begin(&mut client.record);
        self.finish(step, client).await;
    }

    /// As [`TcpConnect::run`], on a relay thread: returns a session once a connect has begun. What
    /// needs a wait is left to the set-up plane.
    pub(crate) fn begin(self, pool: &Arc<Pool>, mut client: TcpClient) -> Option<NewSession> {
        let step = RetryState::begin(&mut client.record);
        self.advance(pool, step, client)
    }

    fn advance(
        mut self,
        pool: &Arc<Pool>,
        step: RetryStep,
        mut client: TcpClient,
    ) -> Option<NewSession> {
        match connect_now(&mut self.search, step, pool, &mut client.record) {
            ConnectNow::Begun(socket, lease, attempt) => {
                let backend = PendingBackend {
                    handoff: raw(socket),
                    lease,
                    attempt,
                };
                let mut session = self.session(pool, client, backend);
                session.connecting = true;
                return Some(session);
            }
            ConnectNow::Refused(error) => client.refuse_unavailable(pool, &error),
            ConnectNow::Waits(step) => {
                let runtime = self.proxy.runtime.clone();
                runtime.spawn(self.finish(step, client));
            }
            ConnectNow::Short(step) => {
                let proxy = Arc::clone(&self.proxy);
                proxy.runtime.clone().spawn(async move {
                    let _ = tokio::time::timeout(RETRY_SHORTAGE, proxy.limits.freed()).await;
                    self.finish(step, client).await;
                });
            }
        }
        None
    }

    /// Takes the search to its end in the set-up plane.
    async fn finish(mut self, step: RetryStep, mut client: TcpClient) {
        let Some(pool) = self.pool.upgrade() else {
            drop(step);
            return client.refuse_unrouted();
        };
        let socket = client.handoff.socket.as_fd();
        if pool.settings().send_proxy.is_some() && self.proxy_header.is_none() {
            let known = OutgoingProxyHeader::plain(self.client, local_address(socket));
            self.proxy_header = Some(Box::new(known));
        }
        let by = ConnectBy {
            header: self.proxy_header.as_deref(),
            ..ConnectBy::default()
        };
        // Both may be dropped: the search leaves the queue or gives its lease back, the watch takes
        // nothing.
        let connected = tokio::select! {
            biased;
            connected = connect(&mut self.search, step, &pool, by, &mut client.record) => connected,
            () = hung_up_waiting(socket) => {
                let end = Termination::new(Side::Client, client.record.phase(), Cause::Rst);
                return client.refuse(end);
            }
        };
        let Connected { stream, lease, .. } = match connected {
            Ok(connected) => connected,
            Err(error) => return client.refuse_unavailable(&pool, &error),
        };
        match stream.into_handoff(Vec::new()) {
            Ok(handoff) => {
                client.record.opened();
                let proxy = Arc::clone(&self.proxy);
                let attempt = ConnectAttempt::new(&lease, Instant::now());
                let backend = PendingBackend {
                    handoff,
                    lease,
                    attempt,
                };
                // The relay gives it back where the backend fails.
                proxy.relay.adopt(self.session(&pool, client, backend));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                let end = Termination::new(Side::Evenkeel, Phase::Connect, Cause::Error);
                client.refuse(end);
            }
        }
    }

    fn session(self, pool: &Pool, client: TcpClient, backend: PendingBackend) -> NewSession {
        let settings = pool.settings();
        let pending = PendingSession {
            connect_timeout_ms: milliseconds(settings.connect_timeout),
            attempt: backend.attempt,
            connect: self,
        };
        NewSession {
            client: client.handoff,
            backend: backend.handoff,
            framing: Framing::Bytes,
            connecting: false,
            limits: SessionLimits::of(&settings),
            record: client.record,
            guards: SessionGuards::new(backend.lease, client.permit),
            connect_handler: Some(Box::new(pending)),
            resume_policy: None,
        }
    }
}

/// A backend that is connected, or about to be.
struct PendingBackend {
    handoff: SocketHandoff,
    lease: Lease,
    attempt: ConnectAttempt,
}

/// A session whose backend is connected, or about to be, and has not served yet.
struct PendingSession {
    connect: TcpConnect,
    /// For a connect that the set-up plane has made, it begins when that was done.
    attempt: ConnectAttempt,
    connect_timeout_ms: u32,
}

// A connection on which no byte has passed has one, perhaps for hours; the allocator's next size is
// 192.
const _: () = assert!(size_of::<PendingSession>() <= 160);

/// Hands over a socket from which nothing was read.
pub(in crate::proxy) fn raw(socket: OwnedFd) -> SocketHandoff {
    SocketHandoff {
        socket,
        transport: Transport::Raw,
        read: Vec::new(),
    }
}

/// Converts a time to milliseconds, at most 49 days.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl ConnectHandler for PendingSession {
    fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    fn gives_up(&mut self) -> bool {
        let Self {
            connect, attempt, ..
        } = self;
        let pool = connect.pool.upgrade();
        pool.is_some_and(|pool| connect.search.gives_up(&pool, attempt, Instant::now()))
    }

    fn connected(&mut self, record: &mut ConnectionRecord) {
        self.attempt.connected(record, Instant::now());
        record.opened();
    }

    fn served(&self) {
        self.attempt.backend.answered();
    }

    fn has_other(&self) -> bool {
        let Self {
            connect, attempt, ..
        } = self;
        let pool = connect.pool.upgrade();
        pool.is_some_and(|pool| connect.search.has_other(&pool, &attempt.backend))
    }

    fn failed(
        self: Box<Self>,
        why: ConnectFailure,
        client: SocketHandoff,
        record: ConnectionRecord,
        guards: SessionGuards,
    ) {
        let Self {
            mut connect,
            attempt,
            ..
        } = *self;
        let SessionGuards { lease, permit } = guards;
        // It is in set-up again.
        let mut record = record;
        record.enter(Phase::Connect);
        let mut client = TcpClient {
            handoff: client,
            record,
            permit,
        };
        drop(lease);
        let Some(pool) = connect.pool.upgrade() else {
            return client.refuse_unrouted();
        };
        let step = connect
            .search
            .failed(&pool, attempt, why, &mut client.record);
        let relay = Arc::clone(&connect.proxy.relay);
        if let Some(session) = connect.advance(&pool, step, client) {
            relay.adopt(session);
        }
    }
}

/// Waits until a client that has waited for long hangs up.
async fn hung_up_waiting(client: BorrowedFd<'_>) {
    tokio::time::sleep(WATCH_AFTER).await;
    wait_for_hangup(client).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;
    use crate::observe::{Journal, ListenerCounters};
    use crate::pool::BackendRequest;

    /// A pool of a backend whose connect fails at once, on whatever thread, and of one that
    /// listens.
    struct Bench {
        proxy: Arc<Proxy>,
        pool: Arc<Pool>,
        counters: Arc<ListenerCounters>,
        node: TcpListener,
    }

    impl Bench {
        async fn start(pool: &str, limit: u32) -> Bench {
            let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let text = format!(
                "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n\
                 [pool.p]\n{pool}\nbackend = [\n{{ name = \"gone\", address = \"unix:/nowhere/to/be.found\" }},\n\
                 {{ name = \"there\", address = \"{}\", max_connections = {limit} }}]\n",
                node.local_addr().unwrap()
            );
            let config = config::parse(&text, Path::new("test.toml"))
                .unwrap_or_else(|errors| panic!("{errors}"));
            let journal = Journal::new(&config.access_log).unwrap();
            Bench {
                pool: Pool::new(&config.pools["p"]),
                counters: ListenerCounters::new("l", &journal),
                proxy: Proxy::for_tests(&config, journal),
                node,
            }
        }

        /// Begins as a relay thread does for a new connection; and the client's end.
        fn arrive(&self) -> (Option<NewSession>, UnixStream) {
            let (client, ours) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let connect = TcpConnect::new(&self.proxy, &self.pool, Peer::Unix);
            let waiting = TcpClient {
                handoff: raw(OwnedFd::from(ours)),
                record: ConnectionRecord::new(&self.counters, Peer::Unix),
                permit: ConnectionPermit::unlisted(&self.proxy.limits),
            };
            (connect.begin(&self.pool, waiting), client)
        }

        fn counted(&self) -> [u64; 3] {
            let gone = self.pool.backend("gone").unwrap();
            let failures = &gone.counters().connect_failures;
            let counters = self.pool.counters();
            [&counters.retries, &counters.redispatches, failures]
                .map(|counter| counter.load(Ordering::Relaxed))
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.proxy.relay.shutdown();
        }
    }

    #[tokio::test]
    async fn what_fails_at_once_is_tried_elsewhere_at_once() {
        let bench = Bench::start("retries = 1", 0).await;
        let (session, _client) = bench.arrive();
        let session = session.expect("it went to the set-up plane");
        assert_eq!(&**session.record.assignment().unwrap().1, "there");
        assert_eq!(bench.counted(), [1, 1, 1]);
        assert_eq!(bench.pool.backend("gone").unwrap().live(), 0);
        let end = Termination::new(Side::Evenkeel, Phase::Route, Cause::Refused);
        session.record.finish(end);
    }

    #[tokio::test]
    async fn what_has_to_wait_goes_on_elsewhere_with_all_it_has_counted() {
        let bench = Bench::start("retries = 1\nmax_queue = 1", 1).await;
        let there = bench.pool.backend("there").unwrap();
        let pick = BackendRequest {
            preferred: Some(&there),
            ..BackendRequest::default()
        };
        let lease = bench.pool.acquire(&pick).await.unwrap();
        let (session, client) = bench.arrive();
        assert!(session.is_none(), "there was no room");
        assert_eq!(bench.counted(), [1, 0, 1]);
        while bench.pool.queued() == 0 {
            tokio::task::yield_now().await;
        }
        drop(lease);
        let (mut backend, _) = bench.node.accept().await.unwrap();
        assert_eq!(bench.counted(), [1, 1, 1]);
        // Its last try is used up: the backend's FIN is the client's.
        backend.shutdown().await.unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::UnixStream::from_std(client).unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop((client, backend));
        there.emptied().await;
        assert_eq!(bench.counted(), [1, 1, 1]);
    }
}
