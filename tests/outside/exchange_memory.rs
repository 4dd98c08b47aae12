//! Memory of exchanges whose peers take nothing: it is counted, it stays within the budget, and others are served.

use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::certificates::{Certificate, client};
use crate::clients::connect;
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::{Node, read_request};
use crate::settings::{backend, listener, listener_with, pool};
use crate::wires::{LAST_GET, OK, Wire};

/// Peers that take nothing. One full read for each would be more than the budget and what is allowed beside it.
const STALLED: usize = 150;
const OTHERS: usize = 5;
const BUDGET_BYTES: usize = 1 << 20;
/// What each connection may hold beside the budget, plain and over TLS: a small read, and its record.
const PLAIN_BYTES: usize = 8 << 10;
const TLS_BYTES: usize = 16 << 10;
const BODY_BYTES: usize = 8 << 20;
const PIECE: &[u8] = &[b'x'; 64 << 10];
/// Looks at the counter while everybody stalls.
const LOOKS: usize = 50;

/// Answers `/` with a few bytes and everything else with many; takes nothing of a body.
async fn node() -> Node {
    Node::scripted(|mut stream, _| async move {
        let mut read = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut read).await {
            if request.method == "POST" {
                return std::future::pending().await;
            }
            if request.target == "/" {
                let _ = stream.write_all(OK.as_bytes()).await;
                continue;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            for _ in 0..BODY_BYTES / PIECE.len() {
                if stream.write_all(PIECE).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// The smallest budget; nobody is given up.
fn config(node: &Node, tls: &str) -> String {
    let keys = "send_timeout = \"1h\"\nresponse_timeout = \"1h\"\nbody_timeout = \"1h\"";
    "[global]\nlog_format = \"json\"\nwatch = false\nmax_buffered = \"1MiB\"\n\n".to_owned()
        + &listener("main", "websocket", "nodes")
        + &listener_with("tls", "websocket", "nodes", tls)
        + &pool("nodes", keys, &[backend("n1", node.address)])
}

async fn buffered(balancer: &Balancer) -> usize {
    balancer.metric(&["evenkeel_buffered_bytes"]).await as usize
}

/// Connects with a small receive buffer, so that the kernel takes little for a client that reads nothing. It leaves by a
/// RST: a FIN would wait behind bytes that nobody takes.
async fn small(balancer: &Balancer, listener: &str) -> TcpStream {
    let address = balancer.address(listener).await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    let connected = tokio::task::spawn_blocking(move || {
        socket.connect(&address.into()).expect("connect");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        std::net::TcpStream::from(socket)
    });
    let stream = within("a connection", connected).await.expect("no panic");
    TcpStream::from_std(stream).expect("a stream")
}

/// Waits until bytes are counted, then looks again and again while other clients are served.
async fn stays_within(balancer: &Balancer, per_connection: usize) {
    within("bytes to be counted", async {
        while buffered(balancer).await == 0 {
            a_moment().await;
        }
    })
    .await;
    let bound = BUDGET_BYTES + STALLED * per_connection;
    let mut most = 0;
    for _ in 0..LOOKS {
        most = buffered(balancer).await.max(most);
        a_moment().await;
    }
    assert!(most <= bound, "{most} of {bound}");
    for _ in 0..OTHERS {
        let mut other = Wire::client(balancer).await;
        other.send(LAST_GET).await;
        other.ok().await;
    }
    // Others have their first byte of much, too.
    for _ in 0..OTHERS {
        let mut other = Wire::client(balancer).await;
        other.send(LAST_GET.replace("GET /", "GET /large")).await;
        assert_eq!(other.exactly(1).await, b"H");
    }
    let after = buffered(balancer).await;
    assert!(after <= bound, "{after} of {bound}");
}

async fn is_given_back(balancer: &Balancer) {
    within("all to be given back", async {
        while buffered(balancer).await != 0 {
            a_moment().await;
        }
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_not_read_stay_within_the_budget() {
    let node = node().await;
    let balancer = Balancer::start(&config(&node, ""));
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut stream = small(&balancer, "main").await;
        let request = LAST_GET.replace("GET /", "GET /large");
        stream.write_all(request.as_bytes()).await.expect("write");
        stalled.push(stream);
    }
    node.reached(STALLED).await;
    stays_within(&balancer, PLAIN_BYTES).await;
    drop(stalled);
    is_given_back(&balancer).await;
}

#[tokio::test]
async fn answers_that_are_not_read_over_tls_stay_within_the_budget() {
    let node = node().await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let balancer = launch.start(&config(&node, &keys));
    let connector = TlsConnector::from(client(&[&certificate]));
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let stream = small(&balancer, "tls").await;
        let name = "a.example".try_into().expect("a name");
        let connected = within("TLS", connector.connect(name, stream)).await;
        let mut stream = connected.expect("TLS");
        let request = LAST_GET.replace("GET /", "GET /large");
        stream.write_all(request.as_bytes()).await.expect("write");
        stream.flush().await.expect("flush");
        stalled.push(stream);
    }
    node.reached(STALLED).await;
    stays_within(&balancer, TLS_BYTES).await;
    drop(stalled);
    is_given_back(&balancer).await;
}

#[tokio::test]
async fn uploads_that_a_node_does_not_take_stay_within_the_budget() {
    let node = node().await;
    let balancer = Balancer::start(&config(&node, ""));
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let mut stalled = JoinSet::new();
    for _ in 0..STALLED {
        let mut stream = small(&balancer, "main").await;
        let head = head.clone();
        stalled.spawn(async move {
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(PIECE).await;
            }
        });
    }
    node.reached(STALLED).await;
    stays_within(&balancer, PLAIN_BYTES).await;
    stalled.shutdown().await;
    node.kill().await;
    is_given_back(&balancer).await;
}

/// Reads to the end and counts what comes behind the head.
async fn body_length(stream: &mut TcpStream) -> usize {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.expect("a head"));
    }
    let (mut length, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match within("an answer", stream.read(&mut buffer)).await {
            Ok(0) => return length,
            Ok(count) => length += count,
            Err(error) => panic!("{error} behind {length} bytes"),
        }
    }
}

/// At the budget a source is not read, and none is refused: all is delivered once it is read.
#[tokio::test]
async fn all_that_stalled_is_delivered_once_it_is_read() {
    const READERS: usize = 20;
    let node = node().await;
    let balancer = Balancer::start(&config(&node, ""));
    let mut stalled = Vec::new();
    for _ in 0..READERS {
        let mut stream = connect(balancer.address("main").await).await;
        let request = LAST_GET.replace("GET /", "GET /large");
        stream.write_all(request.as_bytes()).await.expect("write");
        stalled.push(stream);
    }
    node.reached(READERS).await;
    let lengths = stalled.iter_mut().map(body_length);
    let lengths = futures_util::future::join_all(lengths).await;
    assert_eq!(lengths, [BODY_BYTES; READERS]);
    is_given_back(&balancer).await;
}
