//! The errand of a connection that is classified and routed: get it a backend and hand both to the relay. It goes on when
//! the backend does not serve and no byte went either way: nothing was sent to it, so another may.
//!
//! A relay thread goes as far as it can without a wait; the set-up plane goes on with the same search. The client is out
//! of tokio here, with its bytes unread. While it waits only its hang-up is watched for: a FIN is no end, as a client may
//! have said all it has to say.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::dispatch::{ConnectAttempt, DispatchError, RetryState, RetryStep, finish};
use super::reach::Connector;
use super::{MaybeTlsStream, OutgoingProxyHeader, Proxy};
use crate::admission::ConnectionPermit;
use crate::net::options::reset_on_close;
use crate::net::{Peer, local_address, wait_for_hangup};
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::pool::{Lease, Pool};
use crate::relay::{
    ConnectFailure, ConnectHandler, Framing, NewSession, SessionGuards, SessionLimits,
    SocketHandoff, Transport,
};

/// The wait after which a client is watched: nearly every connect is done before, and pays no system call for it.
const WATCH_AFTER: Duration = Duration::from_millis(50);

/// The wait for a descriptor: one may be freed by others than our connections.
const RETRY_SHORTAGE: Duration = Duration::from_millis(50);

pub(super) struct TcpConnect {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Peer,
    /// For a pool that sends PROXY headers; without it the client's addresses are all that is known.
    pub introduction: Option<Box<OutgoingProxyHeader>>,
    pub search: RetryState,
}

/// Who is to get a backend, and all that it holds.
pub(super) struct TcpClient {
    pub leg: SocketHandoff,
    pub record: ConnectionRecord,
    pub place: ConnectionPermit,
}

impl TcpConnect {
    /// Gives the client a backend, or a RST.
    pub async fn run(self, mut caller: TcpClient) {
        let step = RetryState::begin(&mut caller.record);
        self.finish(step, caller).await;
    }

    /// The same on a relay thread, as far as that goes without a wait: there is a session once a connect has begun.
    pub fn begin(self, pool: &Arc<Pool>, mut caller: TcpClient) -> Option<NewSession> {
        let step = RetryState::begin(&mut caller.record);
        self.advance(pool, step, caller)
    }

    /// What needs a wait (a queue, a PROXY header, a handshake with the backend) is left to the set-up plane.
    fn advance(
        mut self,
        pool: &Arc<Pool>,
        mut step: RetryStep,
        mut caller: TcpClient,
    ) -> Option<NewSession> {
        loop {
            let record = &mut caller.record;
            step = match step {
                RetryStep::Refuse(error) => {
                    caller.turn_away(pool, &error);
                    return None;
                }
                RetryStep::Pick => match pool.acquire_now(&self.search.pick()) {
                    Some(answer) => self.search.picked(pool, answer, record, Instant::now()),
                    None => {
                        self.leave(RetryStep::Pick, caller);
                        return None;
                    }
                },
                RetryStep::Connect(lease) => {
                    let approach = Connector::to(lease.backend(), pool);
                    if !approach.is_bare() {
                        self.leave(RetryStep::Connect(lease), caller);
                        return None;
                    }
                    let attempt = ConnectAttempt::new(&lease, Instant::now());
                    match approach.begin() {
                        Ok(socket) => {
                            let backend = SocketHandoff {
                                socket,
                                transport: Transport::Raw,
                                read: Vec::new(),
                            };
                            return Some(self.session(pool, caller, backend, lease, attempt, true));
                        }
                        // The client took the last descriptor: it waits, and the next accept finds none and pauses.
                        Err(error) if error.is_ours() => {
                            self.leave_for_room(RetryStep::Connect(lease), caller);
                            return None;
                        }
                        Err(error) => {
                            let why = ConnectFailure::Connect(error);
                            let now = Instant::now();
                            self.search
                                .unserved(pool, attempt, Some(lease), why, record, now)
                        }
                    }
                }
            };
        }
    }

    /// Takes the search to its end in the set-up plane.
    async fn finish(mut self, step: RetryStep, mut caller: TcpClient) {
        let Some(pool) = self.pool.upgrade() else {
            drop(step);
            return caller.refuse_unrouted();
        };
        let client = caller.leg.socket.as_fd();
        if pool.settings().send_proxy.is_some() && self.introduction.is_none() {
            let known = OutgoingProxyHeader::plain(self.client, local_address(client));
            self.introduction = Some(Box::new(known));
        }
        let introduction = self.introduction.as_deref();
        // Both may be dropped: the search leaves the queue or gives its lease back, the watch takes nothing.
        let found = tokio::select! {
            biased;
            found = finish(&mut self.search, step, &pool, introduction, &mut caller.record) => found,
            () = left_waiting(client) => {
                let end = Termination::new(Side::Client, caller.record.phase, Cause::Rst);
                return caller.refuse(end);
            }
        };
        match found {
            Ok((backend, lease)) => self.adopt(&pool, caller, backend, lease),
            Err(error) => caller.turn_away(&pool, &error),
        }
    }

    /// Hands the session to the relay and is done with it, unless it comes back.
    fn adopt(self, pool: &Pool, mut caller: TcpClient, backend: MaybeTlsStream, lease: Lease) {
        let backend = match backend.into_leg(Vec::new()) {
            Ok(backend) => backend,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                return caller.refuse(Termination::new(
                    Side::Evenkeel,
                    Phase::Connect,
                    Cause::Error,
                ));
            }
        };
        caller.record.opened();
        let proxy = Arc::clone(&self.proxy);
        let attempt = ConnectAttempt::new(&lease, Instant::now());
        let session = self.session(pool, caller, backend, lease, attempt, false);
        proxy.relay.adopt(session);
    }

    fn session(
        self,
        pool: &Pool,
        caller: TcpClient,
        backend: SocketHandoff,
        lease: Lease,
        attempt: ConnectAttempt,
        connecting: bool,
    ) -> NewSession {
        let settings = pool.settings();
        let begun = PendingSession {
            connect_timeout_ms: milliseconds(settings.connect_timeout),
            attempt,
            errand: self,
        };
        NewSession {
            client: caller.leg,
            backend,
            framing: Framing::Bytes,
            connecting,
            limits: SessionLimits::of(&settings),
            record: caller.record,
            guards: SessionGuards::new(lease, caller.place),
            connect_handler: Some(Box::new(begun)),
            resume_policy: None,
        }
    }

    /// Goes on in the set-up plane.
    fn leave(self, step: RetryStep, caller: TcpClient) {
        let runtime = self.proxy.runtime.clone();
        runtime.spawn(self.finish(step, caller));
    }

    /// The same when something was freed, or soon.
    fn leave_for_room(self, step: RetryStep, caller: TcpClient) {
        let proxy = Arc::clone(&self.proxy);
        proxy.runtime.clone().spawn(async move {
            let _ = tokio::time::timeout(RETRY_SHORTAGE, proxy.limits.freed()).await;
            self.finish(step, caller).await;
        });
    }
}

impl TcpClient {
    fn turn_away(self, pool: &Pool, error: &DispatchError) {
        tracing::debug!(pool = %pool.name(), %error, "refused");
        self.refuse(error.end());
    }

    /// Nothing leads anywhere from what it asks for, or a reload has removed its pool.
    pub fn refuse_unrouted(self) {
        self.record.refused(Refusal::NoRoute);
        self.refuse(Termination::new(
            Side::Evenkeel,
            Phase::Route,
            Cause::Refused,
        ));
    }

    /// A refusal is a RST: nothing must look like an orderly, empty answer.
    pub fn refuse(self, end: Termination) {
        let Self { leg, record, place } = self;
        reset_on_close(leg.socket.as_fd());
        drop(leg);
        record.finish(end);
        drop(place);
    }
}

/// An errand whose backend is connected, or about to be, and has not served yet.
struct PendingSession {
    errand: TcpConnect,
    /// Of a connect that the set-up plane made it begins when that was done.
    attempt: ConnectAttempt,
    connect_timeout_ms: u32,
}

// A connection on which no byte was said has one, perhaps for hours; the allocator's next size is 192.
const _: () = assert!(size_of::<PendingSession>() <= 160);

/// At most 49 days.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl ConnectHandler for PendingSession {
    fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    fn gives_up(&mut self) -> bool {
        let Self {
            errand, attempt, ..
        } = self;
        let pool = errand.pool.upgrade();
        pool.is_some_and(|pool| errand.search.gives_up(&pool, attempt, Instant::now()))
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
            errand, attempt, ..
        } = self;
        let pool = errand.pool.upgrade();
        pool.is_some_and(|pool| errand.search.has_other(&pool, &attempt.backend))
    }

    fn failed(
        self: Box<Self>,
        why: ConnectFailure,
        client: SocketHandoff,
        record: ConnectionRecord,
        held: SessionGuards,
    ) {
        let Self {
            mut errand,
            attempt,
            ..
        } = *self;
        let SessionGuards {
            lease,
            permit: place,
        } = held;
        let mut caller = TcpClient {
            leg: client,
            record,
            place,
        };
        let Some(pool) = errand.pool.upgrade() else {
            drop(lease);
            return caller.refuse_unrouted();
        };
        let (record, now) = (&mut caller.record, Instant::now());
        let search = &mut errand.search;
        let step = search.unserved(&pool, attempt, lease, why, record, now);
        let relay = Arc::clone(&errand.proxy.relay);
        if let Some(session) = errand.advance(&pool, step, caller) {
            relay.adopt(session);
        }
    }
}

/// The client hung up while it waited for long.
async fn left_waiting(client: BorrowedFd<'_>) {
    tokio::time::sleep(WATCH_AFTER).await;
    wait_for_hangup(client).await;
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admission::Limits;
    use crate::config;
    use crate::observe::{Journal, ListenerCounters};
    use crate::pool::BackendRequest;
    use crate::proxy::{HandshakeLimiter, HardStop, Relay};

    /// A pool of a backend whose connect fails at once, on whatever thread, and of one that listens.
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
                proxy: Arc::new(Proxy {
                    relay: Relay::start(1, usize::MAX).unwrap(),
                    journal,
                    limits: Limits::new(&config.global, 0),
                    handshakes: HandshakeLimiter::new(
                        &config.global,
                        tokio::runtime::Handle::current(),
                    ),
                    runtime: tokio::runtime::Handle::current(),
                    stopping: CancellationToken::new(),
                    hard_stop: HardStop::default(),
                }),
                node,
            }
        }

        /// As the door does it for a connection that has come; and the client's end.
        fn arrive(&self) -> (Option<NewSession>, UnixStream) {
            let (client, ours) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let errand = TcpConnect {
                proxy: Arc::clone(&self.proxy),
                pool: Arc::downgrade(&self.pool),
                client: Peer::Unix,
                introduction: None,
                search: RetryState::default(),
            };
            let caller = TcpClient {
                leg: SocketHandoff {
                    socket: OwnedFd::from(ours),
                    transport: Transport::Raw,
                    read: Vec::new(),
                },
                record: ConnectionRecord::new(&self.counters, Peer::Unix),
                place: self.proxy.limits.slot().place(),
            };
            (errand.begin(&self.pool, caller), client)
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
