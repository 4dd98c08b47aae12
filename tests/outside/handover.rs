//! The hand-over from set-up to relay: bytes sent together with the connection, the handshake or the upgrade, with
//! nothing following them, all arrive; and a session that was handed over carries records and key updates for long.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt as _;

use crate::certificates::{Certificate, client_of};
use crate::clients::{connect, read_exactly};
use crate::harness::{Balancer, Launch, PATIENCE, within};
use crate::nodes::{Node, read_request, switching};
use crate::settings::{backend, listener, listener_with, pool};

/// 0 to 150 KB, around every buffer on the way.
const SIZES: [usize; 18] = [
    0, 1, 2, 100, 1_000, 4_096, 8_191, 8_192, 8_193, 16_384, 16_385, 32_768, 40_000, 65_536,
    80_000, 100_000, 131_072, 150_000,
];

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn sequence(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_mul(29) ^ (i >> 7) ^ seed.wrapping_mul(113)) as u8)
        .collect()
}

/// A node that sends `down` bytes with the first thing it says, and judges the client's first `up` bytes by one more:
/// `+` when they came as they were sent.
async fn early_node(upgrade: bool, up: usize, down: usize) -> Node {
    Node::scripted(move |mut stream, _| async move {
        let mut buffer = Vec::new();
        let mut early = Vec::new();
        if upgrade {
            let Some(request) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            early.extend(
                switching(request.header("sec-websocket-key").expect("a key")).into_bytes(),
            );
        }
        early.extend(sequence(2, down));
        // In one piece: the head of the answer and what follows it, from a task of its own while the client's are read.
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&early).await.expect("write");
            write
        });
        while buffer.len() < up {
            let count = tokio::io::AsyncReadExt::read_buf(&mut read, &mut buffer)
                .await
                .expect("read");
            assert!(
                count > 0,
                "the stream ended after {} of {up} bytes",
                buffer.len()
            );
        }
        let whole = buffer == sequence(1, up);
        let mut write = writing.await.expect("written");
        write
            .write_all(if whole { b"+" } else { b"-" })
            .await
            .expect("write");
        let mut byte = [0];
        let _ = tokio::io::AsyncReadExt::read(&mut read, &mut byte).await;
    })
    .await
}

fn config_for(node: &Node, protocol: &str, tls: Option<&Certificate>) -> String {
    let keys =
        tls.map(|certificate| format!("tls = {{ certificates = [{}] }}", certificate.toml()));
    listener_with("main", protocol, "nodes", &keys.unwrap_or_default())
        + &pool("nodes", "", &[backend("n1", node.address)])
}

async fn plain_session(address: SocketAddr, upgrade: bool, up: usize, down: usize) {
    let stream = connect(address).await;
    let (mut read, mut write) = stream.into_split();
    let mut early = if upgrade {
        UPGRADE.as_bytes().to_vec()
    } else {
        Vec::new()
    };
    early.extend(sequence(1, up));
    let writing = tokio::spawn(async move {
        write.write_all(&early).await.expect("write");
        write
    });
    if upgrade {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_exactly(&mut read, 1).await);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
    }
    assert!(
        read_exactly(&mut read, down).await == sequence(2, down),
        "{down} bytes down came changed"
    );
    assert_eq!(
        read_exactly(&mut read, 1).await,
        b"+",
        "{up} bytes up came changed"
    );
    drop(writing.await.expect("written"));
}

#[tokio::test]
async fn bytes_sent_with_the_connection_arrive() {
    for up in SIZES {
        let down = 150_000 - up;
        let node = early_node(false, up, down).await;
        let balancer = Balancer::start(&config_for(&node, "tcp", None));
        plain_session(balancer.address("main").await, false, up, down).await;
    }
}

#[tokio::test]
async fn bytes_sent_with_the_upgrade_arrive() {
    for (up, down) in SIZES
        .into_iter()
        .zip(SIZES.into_iter().rev())
        .chain(SIZES.into_iter().zip(SIZES))
    {
        let node = early_node(true, up, down).await;
        let balancer = Balancer::start(&config_for(&node, "websocket", None));
        plain_session(balancer.address("main").await, true, up, down).await;
    }
}

/// A TLS client that decides which bytes leave in one write.
struct Wire {
    stream: std::net::TcpStream,
    tls: ClientConnection,
}

impl Wire {
    fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Wire {
        let stream = std::net::TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set a timeout");
        let mut tls =
            ClientConnection::new(config.clone(), "a.example".try_into().expect("a name"))
                .expect("a client");
        tls.set_buffer_limit(None);
        Wire { stream, tls }
    }

    /// Handshakes, and sends the last flight and `early` in one write.
    fn handshake_with(&mut self, early: &[u8]) {
        loop {
            if self.tls.is_handshaking() {
                let mut flight = Vec::new();
                while self.tls.wants_write() {
                    self.tls.write_tls(&mut flight).expect("a flight");
                }
                // A flight that completes the handshake waits for the early bytes; TLS 1.2 has one more round.
                self.stream.write_all(&flight).expect("write");
                self.tls.read_tls(&mut self.stream).expect("read");
                self.tls.process_new_packets().expect("a handshake");
                continue;
            }
            break;
        }
        self.send(early);
    }

    /// Sends `bytes` in one write, with whatever else is due.
    fn send(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("take the bytes");
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("records");
        }
        self.stream.write_all(&records).expect("write");
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.tls.reader().read(&mut bytes[filled..]) {
                Ok(0) => panic!("the stream ended after {filled} of {count} bytes"),
                Ok(read) => filled += read,
                Err(_) => {
                    let read = self.tls.read_tls(&mut self.stream).expect("bytes in time");
                    assert!(read > 0, "the stream ended after {filled} of {count} bytes");
                    self.tls.process_new_packets().expect("records");
                    self.flush();
                }
            }
        }
        bytes
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream).expect("write");
        }
    }

    fn read_head(&mut self) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1));
        }
        head
    }
}

async fn blocking(what: &str, work: impl FnOnce() + Send + 'static) {
    within(what, tokio::task::spawn_blocking(work))
        .await
        .expect("no panic");
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Each size with TLS 1.3 and 1.2, first with a full handshake, then resumed.
async fn early_over_tls(protocol: &'static str) {
    let upgrade = protocol == "websocket";
    for (up, down) in SIZES
        .into_iter()
        .zip(SIZES.into_iter().rev())
        .step_by(2)
        .chain([(150_000, 150_000)])
    {
        let node = early_node(upgrade, up, down).await;
        let launch = Launch::new();
        let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
        let balancer = launch.start(&config_for(&node, protocol, Some(&certificate)));
        let address = balancer.address("main").await;
        for version in VERSIONS {
            let config = client_of(&[&certificate], &[version]);
            for kind in ["full", "resumed"] {
                let config = config.clone();
                blocking("a session", move || {
                    let mut wire = Wire::connect(address, &config);
                    let mut early = if upgrade {
                        UPGRADE.as_bytes().to_vec()
                    } else {
                        Vec::new()
                    };
                    early.extend(sequence(1, up));
                    wire.handshake_with(&early);
                    if upgrade {
                        assert!(wire.read_head().starts_with(b"HTTP/1.1 101"));
                    }
                    assert!(
                        wire.read(down) == sequence(2, down),
                        "{down} bytes down came changed"
                    );
                    assert_eq!(wire.read(1), b"+", "{up} bytes up came changed");
                    let resumed = wire.tls.handshake_kind() == Some(HandshakeKind::Resumed);
                    assert_eq!(resumed, kind == "resumed", "{version:?}");
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn bytes_sent_with_the_tls_handshake_arrive() {
    early_over_tls("tcp").await;
}

#[tokio::test]
async fn bytes_sent_with_the_upgrade_over_tls_arrive() {
    early_over_tls("websocket").await;
}

#[tokio::test]
async fn ten_thousand_records_each_way_with_key_updates_arrive() {
    let node = Node::scripted(|stream, _| crate::nodes::echo(stream)).await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let balancer = launch.start(&config_for(&node, "tcp", Some(&certificate)));
    let address = balancer.address("main").await;
    for version in VERSIONS {
        let config = client_of(&[&certificate], &[version]);
        for kind in ["full", "resumed"] {
            let config = config.clone();
            blocking("10,000 records", move || {
                let mut wire = Wire::connect(address, &config);
                wire.handshake_with(b"");
                for record in 0..10_000_usize {
                    if version.version == rustls::ProtocolVersion::TLSv1_3 && record % 500 == 499 {
                        // The peer must answer with an update of its own: both directions get new keys.
                        wire.tls.refresh_traffic_keys().expect("a key update");
                    }
                    let bytes = sequence(record, 1 + record % 700);
                    wire.send(&bytes);
                    assert!(
                        wire.read(bytes.len()) == bytes,
                        "record {record} came changed ({version:?}, {kind})"
                    );
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn many_sessions_at_once_keep_their_bytes_apart() {
    let node = Node::scripted(|stream, _| crate::nodes::echo(stream)).await;
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut sessions = tokio::task::JoinSet::new();
    for session in 0..100 {
        sessions.spawn(async move {
            let mut stream = connect(address).await;
            for message in 0..20 {
                let bytes = sequence(session * 20 + message, 1 + 997 * (message + session % 7));
                crate::clients::echoed(&mut stream, &bytes).await;
            }
        });
    }
    while let Some(session) = sessions.join_next().await {
        session.expect("a session");
    }
}
