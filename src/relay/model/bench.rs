//! What the relay's tests and its fuzz target stand on: a relay with one worker, legs, and the
//! sockets at their outer ends.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use crate::admission::{ConnectionPermit, Limits};
use crate::config::{AccessLog, LogAt, LogFormat, LogOutput};
use crate::net::Peer;
use crate::observe::{ConnectionRecord, Journal, ListenerCounters};
use crate::relay::{
    ArrivingParts, ArrivingResume, ArrivingSession, Cursor, Framing, FrozenSession, MAX_BATCH,
    NewSession, Relay, SessionGuards, SessionLimits, SocketHandoff, Tls, Transport,
};
use crate::wire::moved::{decode, encode};

const LONG: Duration = Duration::from_secs(20);

/// A relay with one worker, another one for sessions that move, and what their records are made
/// of.
pub struct Bench {
    pub relay: Arc<Relay>,
    pub other: Arc<Relay>,
    pub counters: Arc<ListenerCounters>,
}

impl Bench {
    #[cfg_attr(
        fuzzing,
        expect(clippy::new_without_default, reason = "it starts a thread")
    )]
    pub fn new() -> Self {
        Self::with_max_held(usize::MAX)
    }

    pub fn with_max_held(max_held: usize) -> Self {
        Self::with_log(max_held, LogOutput::Off)
    }

    pub fn with_log(max_held: usize, output: LogOutput) -> Self {
        let settings = AccessLog {
            output,
            format: LogFormat::Json,
            log_at: LogAt {
                open: false,
                interval: false,
                resume: false,
                end: true,
            },
            interval: LONG,
            max_queue: 64,
            log_null: true,
        };
        let journal = Journal::new(&settings).unwrap();
        let counters = ListenerCounters::new("test", &journal);
        Self {
            relay: Relay::start(1, max_held).unwrap(),
            other: Relay::start(1, max_held).unwrap(),
            counters,
        }
    }

    pub fn adopt(
        &self,
        client: SocketHandoff,
        backend: SocketHandoff,
        policy: SessionLimits,
    ) -> SessionEnd {
        let (guards, lease) = guards();
        let peer = Peer::tcp("192.0.2.1:1".parse().unwrap());
        self.relay.adopt(NewSession {
            client,
            backend,
            limits: policy,
            framing: Framing::Bytes,
            connecting: false,
            record: ConnectionRecord::new(&self.counters, peer),
            guards,
            connect_handler: None,
            resume_policy: None,
        });
        lease
    }

    fn relays(&self) -> [&Arc<Relay>; 2] {
        [&self.relay, &self.other]
    }

    pub fn set_max_held(&self, max_held: usize) {
        for relay in self.relays() {
            relay.set_max_held(max_held);
        }
    }

    /// Sessions of both relays.
    pub fn live(&self) -> u64 {
        self.relays().iter().map(|relay| relay.live()).sum()
    }

    /// Bytes that both relays hold.
    pub fn held_bytes(&self) -> u64 {
        self.relays().iter().map(|relay| relay.held_bytes()).sum()
    }

    /// Freezes the sessions of the relay that has some, and says which one that is.
    pub fn freeze(&self) -> (Vec<FrozenSession>, usize) {
        for (number, relay) in self.relays().into_iter().enumerate() {
            let mut frozen = Vec::new();
            let mut from = Some(Cursor::default());
            while let Some(cursor) = from {
                let batch = wait_for(relay.freeze(cursor, MAX_BATCH));
                frozen.extend(batch.sessions);
                from = batch.next;
            }
            if !frozen.is_empty() {
                return (frozen, number);
            }
        }
        (Vec::new(), 0)
    }

    /// Moves a frozen session to the other relay than `from`, by its bytes and duplicates of its
    /// sockets. `guards` are those that it gets there.
    pub fn land(
        &self,
        frozen: FrozenSession,
        from: usize,
        guards: SessionGuards,
        resume: Option<ArrivingResume>,
    ) {
        let mut bytes = Vec::new();
        encode(&frozen.export().unwrap(), &mut bytes);
        let state = decode(&bytes).unwrap();
        let (client, backend) = frozen.sockets();
        let copy = |socket: Option<BorrowedFd<'_>>| {
            socket.map(|socket| socket.try_clone_to_owned().unwrap())
        };
        let (client, backend) = (copy(client), copy(backend));
        let parts = ArrivingParts {
            listener: Arc::clone(&self.counters),
            backend: None,
            guards,
            resume,
        };
        let arriving = ArrivingSession::new(state, parts).unwrap();
        // As it must be: the old copies are closed before anything can happen to the new ones.
        let ghost = frozen.commit();
        let to = self.relays()[1 - from];
        to.adopt_moved(arriving, client.unwrap(), backend).unwrap();
        drop(ghost);
    }

    pub fn ends(&self) -> Vec<String> {
        let seen = self.counters.ends.seen();
        seen.into_iter()
            .map(|(end, count)| format!("{end} x{count}"))
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.relay.shutdown();
        self.other.shutdown();
    }
}

pub fn policy() -> SessionLimits {
    SessionLimits {
        idle_timeout: LONG,
        fin_timeout: LONG,
        max_lifetime: None,
    }
}

/// Two ends of one TCP connection; the outer one blocks, but not for ever.
pub fn pair() -> (TcpStream, TcpStream) {
    connect_to(&TcpListener::bind("127.0.0.1:0").unwrap())
}

/// A connection with queues that a few hundred kilobytes fill.
pub fn tight_pair() -> (TcpStream, TcpStream) {
    connect_to(&tight_listener())
}

/// A listener whose connections have small queues, at the other end when that asks [`tighten`]
/// before.
pub fn tight_listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    tighten(&listener);
    listener
}

/// A listener whose queue is full: a connect to it gets no answer.
pub fn full_listener() -> &'static TcpListener {
    static MADE: OnceLock<(TcpListener, TcpStream)> = OnceLock::new();
    let (listener, _queued) = MADE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // A second call changes the queue's length.
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let queued = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, queued)
    });
    listener
}

/// Accepted sockets inherit it.
pub fn tighten(socket: &impl AsFd) {
    let socket = socket2::SockRef::from(socket);
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
}

fn connect_to(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (inner, _) = listener.accept().unwrap();
    inner.set_nonblocking(true).unwrap();
    outer.set_read_timeout(Some(LONG)).unwrap();
    outer.set_write_timeout(Some(LONG)).unwrap();
    (outer, inner)
}

pub fn raw(inner: TcpStream, read: &[u8]) -> SocketHandoff {
    SocketHandoff {
        socket: inner.into(),
        transport: Transport::Raw,
        read: read.to_vec(),
    }
}

/// Waits until the session's guards are dropped. A timeout of a model's case is up to 12 s, and
/// comes again while a slow peer makes progress.
pub fn over(end: &SessionEnd) {
    assert!(end.comes_within(3 * LONG), "a session does not end");
}

/// Guards of a session that counts against limits of its own, and the end of it.
pub fn guards() -> (SessionGuards, SessionEnd) {
    let limits = Limits::unbounded();
    let permit = ConnectionPermit::unlisted(&limits);
    let guards = SessionGuards {
        lease: None,
        permit,
    };
    (guards, SessionEnd(limits))
}

/// The end of one session: its guards are dropped.
pub struct SessionEnd(Arc<Limits>);

/// Waits on this thread for what another one brings.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        std::thread::park_timeout(LONG);
    }
}

impl SessionEnd {
    /// Guards that the session gets in another relay.
    pub fn guards_again(&self) -> SessionGuards {
        SessionGuards {
            lease: None,
            permit: ConnectionPermit::unlisted(&self.0),
        }
    }

    pub fn has_come(&self) -> bool {
        self.0.live() == 0
    }

    /// Waits for it, at most this long.
    pub fn comes_within(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut emptied = std::pin::pin!(self.0.emptied());
        while emptied
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            let Some(left) = patience.checked_sub(begun.elapsed()) else {
                return false;
            };
            std::thread::park_timeout(left);
        }
        true
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Numbered, so that a loss or a swap shows.
pub fn numbers(length: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(length).collect()
}

type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

/// Both ends' configurations, made once: all handshakes but a few are resumed.
fn tls_configs(version: &'static SupportedProtocolVersion) -> Configs {
    static MADE: [OnceLock<Configs>; 2] = [const { OnceLock::new() }; 2];
    let place = usize::from(version.version == rustls::ProtocolVersion::TLSv1_3);
    MADE[place]
        .get_or_init(|| make_tls_configs(version))
        .clone()
}

fn make_tls_configs(version: &'static SupportedProtocolVersion) -> Configs {
    crate::tls::install_provider();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.enable_secret_extraction = true;
    server.key_log = crate::tls::record::key_log();
    (Arc::new(client), Arc::new(server))
}

pub type TlsClient = rustls::StreamOwned<ClientConnection, TcpStream>;

/// A TLS leg and the client at its other end, which has sent `early` together with the end of its
/// handshake.
pub fn tls_leg(
    version: &'static SupportedProtocolVersion,
    early: &[u8],
) -> (SocketHandoff, TlsClient) {
    tls_leg_over(pair(), version, usize::MAX, early)
}

/// A TLS leg over a given connection, with a client that puts no more than so many bytes into a
/// record.
pub fn tls_leg_over(
    (client, inner_client): (TcpStream, TcpStream),
    version: &'static SupportedProtocolVersion,
    fragment: usize,
    early: &[u8],
) -> (SocketHandoff, TlsClient) {
    let (client_config, server_config) = tls_configs(version);
    let mut client_config = ClientConfig::clone(&client_config);
    client_config.max_fragment_size = Some(fragment).filter(|&size| size < 1 << 14);
    let client_config = Arc::new(client_config);
    let connection =
        ClientConnection::new(client_config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut client = rustls::StreamOwned::new(connection, client);
    let shaking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let inner = tokio::net::TcpStream::from_std(inner_client).unwrap();
            let mut stream = crate::tls::accept(inner, server_config).await.unwrap();
            tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
            let parts = stream.into_parts();
            (
                parts.io.into_std().unwrap(),
                parts.session,
                parts.plain,
                parts.output,
            )
        })
    });
    client.write_all(early).unwrap();
    client.flush().unwrap();
    let (inner_client, session, read, output) = shaking.join().unwrap();
    let leg = SocketHandoff {
        socket: inner_client.into(),
        transport: Transport::Tls(Tls {
            session: Box::new(session),
            output,
        }),
        read,
    };
    (leg, client)
}
