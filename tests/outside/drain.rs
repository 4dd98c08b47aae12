//! Draining: nothing new goes to the backend, what is live finishes, and `wait` returns with the last one.

use std::time::{Duration, Instant};

use crate::clients::{echoed, greeted, http, node_of, websocket};
use crate::harness::Balancer;
use crate::nodes::Node;
use crate::settings::{backend, backend_with, listener, pool, simple};

#[tokio::test]
async fn drains_without_touching_the_live_and_wait_returns_with_the_last() {
    let n1 = Node::echo("n1").await;
    let n2 = Node::echo("n2").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(greeted(address).await);
    }
    let answer = balancer
        .post("/api/v1/pools/nodes/backends/n1/drain", "{}")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["backend"]["live"], 5, "{}", answer.body);
    for _ in 0..10 {
        assert_eq!(
            greeted(address).await.1,
            "n2",
            "a draining backend got a new connection"
        );
    }
    for (stream, _) in &mut held {
        echoed(stream, b"still here").await;
    }
    let waiting = balancer.post("/api/v1/pools/nodes/backends/n1/drain?wait=20s", "{}");
    tokio::pin!(waiting);
    while let Some(at) = held.iter().position(|(_, name)| name == "n1") {
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("wait returned with live connections: {}", answer.body),
            seen = balancer.backend("nodes", "n1") => assert!(seen["live"].as_u64() > Some(0), "{seen}"),
        }
        held.swap_remove(at);
    }
    let answer = waiting.await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["backend"]["live"], 0, "{}", answer.body);
    assert_eq!(greeted(address).await.1, "n2");
    balancer
        .post("/api/v1/pools/nodes/backends/n1/ready", "{}")
        .await;
    let names = [greeted(address).await.1, greeted(address).await.1];
    assert!(names.contains(&"n1".to_owned()), "{names:?}");
}

#[tokio::test]
async fn wait_gives_up_at_its_time_and_says_how_many_are_left() {
    let n1 = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&n1]));
    let (mut stream, _) = greeted(balancer.address("main").await).await;
    let began = Instant::now();
    let answer = balancer
        .post("/api/v1/pools/nodes/backends/n1/drain?wait=1s", "{}")
        .await;
    assert!(
        began.elapsed() >= Duration::from_millis(950),
        "wait returned after {:?}",
        began.elapsed()
    );
    assert_eq!(answer.json()["backend"]["live"], 1, "{}", answer.body);
    echoed(&mut stream, b"untouched").await;
}

#[tokio::test]
async fn maint_takes_nothing_new_either() {
    let n1 = Node::web("n1").await;
    let n2 = Node::web("n2").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let mut socket = websocket(address, "/").await;
    let name = node_of(&mut socket).await;
    balancer
        .post(&format!("/api/v1/pools/nodes/backends/{name}/maint"), "{}")
        .await;
    for _ in 0..6 {
        assert_ne!(node_of(&mut websocket(address, "/").await).await, name);
    }
    assert_eq!(node_of(&mut socket).await, name, "the live session goes on");
}

#[tokio::test]
async fn the_drain_command_waits_for_the_last_and_fails_when_some_are_left() {
    let n1 = Node::echo("n1").await;
    let n2 = Node::echo("n2").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let admin = balancer.address("admin").await.to_string();
    let (live, name) = greeted(address).await;
    let backend = format!("nodes/{name}");
    let drain = async |wait: &str| {
        balancer
            .command(&["drain", &backend, "--admin", &admin, "--wait", wait])
            .await
    };
    let (code, out, error) = drain("300ms").await;
    assert_eq!(code, 1, "{out}{error}");
    let (waited, ()) = tokio::join!(drain("20s"), async { drop(live) });
    assert_eq!(waited.0, 0, "{}{}", waited.1, waited.2);
    assert!(waited.1.contains(&backend), "{}", waited.1);
    assert_ne!(greeted(address).await.1, name);
}

/// A storm of clients that were turned away together must not come back together.
#[tokio::test]
async fn a_pool_in_drain_or_full_tells_each_client_another_time_to_come_again() {
    let (one, two) = (Node::web("n1").await, Node::web("n2").await);
    let keys = "retry_after = { min = \"10s\", max = \"60s\" }";
    let backends = [
        backend("n1", one.address),
        backend_with("n2", two.address, "max_connections = 1"),
    ];
    let config = listener("main", "websocket", "nodes") + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let path = |name: &str| format!("/api/v1/pools/nodes/backends/{name}/drain");
    balancer.post(&path("n1"), "{}").await;
    let _full = websocket(address, "/").await;
    for what in ["full", "in drain"] {
        let mut times = std::collections::BTreeSet::new();
        for upgrade in [false, true].into_iter().cycle().take(20) {
            let asks = match upgrade {
                true => {
                    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                }
                false => "Connection: close\r\n",
            };
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{asks}\r\n");
            let answer = http(address, &request).await;
            assert_eq!(answer.status, 503, "{what}: {}", answer.head);
            let lower = answer.head.to_lowercase();
            let time = lower.split("retry-after: ").nth(1).unwrap();
            let time: u64 = time.lines().next().unwrap().parse().unwrap();
            assert!((10..=60).contains(&time), "{what}: {time}");
            times.insert(time);
        }
        assert!(times.len() > 5, "{what}: {times:?}");
        balancer.post(&path("n2"), "{}").await;
    }
}
