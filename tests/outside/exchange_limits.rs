//! The bounds of heads: those of requests by listener, those of answers by pool. Exactly the bound passes.

use crate::harness::Balancer;
use crate::nodes::{Node, switching};
use crate::settings::{backend, listener_with, pool, simple};
use crate::wires::{GET, LAST_GET, ManualNode, OK, Wire, answering};

const KIB: usize = 1024;
/// Keys that allow the most.
const MOST: &str = "max_header_size = \"256KiB\"\nmax_headers = 1000";

/// A head that begins so, of this length.
fn long(start: &str, length: usize) -> String {
    let frame = format!("{start}X-Pad: \r\n\r\n").len();
    format!("{start}X-Pad: {}\r\n\r\n", "y".repeat(length - frame))
}

/// A head that begins with a start line and a field, of so many fields.
fn many(start: &str, fields: usize) -> String {
    let others: String = (1..fields).map(|i| format!("X-{i}: y\r\n")).collect();
    format!("{start}{others}\r\n")
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";

/// A balancer whose listener has these keys.
fn listening(keys: &str, node: &Node) -> Balancer {
    let config = listener_with("main", "websocket", "nodes", keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    Balancer::start(&config)
}

/// Sends a request within the bound, which is served, and one beyond it, which is not.
async fn bounds_requests(keys: &str, within: &str, beyond: &str) {
    let mut node = ManualNode::new().await;
    let balancer = listening(keys, &node.node);
    let mut client = Wire::client(&balancer).await;
    client.send(within).await;
    let (mut backend, head) = node.asked_by(&mut client).await;
    // All of its fields have passed.
    let (fields, sent) = (within.lines().count(), head.lines().count());
    assert!(
        head.len() >= within.len() && sent >= fields,
        "{keys}: {sent} lines"
    );
    backend.send(OK).await;
    client.ok().await;
    for mut client in [client, Wire::client(&balancer).await] {
        // It may be answered before it has come whole.
        client.try_send(beyond).await;
        let (bytes, _) = client.rest().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 431 "), "{keys}: {text}");
        assert!(text.matches("HTTP/1.1").count() == 1, "{keys}: {text}");
    }
    assert_eq!(node.node.accepted(), 1, "{keys}");
}

#[tokio::test]
async fn the_size_of_a_requests_head_is_bounded_by_its_listener() {
    for (keys, bound) in [
        ("", 16 * KIB),
        ("max_header_size = \"20KiB\"", 20 * KIB),
        (MOST, 256 * KIB),
    ] {
        bounds_requests(keys, &long(REQUEST, bound), &long(REQUEST, bound + 1)).await;
    }
}

#[tokio::test]
async fn the_fields_of_a_request_are_bounded_by_its_listener() {
    for (keys, bound) in [("", 100), ("max_headers = 20", 20), (MOST, 1000)] {
        bounds_requests(keys, &many(REQUEST, bound), &many(REQUEST, bound + 1)).await;
    }
}

/// A head that never ends is not waited for.
#[tokio::test]
async fn a_head_without_an_end_is_a_431_at_its_bound() {
    let node = answering(|_| OK.into()).await;
    let balancer = listening("max_header_size = \"20KiB\"", &node);
    let mut client = Wire::client(&balancer).await;
    client.send(&long(REQUEST, 20 * KIB + 1)[..20 * KIB]).await;
    let (bytes, _) = client.rest().await;
    assert!(
        bytes.starts_with(b"HTTP/1.1 431 "),
        "{}",
        bytes.escape_ascii()
    );
    assert_eq!(node.accepted(), 0);
}

/// Gets an answer within the bound, which passes, and one beyond it, which does not.
async fn bounds_answers(keys: &str, within: &str, beyond: &str) {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", keys, &[&node.node]));
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend.send(format!("{within}ok")).await;
    let head = client.ok().await;
    let (fields, got) = (within.lines().count(), head.lines().count());
    assert!(
        head.len() >= within.len() && got >= fields,
        "{keys}: {got} lines"
    );
    drop((backend, client));

    let mut client = Wire::client(&balancer).await;
    client.send(LAST_GET).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend.try_send(format!("{beyond}ok")).await;
    let (bytes, _) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 502 "), "{keys}: {text}");
    assert!(
        !text.contains("yyy") && !text.contains("X-1:"),
        "{keys}: {text}"
    );
}

#[tokio::test]
async fn the_size_of_an_answers_head_is_bounded_by_its_pool() {
    for (keys, bound) in [
        ("", 64 * KIB),
        ("max_header_size = \"20KiB\"", 20 * KIB),
        (MOST, 256 * KIB),
    ] {
        bounds_answers(keys, &long(ANSWER, bound), &long(ANSWER, bound + 1)).await;
    }
}

#[tokio::test]
async fn the_fields_of_an_answer_are_bounded_by_its_pool() {
    for (keys, bound) in [("", 100), ("max_headers = 20", 20), (MOST, 1000)] {
        bounds_answers(keys, &many(ANSWER, bound), &many(ANSWER, bound + 1)).await;
    }
}

#[tokio::test]
async fn a_handshake_has_the_same_bounds() {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let switch = switching(KEY);
    let switch = switch.strip_suffix("\r\n").expect("an empty line");
    for (keys, request, answer) in [("", 16 * KIB, 64 * KIB), (MOST, 256 * KIB, 256 * KIB)] {
        let mut node = ManualNode::new().await;
        let config = listener_with("main", "websocket", "nodes", keys)
            + &pool("nodes", keys, &[backend("n1", node.node.address)]);
        let balancer = Balancer::start(&config);
        for (more, status) in [(0, "101"), (1, "502")] {
            let mut client = Wire::client(&balancer).await;
            client.send(long(&upgrade, request)).await;
            let (mut backend, _) = node.asked_by(&mut client).await;
            backend.try_send(long(switch, answer + more)).await;
            let head = client.head().await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{keys}: {head:.200}"
            );
        }
        let mut client = Wire::client(&balancer).await;
        client.try_send(long(&upgrade, request + 1)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{keys}: {head:.200}");
    }
}

#[tokio::test]
async fn the_bounds_follow_a_reload_on_a_kept_connection() {
    let node = answering(|_| OK.into()).await;
    let text = |keys: &str| {
        listener_with("main", "websocket", "nodes", keys)
            + &pool("nodes", "", &[backend("n1", node.address)])
    };
    let balancer = Balancer::start(&text(""));
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    client.ok().await;
    balancer.reload(&text(MOST)).await;
    let mut other = Wire::client(&balancer).await;
    other.send(long(REQUEST, 100 * KIB)).await;
    other.ok().await;
    // The older connection goes on, by either bound.
    client.send(long(REQUEST, 16 * KIB)).await;
    client.ok().await;
}
