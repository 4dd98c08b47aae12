//! Idle connections to backends: how long they are kept, what ends them, and that they belong to nobody.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clients::Ending;
use crate::harness::{Balancer, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};
use crate::wires::{GET, ManualNode, OK, Wire, answering};

/// A node, a balancer before it, a client that stays, and the node's end of an idle connection.
struct Idle {
    node: ManualNode,
    balancer: Balancer,
    client: Wire,
    wire: Wire,
}

impl Idle {
    async fn new(keys: &str) -> Idle {
        let node = ManualNode::new().await;
        Idle::of(node, |node| simple("websocket", keys, &[node])).await
    }

    async fn of(mut node: ManualNode, config: impl Fn(&Node) -> String) -> Idle {
        let balancer = Balancer::start(&config(&node.node));
        let mut client = Wire::client(&balancer).await;
        client.send(GET).await;
        let (mut wire, _) = node.asked_by(&mut client).await;
        wire.send(OK).await;
        client.ok().await;
        Idle {
            node,
            balancer,
            client,
            wire,
        }
    }

    /// Another GET of the client goes on the idle connection.
    async fn is_used(&mut self) {
        self.client.send(GET).await;
        self.wire.asked_by(&mut self.client).await;
        self.wire.send(OK).await;
        self.client.ok().await;
    }

    /// Another GET of the client goes on a new connection.
    async fn is_replaced(&mut self) {
        self.client.send(GET).await;
        let (mut wire, _) = self.node.asked_by(&mut self.client).await;
        wire.send(OK).await;
        self.client.ok().await;
    }
}

#[tokio::test]
async fn an_idle_connection_holds_no_lease() {
    let mut idle = Idle::new("").await;
    for _ in 0..2 {
        idle.balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
        // It is there all the same.
        idle.is_used().await;
    }
}

#[tokio::test]
async fn a_full_backend_is_not_filled_by_idle_connections() {
    let node = answering(|_| OK.into()).await;
    let one = crate::settings::backend_with("n1", node.address, "max_connections = 1");
    let config = listener("main", "websocket", "nodes") + &pool("nodes", "", &[one]);
    let balancer = Balancer::start(&config);
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    client.ok().await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    let mut socket = Wire::client(&balancer).await;
    // A POST has a connection of its own, beside the idle one.
    socket
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    socket.ok().await;
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_its_wait_with_them() {
    for state in ["drain", "maint"] {
        let mut idle = Idle::new("").await;
        let path = format!("/api/v1/pools/nodes/backends/n1/{state}?wait=60s");
        let began = Instant::now();
        let answer = idle.balancer.post(&path, "{}").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["backend"]["live"], 0, "{}", answer.body);
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it waited for the idle one"
        );
        idle.wire.ended().await;
    }
}

#[tokio::test]
async fn a_backend_that_goes_down_loses_its_idle_connections() {
    // Its health is asked elsewhere, so its connections are none of checks.
    let asked = Node::echo("check").await;
    let port = asked.address.port();
    let keys = format!(
        "http_reuse_timeout = \"1h\"\n\
         check = {{ type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1, port = {port} }}"
    );
    let mut idle = Idle::new(&keys).await;
    asked.kill().await;
    idle.balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    idle.wire.ended().await;
}

const LONG: &str = "http_reuse_timeout = \"1h\"";

#[tokio::test]
async fn a_reload_that_removes_the_backend_ends_its_idle_connections() {
    let other = answering(|_| OK.into()).await;
    let mut idle = Idle::new(LONG).await;
    let config = listener("main", "websocket", "nodes")
        + &pool("nodes", LONG, &[backend("n2", other.address)]);
    idle.balancer.reload(&config).await;
    idle.wire.ended().await;
    idle.client.send(GET).await;
    idle.client.ok().await;
    assert_eq!(other.accepted(), 1);
}

/// It stays the same backend, by pool and name.
#[tokio::test]
async fn a_reload_that_moves_the_backend_ends_its_idle_connections() {
    let other = answering(|_| OK.into()).await;
    let mut idle = Idle::new(LONG).await;
    idle.balancer
        .reload(&simple("websocket", LONG, &[&other]))
        .await;
    idle.client.send(GET).await;
    idle.client.ok().await;
    idle.wire.ended().await;
    assert_eq!((other.accepted(), idle.node.node.accepted()), (1, 1));
}

#[tokio::test]
async fn a_reload_that_changes_the_pool_ends_its_idle_connections() {
    for keys in ["http_reuse = \"never\"", "send_proxy = \"v1\""] {
        let mut idle = Idle::new(LONG).await;
        let config = simple("websocket", keys, &[&idle.node.node]);
        idle.balancer.reload(&config).await;
        idle.is_replaced().await;
        idle.wire.ended().await;
    }
}

#[tokio::test]
async fn a_reload_of_other_things_leaves_idle_connections() {
    let mut idle = Idle::new(LONG).await;
    let config = simple("websocket", LONG, &[&idle.node.node]);
    let config = config.replace(
        "pool = \"nodes\"\n",
        "pool = \"nodes\"\nkeep_alive_timeout = \"59s\"\n",
    );
    idle.balancer.reload(&config).await;
    idle.is_used().await;
}

#[tokio::test]
async fn a_removed_pool_has_no_idle_connections() {
    let other = answering(|_| OK.into()).await;
    let mut idle = Idle::new(LONG).await;
    let config = listener("main", "websocket", "others")
        + &pool("others", LONG, &[backend("n1", other.address)]);
    idle.balancer.reload(&config).await;
    idle.wire.ended().await;
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_time() {
    for (keys, least) in [
        ("http_reuse_timeout = \"300ms\"", Duration::from_millis(250)),
        // The default is below the 5 s of many servers.
        ("", Duration::from_millis(3500)),
    ] {
        let mut idle = Idle::new(keys).await;
        let began = Instant::now();
        idle.wire.ended().await;
        assert!(began.elapsed() >= least, "{keys}: {:?}", began.elapsed());
        idle.is_replaced().await;
    }
}

#[tokio::test]
async fn each_use_begins_the_time_of_a_connection_anew() {
    let mut idle = Idle::new("http_reuse_timeout = \"2s\"").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        idle.is_used().await;
    }
}

#[tokio::test]
async fn no_more_connections_than_the_bound_are_kept() {
    const AT_ONCE: usize = 5;
    for (keys, kept) in [
        ("max_idle_connections = 2\n", 2),
        ("max_idle_connections = 0", 0),
    ] {
        let keys = match kept {
            0 => keys.to_owned(),
            _ => format!("{keys}{LONG}"),
        };
        let mut node = ManualNode::new().await;
        let balancer = Balancer::start(&simple("websocket", &keys, &[&node.node]));
        let (count, mut ended) = watch::channel(0);
        let (mut clients, mut wires) = (Vec::new(), Vec::new());
        for _ in 0..AT_ONCE {
            let mut client = Wire::client(&balancer).await;
            client.send(GET).await;
            wires.push(node.asked_by(&mut client).await.0);
            clients.push(client);
        }
        for mut wire in wires {
            let count = count.clone();
            tokio::spawn(async move {
                wire.send(OK).await;
                while wire.try_head().await.is_some() {
                    wire.send(OK).await;
                }
                count.send_modify(|count| *count += 1);
            });
        }
        for client in &mut clients {
            client.ok().await;
        }
        let surplus = AT_ONCE - kept;
        within(
            "the surplus to end",
            ended.wait_for(|&ended| ended >= surplus),
        )
        .await
        .expect("the wires");
        if kept > 0 {
            for client in &mut clients {
                client.send(GET).await;
                client.ok().await;
            }
            assert_eq!((node.node.accepted(), *ended.borrow()), (AT_ONCE, surplus));
        }
    }
}

#[tokio::test]
async fn what_a_node_says_unasked_is_no_answer() {
    for unasked in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        "\r\n",
        "H",
    ] {
        let mut idle = Idle::new(LONG).await;
        // Once it is idle: bytes behind the answer are another case.
        idle.balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
        idle.wire.send(unasked).await;
        idle.is_replaced().await;
        idle.wire.ended().await;
    }
}

#[tokio::test]
async fn a_connection_that_its_node_has_closed_is_not_tried() {
    for by_reset in [false, true] {
        let idle = Idle::new(LONG).await;
        idle.balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
        let Idle {
            mut node,
            balancer,
            mut client,
            wire,
        } = idle;
        match by_reset {
            true => wire.reset(),
            false => drop(wire),
        }
        client.send(GET).await;
        let (fresh, _) = node.asked_by(&mut client).await;
        // This one was no second try, or it is: either way there is no third.
        drop(fresh);
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(node.node.accepted(), 2);
        drop(balancer);
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_a_stop() {
    let mut idle = Idle::new(LONG).await;
    idle.balancer.signal("TERM");
    assert_eq!(idle.client.ended().await, Ending::Fin);
    idle.wire.ended().await;
    assert!(idle.balancer.exit().await.success());
}

#[tokio::test]
async fn the_connections_of_two_backends_are_not_mixed() {
    let nodes = [
        answering(|_| "HTTP/1.1 200 OK\r\nX-Node: 1\r\nContent-Length: 2\r\n\r\nok".into()).await,
        answering(|_| "HTTP/1.1 200 OK\r\nX-Node: 2\r\nContent-Length: 2\r\n\r\nok".into()).await,
    ];
    let balancer = Balancer::start(&simple("websocket", "", &[&nodes[0], &nodes[1]]));
    let mut client = Wire::client(&balancer).await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        client.send(GET).await;
        let head = client.ok().await;
        seen.push(head.contains("X-Node: 1\r\n"));
    }
    let of_first = seen.iter().filter(|&&is_first| is_first).count();
    assert_eq!(of_first, 5, "{seen:?}");
    assert_eq!((nodes[0].accepted(), nodes[1].accepted()), (1, 1));
}
