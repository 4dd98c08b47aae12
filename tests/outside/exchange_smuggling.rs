//! Requests that two readers could end at different places, over a real socket: each is answered
//! with its status, and nothing reaches a node but what was valid before it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::clients::Ending;
use crate::harness::{Balancer, Launch};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool, simple};
use crate::wires::{GET, ManualNode, OK, Wire, manual};

/// Fields of a POST, behind its Host. Each is a 400.
const POST_FIELDS: &[&[u8]] = &[
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: 0x5",
    b"Content-Length: 5 5",
    b"Content-Length:",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 9223372036854775808",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n\tchunked",
];

/// Fields of a GET, behind its Host. Each is a 400.
const GET_FIELDS: &[&[u8]] = &[
    b"X: a\0b",
    b"X\0: b",
    b"X: a\x7fb",
    b": b",
    b"X Y: b",
    b"X",
    b"\xc3\xa9: b",
    b"Host: b",
    b"Host: a",
];

/// Whole requests with their status.
const REQUESTS: &[(&[u8], u16)] = &[
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        400,
    ),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Content-Length: 6\r\n\r\n0\r\n\r\nX",
        400,
    ),
    (
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (b"POST / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
          Content-Length: 1\r\n\r\nx",
        400,
    ),
];

/// All of them, with their status.
fn smuggling() -> Vec<(Vec<u8>, u16)> {
    let with = |start: &str, fields: &[u8]| [start.as_bytes(), fields, b"\r\n\r\n"].concat();
    let posts = POST_FIELDS
        .iter()
        .map(|fields| (with("POST / HTTP/1.1\r\nHost: a\r\n", fields), 400));
    let gets = GET_FIELDS
        .iter()
        .map(|fields| (with("GET / HTTP/1.1\r\nHost: a\r\n", fields), 400));
    let whole = REQUESTS
        .iter()
        .map(|(request, status)| (request.to_vec(), *status));
    posts.chain(gets).chain(whole).collect()
}

/// What a node was sent, over all its connections.
type Received = Arc<Mutex<Vec<u8>>>;

/// A node that answers each head that it is sent, and keeps every byte.
async fn recording() -> (Node, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let node = Node::scripted(move |mut stream, _| {
        let kept = Arc::clone(&kept);
        async move {
            let mut read = Vec::new();
            loop {
                let from = read.len();
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
                kept.lock().unwrap().extend(&read[from..]);
                if read.ends_with(b"\r\n\r\n") {
                    read.clear();
                    let _ = stream.write_all(OK.as_bytes()).await;
                }
            }
        }
    })
    .await;
    (node, received)
}

fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    let windows = bytes.windows(wanted.len());
    windows.filter(|window| *window == wanted).count()
}

const VALID: &str = "GET /valid HTTP/1.1\r\nHost: a\r\n\r\n";
const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn assert_only_valid(received: &Received, valid: usize) {
    let bytes = received.lock().unwrap();
    let text = bytes.escape_ascii().to_string();
    // Each head ends in an empty line; a second one, or a body, would be more.
    let heads = count(&bytes, b"\r\n\r\n");
    let starts = count(&bytes, b"GET /valid HTTP/1.1\r\n");
    assert_eq!((heads, starts), (valid, valid), "{text}");
    assert_eq!(count(&bytes, b"HTTP/1.1\r\n"), valid, "{text}");
    assert!(bytes.is_empty() || bytes.ends_with(b"\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn each_is_refused_and_reaches_no_node() {
    let (node, received) = recording().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for (request, status) in smuggling() {
        let text = request.escape_ascii().to_string();
        let mut client = Wire::client(&balancer).await;
        client
            .send([&request[..], BEHIND.as_bytes()].concat())
            .await;
        let (bytes, _) = client.rest().await;
        let answer = String::from_utf8_lossy(&bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{text}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text}: {answer}");
    }
    assert_eq!(node.accepted(), 0);
    assert_only_valid(&received, 0);
}

#[tokio::test]
async fn behind_a_valid_request_only_that_one_is_served() {
    let (node, received) = recording().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let all = smuggling();
    for (request, status) in &all {
        let text = request.escape_ascii().to_string();
        let mut client = Wire::client(&balancer).await;
        // In one piece with the valid one.
        let behind = BEHIND.as_bytes();
        client
            .send([VALID.as_bytes(), &request[..], behind].concat())
            .await;
        client.ok().await;
        let (bytes, ending) = client.rest().await;
        let answer = String::from_utf8_lossy(&bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{text}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text}: {answer}");
        assert_eq!(ending, Ending::Fin, "{text}");
    }
    assert_only_valid(&received, all.len());
}

/// Bodies that readers end at different places, behind a valid head.
const BAD_CHUNKS: &[&[u8]] = &[
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b";a\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"-1\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;a\x01\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\n",
    b"0\n\r\n",
    b"0\r\n x: y\r\n\r\n",
    b"0\r\nx : y\r\n\r\n",
    b"0\r\n: y\r\n\r\n",
    b"0\r\nx: a\nb\r\n\r\n",
    b"0\r\nx: a\0\r\n\r\n",
    b"0\r\nGET / HTTP/1.1\r\n\r\n",
    b"0\r\nTransfer-Encoding: x\r\n\r\n",
    b"0\r\nx: y\r\nContent_Length: 5\r\n\r\n",
    b"0\r\nHost: b\r\n\r\n",
    b"0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
    b"0\r\nAuthorization: Basic x\r\n\r\n",
    b"0\r\nCookie: a=b\r\n\r\n",
];

#[tokio::test]
async fn a_bad_chunk_or_trailer_is_a_400_and_its_node_is_sent_no_end() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in BAD_CHUNKS {
        let text = chunks.escape_ascii().to_string();
        let mut client = Wire::client(&balancer).await;
        client.send(head).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        // A valid one first: what is passed of it is no end.
        let behind = BEHIND.as_bytes();
        client
            .send([&b"2\r\nab\r\n"[..], chunks, behind].concat())
            .await;
        let (bytes, _) = client.rest().await;
        let answer = String::from_utf8_lossy(&bytes);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{text}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text}: {answer}");
        let (sent, _) = backend.rest().await;
        let sent = sent.escape_ascii().to_string();
        assert!(
            !sent.contains("smuggled") && !sent.ends_with(r"\r\n\r\n"),
            "{text}: {sent}"
        );
    }
}

/// The same reader stands behind TLS.
#[tokio::test]
async fn they_are_refused_over_tls_too() {
    let (node, received) = recording().await;
    let launch = Launch::new();
    let folder = launch.folder.path();
    let certificate = crate::certificates::Certificate::write(folder, "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let trusting = crate::certificates::client(&[&certificate]);
    let some: Vec<_> = smuggling().into_iter().step_by(9).collect();
    for (request, status) in &some {
        let stream = crate::clients::tls(address, "a.example", &trusting).await;
        let mut client = Wire::new(stream.expect("TLS"));
        client
            .send([VALID.as_bytes(), &request[..], BEHIND.as_bytes()].concat())
            .await;
        client.ok().await;
        let (bytes, ending) = client.rest().await;
        let answer = String::from_utf8_lossy(&bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(ending, Ending::Fin, "{}", request.escape_ascii());
    }
    assert_only_valid(&received, some.len());
}

/// Requests in the form of a body.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Its bytes were once taken for requests.
#[tokio::test]
async fn a_body_that_no_node_takes_is_no_request() {
    let (mut node, balancer) = manual("").await;
    let body = HIDDEN.repeat(20);
    let mut client = Wire::client(&balancer).await;
    let length = body.len();
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send(&post).await;
    let (taken, _) = node.asked_by(&mut client).await;
    taken.reset();
    client.send(&body).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    if client.try_send(GET).await {
        tokio::select! {
            mut next = node.next() => {
                let head = next.head().await;
                assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
            }
            _ = client.rest() => {}
        }
    }
}

#[tokio::test]
async fn a_body_that_is_left_behind_an_early_answer_is_no_request() {
    let (mut node, balancer) = manual("").await;
    let body = HIDDEN.repeat(400_000);
    let mut client = Wire::client(&balancer).await;
    let length = body.len();
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send(&post).await;
    let (mut taken, _) = node.asked_by(&mut client).await;
    taken.send(OK).await;
    // As much as the sockets hold.
    client.try_send(&body).await;
    let (bytes, _) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert_eq!(node.node.accepted(), 1);
}
