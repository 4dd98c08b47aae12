//! A handshake that a node took and left without an answer: whom it is sent to next, and who is charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::clients::{ask, connect, greeted, http_on, node_of, reset, websocket};
use crate::harness::{Answer, Balancer, a_moment, within};
use crate::nodes::{Node, read_request, speak, switching};
use crate::settings::{backend, listener, pool, simple};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn upgrade(balancer: &Balancer) -> Answer {
    let mut stream = connect(balancer.address("main").await).await;
    http_on(&mut stream, UPGRADE).await
}

/// A node that reads a handshake and finishes without a word.
async fn finishing() -> Node {
    Node::scripted(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new()).await;
    })
    .await
}

/// A node that resets a handshake: what is unread at its close makes the kernel reset.
async fn resetting() -> Node {
    Node::scripted(|mut stream, _| async move {
        let _ = stream.read_u8().await;
    })
    .await
}

async fn deliveries(keys: &str, nodes: &[Node]) -> (u16, usize) {
    let nodes: Vec<&Node> = nodes.iter().collect();
    let balancer = Balancer::start(&simple("websocket", keys, &nodes));
    let answer = upgrade(&balancer).await;
    let delivered = nodes.iter().map(|node| node.accepted()).sum();
    (answer.status, delivered)
}

#[tokio::test]
async fn a_handshake_of_death_is_delivered_once() {
    let nodes = [finishing().await, finishing().await, finishing().await];
    assert_eq!(deliveries("", &nodes).await, (502, 1));
    let nodes = [resetting().await, resetting().await, resetting().await];
    assert_eq!(deliveries("retries = 2", &nodes).await, (502, 1));
}

#[tokio::test]
async fn an_empty_response_is_repeated_within_retries_where_it_is_chosen() {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(finishing().await);
    }
    let keys = "retries = 2\nretry_on = [\"connect\", \"empty_response\"]";
    assert_eq!(deliveries(keys, &nodes).await, (502, 3));
}

#[tokio::test]
async fn a_refused_connect_of_a_handshake_fails_over() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let node = Node::web("n2").await;
    let backends = [backend("n1", gone), backend("n2", node.address)];
    let config = listener("main", "websocket", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    for _ in 0..2 {
        assert_eq!(upgrade(&balancer).await.status, 101);
    }
}

#[tokio::test]
async fn the_death_of_a_drained_node_is_no_death_of_the_handshake() {
    let dies = Arc::new(Notify::new());
    let told = Arc::clone(&dies);
    let leaving = Node::scripted(move |mut stream, _| {
        let told = Arc::clone(&told);
        async move {
            read_request(&mut stream, &mut Vec::new()).await;
            told.notified().await;
        }
    })
    .await;
    let other = Node::web("n2").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&leaving, &other]));
    // Round robin: one of the two begins with the first node.
    let (first, second) = tokio::join!(upgrade(&balancer), async {
        let answer = tokio::spawn({
            let address = balancer.address("main").await;
            async move {
                let mut stream = connect(address).await;
                http_on(&mut stream, UPGRADE).await
            }
        });
        leaving.reached(1).await;
        let path = "/api/v1/pools/nodes/backends/n1/drain";
        assert_eq!(balancer.post(path, "{}").await.status, 200);
        dies.notify_one();
        within("the other answer", answer).await.expect("a task")
    });
    assert_eq!((first.status, second.status), (101, 101));
    assert_eq!(leaving.accepted(), 1);
}

#[tokio::test]
async fn a_node_that_accepts_and_resets_handshakes_is_ejected() {
    let (bad, good, also) = (
        resetting().await,
        Node::web("n2").await,
        Node::web("n3").await,
    );
    let keys = "outlier = { connect_failures = 3, window = \"60s\", base_ejection_time = \"60s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&bad, &good, &also]));
    let mut refused = 0;
    for _ in 0..12 {
        refused += usize::from(upgrade(&balancer).await.status == 502);
    }
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(seen["state"], "ejected", "{seen}");
    assert_eq!((refused, bad.accepted()), (3, 3));
}

#[tokio::test]
async fn a_raw_node_that_accepts_and_resets_is_ejected_although_it_accepts() {
    let bad = Node::scripted(|stream, _| async move {
        // Not so soon that it looks like a failed connect.
        a_moment().await;
        reset(stream);
    })
    .await;
    let (good, also) = (Node::echo("n2").await, Node::echo("n3").await);
    let keys = "outlier = { connect_failures = 3, window = \"60s\", base_ejection_time = \"60s\" }";
    let balancer = Balancer::start(&simple("tcp", keys, &[&bad, &good, &also]));
    for _ in 0..12 {
        greeted(balancer.address("main").await).await;
    }
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(seen["state"], "ejected", "{seen}");
    assert_eq!(bad.accepted(), 3);
}

#[tokio::test]
async fn a_resumed_handshake_of_death_is_delivered_once() {
    let deadly = Arc::new(AtomicBool::new(false));
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        let deadly = Arc::clone(&deadly);
        nodes.push(
            Node::scripted(move |mut stream, _| {
                let deadly = Arc::clone(&deadly);
                async move {
                    let mut read = Vec::new();
                    let Some(request) = read_request(&mut stream, &mut read).await else {
                        return;
                    };
                    if deadly.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = request.header("sec-websocket-key").unwrap();
                    let answer = switching(key);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    speak(stream, read, name).await;
                }
            })
            .await,
        );
    }
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = "resume = { timeout = \"5s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &all));
    let mut socket = websocket(balancer.address("main").await, "/chat").await;
    let name = node_of(&mut socket).await;
    let at = name[1..].parse::<usize>().unwrap() - 1;
    assert_eq!(ask(&mut socket, "a").await, format!("{name}:a"));
    deadly.store(true, Ordering::SeqCst);
    nodes.remove(at).kill().await;
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    within("the end of the session", ended).await;
    let delivered: usize = nodes.iter().map(Node::accepted).sum();
    assert_eq!(delivered, 1);
}
