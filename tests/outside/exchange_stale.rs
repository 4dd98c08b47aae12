//! Requests that are sent a second time: those on an idle connection that is closed without a byte
//! of an answer.

use crate::clients::Ending;
use crate::harness::Balancer;
use crate::nodes::Node;
use crate::settings::simple;
use crate::wires::{GET, ManualNode, OK, Wire, manual, primed};

/// The end that a node gives a connection whose next request has come.
fn end(wire: Wire, ending: Ending) {
    match ending {
        Ending::Fin => drop(wire),
        Ending::Rst => wire.reset(),
    }
}

/// Two nodes of which the first one is this client's.
async fn chosen() -> (ManualNode, ManualNode, Balancer, Wire, Wire) {
    let (mut one, mut two) = (ManualNode::new().await, ManualNode::new().await);
    let config = simple(
        "websocket",
        "balance = \"ip_hash\"",
        &[&one.node, &two.node],
    );
    let balancer = Balancer::start(&config);
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let (mut idle, is_first) = tokio::select! {
        wire = one.next() => (wire, true),
        wire = two.next() => (wire, false),
    };
    idle.asked_by(&mut client).await;
    idle.send(OK).await;
    client.ok().await;
    if !is_first {
        std::mem::swap(&mut one, &mut two);
    }
    (one, two, balancer, client, idle)
}

#[tokio::test]
async fn a_request_on_a_stale_connection_goes_once_more_to_the_same_backend() {
    for ending in [Ending::Fin, Ending::Rst] {
        let (mut node, other, _balancer, mut client, mut idle) = chosen().await;
        client.send(GET.replace("GET /", "GET /again")).await;
        idle.asked_by(&mut client).await;
        end(idle, ending);
        let (mut fresh, head) = node.asked_by(&mut client).await;
        assert!(head.starts_with("GET /again HTTP/1.1\r\n"), "{head}");
        fresh.send(OK).await;
        client.ok().await;
        assert_eq!((node.node.accepted(), other.node.accepted()), (2, 0));
    }
}

/// The request behind it was once passed on as it came, as the body of the one that is repeated.
#[tokio::test]
async fn what_is_pipelined_behind_a_repeated_request_is_a_request_of_its_own() {
    let (mut node, _other, _balancer, mut client, mut idle) = chosen().await;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    client.send(GET.replace("GET /", "GET /again") + next).await;
    idle.asked_by(&mut client).await;
    drop(idle);
    let (mut fresh, head) = node.asked_by(&mut client).await;
    assert!(head.starts_with("GET /again HTTP/1.1\r\n"), "{head}");
    fresh.send(OK).await;
    client.ok().await;
    let (mut last, head) = node.asked_by(&mut client).await;
    assert!(head.starts_with("GET /next HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("6.6.6.6"), "{head}");
    last.send(OK).await;
    client.ok().await;
}

async fn is_bad_gateway(client: &mut Wire) {
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_request_is_not_sent_a_third_time() {
    for ending in [Ending::Fin, Ending::Rst] {
        let (mut node, other, _balancer, mut client, mut idle) = chosen().await;
        client.send(GET).await;
        idle.asked_by(&mut client).await;
        end(idle, ending);
        let (fresh, _) = node.asked_by(&mut client).await;
        end(fresh, ending);
        is_bad_gateway(&mut client).await;
        assert_eq!((node.node.accepted(), other.node.accepted()), (2, 0));
    }
}

#[tokio::test]
async fn a_request_of_which_a_node_has_answered_a_byte_is_not_repeated() {
    let (mut node, balancer) = manual("").await;
    for ending in [Ending::Fin, Ending::Rst] {
        let (mut client, mut idle) = primed(&balancer, &mut node).await;
        let before = node.node.accepted();
        client.send(GET).await;
        idle.asked_by(&mut client).await;
        idle.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 103 "));
        end(idle, ending);
        is_bad_gateway(&mut client).await;
        assert_eq!(node.node.accepted(), before);
    }
}

#[tokio::test]
async fn a_request_on_a_new_connection_is_not_repeated() {
    let (mut node, balancer) = manual("").await;
    for ending in [Ending::Fin, Ending::Rst] {
        let before = node.node.accepted();
        let mut client = Wire::client(&balancer).await;
        client.send(GET).await;
        let (fresh, _) = node.asked_by(&mut client).await;
        end(fresh, ending);
        is_bad_gateway(&mut client).await;
        assert_eq!(node.node.accepted(), before + 1);
    }
}

/// A backend that went meanwhile is no stale connection.
#[tokio::test]
async fn a_second_try_that_cannot_connect_is_an_error() {
    let (node, _balancer, mut client, mut idle) = {
        let (mut node, balancer) = manual("retries = 0").await;
        let (client, idle) = primed(&balancer, &mut node).await;
        (node, balancer, client, idle)
    };
    client.send(GET).await;
    idle.asked_by(&mut client).await;
    Node::kill(node.node).await;
    drop(idle);
    is_bad_gateway(&mut client).await;
}
