//! Header names as servers look for them that were written by hand: letter by letter.

use crate::clients::{node_of, websocket};
use crate::harness::{Balancer, within};
use crate::http::one;
use crate::nodes::Node;
use crate::settings::simple;

/// As a hand-written server does it: letter by letter.
pub fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.split("\r\n").find(|line| line.starts_with(name))?;
    line[name.len()..].strip_prefix(": ")
}

/// Ours, whoever spelled them before.
#[tokio::test]
async fn fields_that_we_set_are_spelled_as_servers_look_for_them() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let page = one(
        &balancer,
        "POST / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nX-REAL-IP: 6.6.6.6\r\nconnection: close\r\n\
         x-own: 1\r\ncontent-length: 11\r\n\r\nx-real-ip: ",
    )
    .await;
    assert_eq!(page.status, 200);
    assert_eq!(page.json()["body"], "x-real-ip: ");
    let head = node.heads.lock().unwrap()[0].clone();
    for name in [
        "X-Forwarded-For",
        "X-Real-IP",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
    ] {
        assert!(value(&head, name).is_some(), "{name} in {head}");
    }
    assert_eq!(value(&head, "Connection"), Some("close"), "{head}");
    // A client's own stay as they are.
    assert_eq!(value(&head, "x-own"), Some("1"), "{head}");
    assert_eq!(value(&head, "host"), Some("a"), "{head}");
}

/// The handshake of a session that moves is kept without the client's spelling.
#[tokio::test]
async fn a_session_that_moves_asks_the_next_node_letter_by_letter() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = Balancer::start(&simple("websocket", "resume = {}", &[&n1, &n2]));
    let mut socket = websocket(balancer.address("main").await, "/").await;
    let first = node_of(&mut socket).await;
    let moved = "/api/v1/connections/move";
    assert_eq!(balancer.post(moved, "{\"all\": true}").await.status, 202);
    let elsewhere = async { while node_of(&mut socket).await == first {} };
    within("the session on the other node", elsewhere).await;
    let next = if first == "n1" { &n2 } else { &n1 };
    let head = next.heads.lock().unwrap()[0].clone();
    for name in [
        "Host",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "X-Real-IP",
        "Evenkeel-Resume",
    ] {
        assert!(value(&head, name).is_some(), "{name} in {head}");
    }
}
