//! Times of an exchange: a client that sends its body too slowly, one that reads nothing, and a node that takes nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::clients::{Ending, read_to_ending};
use crate::harness::{Balancer, within};
use crate::nodes::{Node, read_request};
use crate::settings::simple;
use crate::wires::{GET, ManualNode, OK, Wire, answering, values};

const LARGE_BYTES: usize = 64 << 20;

fn start(keys: &str, node: &Node) -> Balancer {
    let config = simple("websocket", keys, &[node]);
    Balancer::start(&format!("[access_log]\noutput = \"stdout\"\n\n{config}"))
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// A node that answers each request once its whole body has come, chunked ones too.
async fn takes_bodies() -> Node {
    Node::scripted(|mut stream, _| async move {
        let mut read = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut read).await {
            let length = request
                .header("content-length")
                .map(|length| length.parse());
            let length: Option<usize> = length.transpose().expect("a length");
            let is_whole = |read: &[u8]| match length {
                Some(length) => read.len() >= length,
                None => read.ends_with(b"\r\n0\r\n\r\n"),
            };
            while !is_whole(&read) {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            read.clear();
            if stream.write_all(OK.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_body_that_stops_is_a_408() {
    let node = takes_bodies().await;
    let balancer = start("body_timeout = \"300ms\"", &node);
    for body in ["", "hel"] {
        let mut client = Wire::client(&balancer).await;
        client.send(post(5) + body).await;
        let (bytes, _) = client.rest().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    }
}

/// Sends `request`, then each piece after a while, and gives what comes meanwhile.
async fn paced(
    balancer: &Balancer,
    request: &str,
    pieces: impl Iterator<Item = String> + Send + 'static,
    pace: Duration,
) -> String {
    let mut client = Wire::client(balancer).await;
    client.send(request).await;
    let (mut reading, mut writing) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        for piece in pieces {
            tokio::time::sleep(pace).await;
            if writing.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        writing
    });
    let mut text = vec![0; 4096];
    // The head of an answer of ours or of the node is one piece.
    let count = within("an answer", reading.read(&mut text)).await;
    text.truncate(count.expect("an answer"));
    sending.abort();
    String::from_utf8_lossy(&text).into_owned()
}

/// Each byte came before `body_timeout`, so a client could hold a backend's connection for days.
#[tokio::test]
async fn a_trickle_of_a_body_is_a_408() {
    const BYTES: usize = 100;
    let node = takes_bodies().await;
    let balancer = start("body_timeout = \"500ms\"\nmin_body_rate = 1000", &node);
    let pace = Duration::from_millis(50);
    let plain = std::iter::repeat_n("x".to_owned(), BYTES);
    let text = paced(&balancer, &post(BYTES), plain, pace).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    let chunks = std::iter::repeat_n("1\r\nx\r\n".to_owned(), BYTES);
    let chunks = chunks.chain(["0\r\n\r\n".to_owned()]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = paced(&balancer, head, chunks, pace).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn a_body_above_the_least_rate_may_take_longer_than_the_timeout() {
    const PIECES: usize = 40;
    let node = takes_bodies().await;
    let keys = "body_timeout = \"2s\"\nmin_body_rate = 100";
    let balancer = start(keys, &node);
    let pieces = std::iter::repeat_n("x".repeat(50), PIECES);
    let pace = Duration::from_millis(80);
    let text = paced(&balancer, &post(50 * PIECES), pieces, pace).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn without_a_least_rate_a_trickle_passes() {
    const BYTES: usize = 40;
    let node = takes_bodies().await;
    let balancer = start("body_timeout = \"1s\"\nmin_body_rate = 0", &node);
    let bytes = std::iter::repeat_n("x".to_owned(), BYTES);
    let pace = Duration::from_millis(50);
    let text = paced(&balancer, &post(BYTES), bytes, pace).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// A node that sends without end to each request.
async fn endless() -> Node {
    Node::scripted(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new()).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b'x'; LARGE_BYTES]).await;
        let _ = stream.read_u8().await;
    })
    .await
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_reset_after_send_timeout() {
    let node = endless().await;
    let balancer = start("send_timeout = \"500ms\"", &node);
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let line = balancer
        .access("its end", |line| line["end"]["how"] == "timeout")
        .await;
    assert_ne!(line["end"]["side"], "backend", "{line}");
    let (bytes, ending) = read_to_ending(&mut client.stream).await;
    assert_eq!(ending, Ending::Rst);
    assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.len() < LARGE_BYTES);
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_reset() {
    const PIECE_BYTES: usize = 256 << 10;
    const BODY_BYTES: usize = 32 * PIECE_BYTES;
    let body = "x".repeat(BODY_BYTES);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n{body}");
    let node = answering(move |_| answer.clone()).await;
    let balancer = start("send_timeout = \"1s\"", &node);
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let head = client.head().await;
    assert_eq!(values(&head, "content-length"), [BODY_BYTES.to_string()]);
    for _ in 0..BODY_BYTES / PIECE_BYTES {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.exactly(PIECE_BYTES).await;
    }
}

#[tokio::test]
async fn a_node_that_takes_nothing_of_an_upload_is_a_504() {
    let mut node = ManualNode::new().await;
    let balancer = start("send_timeout = \"500ms\"", &node.node);
    let client = Wire::client(&balancer).await;
    let (mut reading, mut writing) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let _ = writing.write_all(post(LARGE_BYTES).as_bytes()).await;
        let _ = writing.write_all(&vec![b'x'; LARGE_BYTES]).await;
        writing
    });
    // It reads the head and no byte of the body.
    let mut backend = node.next().await;
    backend.head().await;
    let (bytes, _) = read_to_ending(&mut reading).await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    sending.abort();
    let line = balancer.access("its end", |line| line["status"] == 504);
    let line = line.await;
    assert_eq!(line["end"]["how"], "timeout", "{line}");
    assert_ne!(line["end"]["side"], "client", "{line}");
}

/// No byte of it can be written, and none is read of the client, so its reset must be seen by itself.
#[tokio::test]
async fn a_client_that_resets_a_stuck_upload_frees_its_backend() {
    let mut node = ManualNode::new().await;
    let balancer = start("send_timeout = \"1h\"", &node.node);
    let mut client = Wire::client(&balancer).await;
    client.send(post(LARGE_BYTES)).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    let piece = vec![b'x'; 64 << 10];
    let stuck = async {
        // The balancer takes more as long as it reads.
        let wait = Duration::from_millis(500);
        while let Ok(sent) = tokio::time::timeout(wait, client.stream.write(&piece)).await {
            sent.expect("write");
        }
    };
    within("the upload to stick", stuck).await;
    client.reset();
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    assert_eq!(backend.rest().await.1, Ending::Rst);
}

/// The client is slow here, so its time must not be counted as the node's.
#[tokio::test]
async fn a_client_that_pauses_is_not_taken_for_a_node_that_takes_nothing() {
    let node = takes_bodies().await;
    let keys = "send_timeout = \"300ms\"\nbody_timeout = \"1h\"";
    let balancer = start(keys, &node);
    let pieces = ["he", "llo"].map(str::to_owned).into_iter();
    let pace = Duration::from_millis(900);
    let text = paced(&balancer, &post(5), pieces, pace).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// An answer may be long in coming: `response_timeout` bounds that, not `send_timeout`.
#[tokio::test]
async fn a_long_poll_outlasts_send_timeout() {
    let mut node = ManualNode::new().await;
    let config = simple("websocket", "send_timeout = \"200ms\"", &[&node.node]);
    let balancer = Balancer::start(&config);
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    backend.send("ok").await;
    client.ok().await;
}
