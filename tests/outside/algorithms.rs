//! Which backend a connection gets: the distribution of each algorithm, and what sticks over a restart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::clients::{greeted, node_of, read_line, websocket, websocket_over};
use crate::harness::Balancer;
use crate::nodes::Node;
use crate::settings::{backend, backend_with, listener, pool, simple};

type Held = Vec<(TcpStream, String)>;

async fn hold(address: SocketAddr, count: usize) -> Held {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(greeted(address).await);
    }
    held
}

fn shares(held: &Held) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for (_, name) in held {
        *shares.entry(name.as_str()).or_default() += 1;
    }
    shares
}

async fn three() -> [Node; 3] {
    [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ]
}

#[tokio::test]
async fn round_robin_follows_the_weights_exactly() {
    let [n1, n2, n3] = three().await;
    let backends = [
        backend("n1", n1.address),
        backend_with("n2", n2.address, "weight = 2"),
        backend_with("n3", n3.address, "weight = 5"),
    ];
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "balance = \"round_robin\"", &backends);
    let balancer = Balancer::start(&config);
    let held = hold(balancer.address("main").await, 80).await;
    assert_eq!(
        shares(&held),
        BTreeMap::from([("n1", 10), ("n2", 20), ("n3", 50)])
    );
    // Smooth: never more than the heavy one's fair run of a row.
    let longest = held.chunk_by(|a, b| a.1 == b.1).map(<[_]>::len).max();
    assert!(longest <= Some(3), "a run of {longest:?}");
}

/// Each of many backends, all at one address, gets as many connections as the others, also once
/// some were closed and one was drained.
#[tokio::test]
async fn each_of_many_backends_gets_its_share() {
    const COUNT: usize = 300;
    let node = Node::echo("n").await;
    let backends: Vec<String> = (0..COUNT)
        .map(|n| backend(&format!("n{n}"), node.address))
        .collect();
    for balance in ["least_conn", "round_robin"] {
        let settings = format!("balance = \"{balance}\"");
        let config = listener("main", "tcp", "nodes") + &pool("nodes", &settings, &backends);
        let balancer = Balancer::start(&config);
        let main = balancer.address("main").await;
        let held = hold(main, 2 * COUNT).await;
        assert_eq!(live(&balancer).await, vec![2; COUNT], "{balance}");
        drop(held);
        while live(&balancer).await != vec![0; COUNT] {
            tokio::task::yield_now().await;
        }
        let drained = balancer
            .post("/api/v1/pools/nodes/backends/n7/drain", "{}")
            .await;
        assert_eq!(drained.status, 200, "{}", drained.body);
        let _held = hold(main, COUNT - 1).await;
        let expected: Vec<u64> = (0..COUNT).map(|n| u64::from(n != 7)).collect();
        assert_eq!(live(&balancer).await, expected, "{balance}");
    }
}

/// The live connections of each backend of the pool `nodes`.
async fn live(balancer: &Balancer) -> Vec<u64> {
    let pool = balancer.get("/api/v1/pools/nodes").await.json();
    let backends = pool["backends"].as_array().expect("backends");
    let live = |one: &serde_json::Value| one["live"].as_u64().expect("a count");
    backends.iter().map(live).collect()
}

#[tokio::test]
async fn weight_zero_gets_nothing() {
    let [n1, n2, _] = three().await;
    let backends = [
        backend("n1", n1.address),
        backend_with("n2", n2.address, "weight = 0"),
    ];
    for balance in ["round_robin", "least_conn", "random", "ip_hash"] {
        let config = listener("main", "tcp", "nodes")
            + &pool("nodes", &format!("balance = \"{balance}\""), &backends);
        let balancer = Balancer::start(&config);
        let held = hold(balancer.address("main").await, 12).await;
        assert_eq!(shares(&held), BTreeMap::from([("n1", 12)]), "{balance}");
    }
}

#[tokio::test]
async fn least_conn_evens_out_what_is_live() {
    let [n1, n2, n3] = three().await;
    let balancer = Balancer::start(&simple("tcp", "balance = \"least_conn\"", &[&n1, &n2, &n3]));
    let address = balancer.address("main").await;
    let mut held = hold(address, 30).await;
    assert_eq!(
        shares(&held),
        BTreeMap::from([("n1", 10), ("n2", 10), ("n3", 10)])
    );
    held.retain(|(_, name)| name != "n2");
    balancer
        .backend_until("nodes", "n2", |seen| seen["live"] == 0)
        .await;
    let again = hold(address, 10).await;
    assert_eq!(
        shares(&again),
        BTreeMap::from([("n2", 10)]),
        "the empty node fills up first"
    );
}

#[tokio::test]
async fn least_conn_follows_the_weights() {
    let [n1, n2, _] = three().await;
    let backends = [
        backend("n1", n1.address),
        backend_with("n2", n2.address, "weight = 3"),
    ];
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "balance = \"least_conn\"", &backends);
    let balancer = Balancer::start(&config);
    let held = hold(balancer.address("main").await, 40).await;
    assert_eq!(shares(&held), BTreeMap::from([("n1", 10), ("n2", 30)]));
}

#[tokio::test]
async fn random_of_two_spreads_live_connections() {
    let [n1, n2, n3] = three().await;
    let balancer = Balancer::start(&simple("tcp", "balance = \"random\"", &[&n1, &n2, &n3]));
    let held = hold(balancer.address("main").await, 150).await;
    for (name, share) in shares(&held) {
        assert!((35..=65).contains(&share), "{name} has {share} of 150");
    }
}

/// A connection from another loopback address.
async fn from(source: Ipv4Addr, address: SocketAddr) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind((IpAddr::V4(source), 0).into())
        .expect("bind to a loopback address");
    let mut stream = socket.connect(address).await.expect("connect");
    let name = read_line(&mut stream).await.expect("a greeting");
    (stream, name)
}

async fn picks_by_source(address: SocketAddr) -> Vec<String> {
    let mut picks = Vec::new();
    for last in 1..=90 {
        picks.push(from(Ipv4Addr::new(127, 0, 3, last), address).await.1);
    }
    picks
}

#[tokio::test]
async fn ip_hash_sticks_over_a_restart_and_a_change_of_order() {
    let [n1, n2, n3] = three().await;
    let config = simple("tcp", "balance = \"ip_hash\"", &[&n1, &n2, &n3]);
    let first = {
        let balancer = Balancer::start(&config);
        let address = balancer.address("main").await;
        let first = picks_by_source(address).await;
        assert_eq!(
            first,
            picks_by_source(address).await,
            "the same client gets the same node"
        );
        first
    };
    for name in ["n1", "n2", "n3"] {
        let share = first.iter().filter(|pick| *pick == name).count();
        assert!((12..=50).contains(&share), "{name} has {share} of 90");
    }
    let turned = [
        backend("n3", n3.address),
        backend("n1", n1.address),
        backend("n2", n2.address),
    ];
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "balance = \"ip_hash\"", &turned);
    let balancer = Balancer::start(&config);
    assert_eq!(first, picks_by_source(balancer.address("main").await).await);
}

#[tokio::test]
async fn ip_hash_moves_only_the_clients_of_a_lost_backend() {
    let [n1, n2, n3] = three().await;
    let balancer = Balancer::start(&simple("tcp", "balance = \"ip_hash\"", &[&n1, &n2, &n3]));
    let address = balancer.address("main").await;
    let before = picks_by_source(address).await;
    balancer
        .post("/api/v1/pools/nodes/backends/n2/drain", "{}")
        .await;
    let after = picks_by_source(address).await;
    for (before, after) in before.iter().zip(&after) {
        if before == "n2" {
            assert_ne!(after, "n2");
        } else {
            assert_eq!(before, after, "a client of a living node stays");
        }
    }
}

async fn web_three() -> [Node; 3] {
    [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
    ]
}

/// Which node each of 30 sessions gets when `request` makes the URL path and one header line of its number.
async fn picks_by(address: SocketAddr, request: impl Fn(usize) -> (String, String)) -> Vec<String> {
    let mut picks = Vec::new();
    for number in 0..30 {
        let (path, header) = request(number);
        let page = crate::clients::http(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{header}Connection: close\r\n\r\n"),
        )
        .await;
        assert_eq!(page.status, 200, "{}", page.head);
        picks.push(page.json()["node"].as_str().expect("a name").to_owned());
    }
    picks
}

async fn sticks_by(key: &str, request: impl Fn(usize) -> (String, String)) {
    let [n1, n2, n3] = web_three().await;
    let config = simple(
        "websocket",
        &format!("balance = \"hash\"\nhash_key = \"{key}\""),
        &[&n1, &n2, &n3],
    );
    let first = {
        let balancer = Balancer::start(&config);
        picks_by(balancer.address("main").await, &request).await
    };
    for name in ["n1", "n2", "n3"] {
        assert!(
            first.iter().any(|pick| pick == name),
            "{name} got nothing of 30 keys by {key}"
        );
    }
    let balancer = Balancer::start(&config);
    assert_eq!(
        first,
        picks_by(balancer.address("main").await, &request).await,
        "{key}"
    );
}

#[tokio::test]
async fn hash_by_path_sticks_over_a_restart() {
    sticks_by("path", |number| (format!("/room/{number}"), String::new())).await;
}

#[tokio::test]
async fn hash_by_header_sticks_over_a_restart() {
    sticks_by("header:X-Session", |number| {
        ("/".into(), format!("x-session: s{number}\r\n"))
    })
    .await;
}

#[tokio::test]
async fn hash_by_query_sticks_over_a_restart() {
    sticks_by("query:sid", |number| {
        (format!("/?x=1&sid=s{number}"), String::new())
    })
    .await;
}

#[tokio::test]
async fn hash_by_cookie_sticks_over_a_restart() {
    sticks_by("cookie:sid", |number| {
        ("/".into(), format!("Cookie: a=b; sid=s{number}\r\n"))
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_hashes_like_a_request() {
    let [n1, n2, n3] = web_three().await;
    let balancer = Balancer::start(&simple(
        "websocket",
        "balance = \"hash\"\nhash_key = \"query:sid\"",
        &[&n1, &n2, &n3],
    ));
    let address = balancer.address("main").await;
    let polled = picks_by(address, |number| {
        (format!("/?sid=s{number}"), String::new())
    })
    .await;
    for (number, polled) in polled.iter().enumerate() {
        let mut socket = websocket(address, &format!("/socket?sid=s{number}")).await;
        assert_eq!(&node_of(&mut socket).await, polled);
    }
}

#[tokio::test]
async fn without_its_key_hash_falls_back_to_the_client_address() {
    let [n1, n2, n3] = web_three().await;
    let balancer = Balancer::start(&simple(
        "websocket",
        "balance = \"hash\"\nhash_key = \"cookie:sid\"",
        &[&n1, &n2, &n3],
    ));
    let picks = picks_by(balancer.address("main").await, |number| {
        (format!("/{number}"), String::new())
    })
    .await;
    assert!(picks.iter().all(|pick| *pick == picks[0]), "{picks:?}");
}

#[tokio::test]
async fn a_backup_is_used_only_when_no_other_can_be() {
    let [n1, n2, spare] = three().await;
    let backends = [
        backend("n1", n1.address),
        backend("n2", n2.address),
        backend_with("spare", spare.address, "backup = true"),
    ];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    assert!(!shares(&hold(address, 10).await).contains_key("n3"));
    for name in ["n1", "n2"] {
        balancer
            .post(&format!("/api/v1/pools/nodes/backends/{name}/maint"), "{}")
            .await;
    }
    assert_eq!(shares(&hold(address, 4).await), BTreeMap::from([("n3", 4)]));
    balancer
        .post("/api/v1/pools/nodes/backends/n1/ready", "{}")
        .await;
    assert_eq!(shares(&hold(address, 4).await), BTreeMap::from([("n1", 4)]));
}

#[tokio::test]
async fn routes_choose_the_pool_by_host_and_path() {
    let [n1, n2, n3] = web_three().await;
    let config = format!(
        "{}  [[listener.route]]\n  host = \"eu.example.org\"\n  pool = \"eu\"\n\n  [[listener.route]]\n  path = \"/chat\"\n  pool = \"chat\"\n\n{}{}{}",
        listener("main", "websocket", "nodes"),
        pool("nodes", "", &[backend("n1", n1.address)]),
        pool("eu", "", &[backend("n2", n2.address)]),
        pool("chat", "", &[backend("n3", n3.address)]),
    );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for (host, path, node) in [
        ("example.org", "/", "n1"),
        ("EU.example.org:8443", "/", "n2"),
        ("eu.example.org", "/chat", "n2"),
        ("example.org", "/chat/room", "n3"),
        ("example.org", "/chat", "n3"),
        ("example.org", "/chatter", "n1"),
    ] {
        let stream = crate::clients::connect(address).await;
        let (mut socket, _) = websocket_over(stream, &format!("ws://{host}{path}"))
            .await
            .expect("a WebSocket");
        assert_eq!(node_of(&mut socket).await, node, "{host}{path}");
    }
}

#[tokio::test]
async fn what_no_route_matches_is_refused_without_a_pool() {
    let n1 = Node::web("n1").await;
    let text = listener("main", "websocket", "nodes").replace("pool = \"nodes\"\n", "")
        + "  [[listener.route]]\n  path = \"/chat\"\n  pool = \"nodes\"\n\n"
        + &pool("nodes", "", &[backend("n1", n1.address)]);
    let balancer = Balancer::start(&text);
    let address = balancer.address("main").await;
    let page = crate::clients::http(
        address,
        "GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 404);
    assert_eq!(n1.accepted(), 0);
    let mut stream = crate::clients::connect(address).await;
    stream
        .write_all(b"GET /chat HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("write");
    assert_eq!(crate::clients::read_answer(&mut stream).await.status, 200);
}
