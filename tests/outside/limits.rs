//! Every limit: connections of the process, of a backend, the queue of a pool, and file descriptors.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clients::{connect, echoed, greeted, http, read_line};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, backend_with, listener, pool, simple};
use crate::threads::wakes_at_most;

/// Whether nothing comes for a while.
async fn is_quiet(stream: &TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(300), stream.peek(&mut [0]))
        .await
        .is_err()
}

fn global(keys: &str, config: &str) -> String {
    format!("[global]\nlog_format = \"json\"\nwatch = false\n{keys}\n\n{config}")
}

#[tokio::test]
async fn above_max_connections_accepting_pauses_and_goes_on_when_one_ends() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&global("max_connections = 5", &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(greeted(address).await);
    }
    let mut waiting = connect(address).await;
    assert!(is_quiet(&waiting).await, "a sixth connection was served");
    assert_eq!(
        balancer.get("/api/v1/status").await.status,
        200,
        "admin answers at the limit"
    );
    held.pop();
    assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
    for (stream, _) in &mut held {
        echoed(stream, b"still here").await;
    }
}

#[tokio::test]
async fn max_connections_follows_a_reload() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&global("max_connections = 1", &config));
    let address = balancer.address("main").await;
    let _held = greeted(address).await;
    let mut waiting = connect(address).await;
    assert!(is_quiet(&waiting).await);
    balancer
        .reload(&global("max_connections = 2", &config))
        .await;
    assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
}

#[tokio::test]
async fn a_full_backend_is_passed_over_and_a_full_pool_refuses_at_once() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let backends = [
        backend_with("n1", n1.address, "max_connections = 1"),
        backend_with("n2", n2.address, "max_connections = 3"),
    ];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(greeted(address).await);
    }
    assert_eq!(held.iter().filter(|(_, name)| name == "n1").count(), 1);
    assert_eq!(
        crate::clients::refused(address).await,
        (vec![], crate::clients::Ending::Rst)
    );
    held.retain(|(_, name)| name != "n1");
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    assert_eq!(greeted(address).await.1, "n1");
}

#[tokio::test]
async fn a_queue_serves_in_order_and_is_bounded() {
    let node = Node::echo("n1").await;
    let backends = [backend_with("n1", node.address, "max_connections = 1")];
    let keys = "max_queue = 2\nqueue_timeout = \"20s\"";
    let config = listener("main", "tcp", "nodes") + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (first, _) = greeted(address).await;
    let mut second = connect(address).await;
    queued(&balancer, "nodes", 1).await;
    let mut third = connect(address).await;
    queued(&balancer, "nodes", 2).await;
    assert_eq!(
        crate::clients::refused(address).await,
        (vec![], crate::clients::Ending::Rst),
        "the queue has a bound"
    );
    drop(first);
    assert_eq!(read_line(&mut second).await.expect("a greeting"), "n1");
    assert!(
        is_quiet(&third).await,
        "the third was served beside the second"
    );
    drop(second);
    assert_eq!(read_line(&mut third).await.expect("a greeting"), "n1");
}

#[tokio::test]
async fn a_wait_in_the_queue_has_an_end() {
    let raw = Node::echo("n1").await;
    let web = Node::web("n1").await;
    let keys = "max_queue = 10\nqueue_timeout = \"500ms\"";
    let config = listener("raw", "tcp", "raw")
        + &listener("web", "websocket", "web")
        + &pool(
            "raw",
            keys,
            &[backend_with("n1", raw.address, "max_connections = 1")],
        )
        + &pool(
            "web",
            keys,
            &[backend_with("n1", web.address, "max_connections = 1")],
        );
    let balancer = Balancer::start(&config);
    let raw = balancer.address("raw").await;
    let _held = greeted(raw).await;
    let began = Instant::now();
    assert_eq!(
        crate::clients::refused(raw).await,
        (vec![], crate::clients::Ending::Rst)
    );
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    let web = balancer.address("web").await;
    let _socket = crate::clients::websocket(web, "/").await;
    let page = http(
        web,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 503, "{}", page.head);
    assert!(
        page.head.to_ascii_lowercase().contains("retry-after:"),
        "{}",
        page.head
    );
    let pools = balancer.get("/api/v1/pools/raw").await.json();
    assert_eq!(pools["queue_timeouts"], 1, "{pools}");
}

/// Waits until so many wait in the queue of a pool.
async fn queued(balancer: &Balancer, pool: &str, count: u64) {
    let path = format!("/api/v1/pools/{pool}");
    within(&format!("{count} in the queue of {pool}"), async {
        while balancer.get(&path).await.json()["queued"] != count {
            crate::harness::a_moment().await;
        }
    })
    .await;
}

/// One backend for one connection at a time, and a queue whose patience is longer than a test's: who leaves it
/// early was not timed out.
fn narrow(name: &str, node: &Node) -> String {
    pool(
        name,
        "max_queue = 10\nqueue_timeout = \"5m\"",
        &[backend_with("n1", node.address, "max_connections = 1")],
    )
}

// The client was not watched while it waited: it kept its place and was given a backend connection in its turn.
#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let node = Node::echo("n1").await;
    let config = listener("main", "tcp", "nodes") + &narrow("nodes", &node);
    let balancer = Balancer::start(&format!("[access_log]\noutput = \"stdout\"\n\n{config}"));
    let address = balancer.address("main").await;
    let (held, _) = greeted(address).await;
    let mut leaves = connect(address).await;
    leaves.write_all(b"never sent on").await.expect("write");
    queued(&balancer, "nodes", 1).await;
    crate::clients::reset(leaves);
    queued(&balancer, "nodes", 0).await;
    let told = balancer
        .access("the one that left", |line| {
            line["end"]["side"] == "client" && line["end"]["phase"] == "queue"
        })
        .await;
    assert_eq!(told["end"]["how"], "rst", "{told}");
    drop(held);
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    assert_eq!(greeted(address).await.1, "n1");
    assert_eq!(
        node.accepted(),
        2,
        "nothing was connected for the one that left"
    );
}

#[tokio::test]
async fn a_client_that_has_said_all_keeps_its_place_and_its_bytes() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(listener("main", "tcp", "nodes") + &narrow("nodes", &node)));
    let address = balancer.address("main").await;
    let (held, _) = greeted(address).await;
    let mut half = connect(address).await;
    half.write_all(b"all I say").await.expect("write");
    half.shutdown().await.expect("a FIN");
    queued(&balancer, "nodes", 1).await;
    // That this one's end is noticed shows that the first was looked at, too.
    let leaves = connect(address).await;
    queued(&balancer, "nodes", 2).await;
    crate::clients::reset(leaves);
    queued(&balancer, "nodes", 1).await;
    drop(held);
    assert_eq!(
        crate::clients::read_to_ending(&mut half).await,
        (b"n1\nall I say".to_vec(), crate::clients::Ending::Fin)
    );
}

// Those who waited for one pool held the places in set-up, and no listener accepted any more.
#[tokio::test]
async fn a_pool_that_lets_its_clients_wait_blocks_no_other() {
    let [raw, free] = [Node::echo("n1").await, Node::echo("n1").await];
    let web = Node::web("n1").await;
    let config = listener("raw", "tcp", "raw")
        + &listener("web", "websocket", "web")
        + &listener("free", "tcp", "free")
        + &narrow("raw", &raw)
        + &narrow("web", &web)
        + &pool("free", "", &[backend("n1", free.address)]);
    let balancer = Balancer::start(&global("max_setup_connections = 2", &config));
    let (raw, web) = (balancer.address("raw").await, balancer.address("web").await);
    let _held = greeted(raw).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(connect(raw).await);
    }
    queued(&balancer, "raw", 4).await;
    let _session = crate::clients::websocket(web, "/").await;
    for _ in 0..4 {
        let mut stream = connect(web).await;
        stream.write_all(UPGRADE.as_bytes()).await.expect("write");
        waiting.push(stream);
    }
    queued(&balancer, "web", 4).await;
    assert_eq!(greeted(balancer.address("free").await).await.1, "n1");
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

// Each listener looked for room before it waited for a connection, and then took one more than there was room for.
#[tokio::test]
async fn max_connections_holds_over_several_listeners() {
    let node = Node::echo("n1").await;
    let config = listener("other", "tcp", "nodes") + &simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&global("max_connections = 1", &config));
    let (main, other) = (
        balancer.address("main").await,
        balancer.address("other").await,
    );
    let held = greeted(main).await;
    let mut waiting = connect(other).await;
    assert!(is_quiet(&waiting).await, "a second connection was served");
    drop(held);
    assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
}

#[tokio::test]
async fn without_free_descriptors_accepting_pauses_admin_answers_and_it_recovers() {
    let node = Node::echo("n1").await;
    let balancer = Launch::new()
        .after("ulimit -n 100")
        .start(&simple("tcp", "", &[&node]));
    let address = balancer.address("main").await;
    let mut served = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..80 {
        let stream = connect(address).await;
        waiting.push(stream);
    }
    // Some are served, the others wait in the kernel's queue.
    let room = balancer
        .log
        .wait("the budget", 0, |line| {
            let line = line.contains("connection budget").then_some(line)?;
            let told: serde_json::Value = serde_json::from_str(line).ok()?;
            told["max_connections"].as_u64()
        })
        .await as usize;
    assert!((5..80).contains(&room), "{room} of 100 descriptors");
    let mut greetings: FuturesUnordered<_> = waiting
        .into_iter()
        .map(async |mut stream: TcpStream| {
            let line = read_line(&mut stream).await;
            assert_eq!(line.expect("a greeting, not an end"), "n1");
            stream
        })
        .collect();
    while served.len() < room {
        served.push(greetings.next().await.expect("one more"));
    }
    for _ in 0..10 {
        assert_eq!(
            balancer.get("/api/v1/status").await.status,
            200,
            "admin answers without free descriptors"
        );
    }
    wakes_at_most(balancer.pid(), 100, Duration::from_millis(500)).await;
    for stream in &mut served {
        echoed(stream, b"still here").await;
    }
    // Each end lets the next one in, until all were served.
    while !greetings.is_empty() {
        served.pop();
        let next = greetings.next().await.expect("one that waits");
        served.insert(0, next);
    }
}

#[tokio::test]
async fn the_setup_cap_bounds_silent_clients_and_admin_still_answers() {
    let node = Node::web("n1").await;
    let config = simple("websocket", "", &[&node]);
    let config = global("max_setup_connections = 10", &config).replace(
        "pool = \"nodes\"",
        "pool = \"nodes\"\nhandshake_timeout = \"1s\"",
    );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(connect(address).await);
    }
    assert_eq!(balancer.get("/readyz").await.status, 200);
    // The silent ones time out in their turn, and the one behind them is served.
    let page = http(
        address,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 200);
    drop(silent);
}

#[tokio::test]
async fn names_of_backends_default_to_their_addresses() {
    let node = Node::echo("n1").await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "",
            &[backend("x", node.address).replace("name = \"x\", ", "")],
        );
    let balancer = Balancer::start(&config);
    let (_held, name) = greeted(balancer.address("main").await).await;
    assert_eq!(name, "n1");
    assert_eq!(
        balancer.backend("nodes", &node.address.to_string()).await["live"],
        1
    );
}

/// The acceptor that gave way took all that was queued, whether there was room or not.
async fn reloading_keeps_the_limit(change: impl Fn(&str) -> String) {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&global("max_connections = 5", &config));
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(greeted(address).await);
    }
    let mut waiting = Vec::new();
    for _ in 0..30 {
        waiting.push(connect(address).await);
    }
    balancer
        .reload(&global("max_connections = 5", &change(&config)))
        .await;
    // One more than it should would have been accepted by now: the reload is answered when the former acceptor is done.
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["process"]["connections"], 5);
    drop(held);
    within("the places to be taken", async {
        while balancer.metric(&["evenkeel_connections"]).await < 5.0 {
            crate::harness::a_moment().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_renamed_listener_keeps_the_limit() {
    reloading_keeps_the_limit(|config| config.replace("\"main\"", "\"other\"")).await;
}

#[tokio::test]
async fn a_listener_that_changes_its_protocol_keeps_the_limit() {
    reloading_keeps_the_limit(|config| config.replace("\"tcp\"", "\"websocket\"")).await;
}

/// The greetings that `count` clients get, who come at once; the time until the last of them.
async fn time_to_greet(address: std::net::SocketAddr, count: usize) -> Duration {
    let began = Instant::now();
    let clients = (0..count).map(|_| async move { greeted(address).await });
    futures_util::future::join_all(clients).await;
    began.elapsed()
}

// Nobody is turned away: the rest waits in the kernel's queue.
#[tokio::test]
async fn above_the_rate_of_the_process_accepting_pauses_and_nobody_is_refused() {
    let raw = Node::echo("n1").await;
    let other = listener("door", "tcp", "nodes");
    let web = Node::web("n1").await;
    let config = other
        + &listener("main", "websocket", "web")
        + &pool("nodes", "", &[backend("n1", raw.address)])
        + &pool("web", "", &[backend("n1", web.address)]);
    let balancer = Balancer::start(&global("max_connection_rate = \"10/s\"", &config));
    let door = balancer.address("door").await;
    let took = time_to_greet(door, 25).await;
    assert!(
        took.as_millis() >= 1_400,
        "10 at once, 15 more at 10 a second: {took:?}"
    );
    let began = Instant::now();
    let main = balancer.address("main").await;
    for _ in 0..5 {
        let page = http(
            main,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(page.status, 200);
    }
    let took = began.elapsed();
    assert!(took.as_millis() >= 400, "the other path, too: {took:?}");
    let paused = balancer
        .event("the pause", 0, |event| {
            event.message().starts_with("accepting pauses")
        })
        .await;
    assert_eq!(paused.field("limit"), Some("max_connection_rate"));
}
