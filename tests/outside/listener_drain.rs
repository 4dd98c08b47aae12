//! Draining a listener: clients that come are turned away, live ones go on or are told to go, until it is ready again.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::clients::{
    Ending, Socket, connect, echoed, greeted, http, http_on, node_of, read_to_ending, refused,
    websocket,
};
use crate::harness::{Balancer, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool, simple};

const DRAIN: &str = "/api/v1/listeners/main/drain";
const READY: &str = "/api/v1/listeners/main/ready";

async fn seen(balancer: &Balancer, name: &str) -> Value {
    let listeners = balancer.get("/api/v1/listeners").await.json();
    let all = listeners["listeners"].as_array().unwrap().iter();
    all.clone()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("{listeners}"))
        .clone()
}

async fn turned_away(balancer: &Balancer) -> f64 {
    let name = "evenkeel_listener_refused_connections_total";
    balancer
        .metric(&[name, "listener=\"main\"", "reason=\"draining\""])
        .await
}

async fn set(balancer: &Balancer, path: &str, body: &Value) -> Value {
    let answer = balancer.post(path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn request(address: SocketAddr, upgrade: bool) -> String {
    let asks = match upgrade {
        true => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        false => "",
    };
    format!("GET / HTTP/1.1\r\nHost: {address}\r\n{asks}\r\n")
}

/// The code of the Close that it ends with.
async fn code_of(mut socket: Socket) -> Option<u16> {
    let reading = async {
        let mut code = None;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                code = Some(frame.code.into());
            }
        }
        code
    };
    within("the end of a websocket", reading).await
}

#[tokio::test]
async fn a_websocket_listener_tells_clients_to_come_again_and_keeps_the_live() {
    let node = Node::web("n1").await;
    let keys = "retry_after = { min = \"10s\", max = \"60s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&node]));
    let address = balancer.address("main").await;
    let mut live = websocket(address, "/").await;
    assert_eq!(node_of(&mut live).await, "n1");
    let mut kept = connect(address).await;
    let before = http_on(&mut kept, &request(address, false)).await;
    assert_eq!(before.status, 200, "{}", before.head);

    let drained = set(&balancer, DRAIN, &json!({})).await;
    assert_eq!(drained["listener"]["state"], "draining", "{drained}");
    assert_eq!(
        (&drained["empty"], &drained["job"]),
        (&json!(false), &Value::Null)
    );
    let accepted = node.accepted();
    // On a connection from before, too: its next request is a new one.
    let again = http_on(&mut kept, &request(address, false)).await;
    assert_eq!(again.status, 503, "{}", again.head);
    let mut times = BTreeSet::new();
    for upgrade in [true, false].into_iter().cycle().take(20) {
        let answer = http(address, &request(address, upgrade)).await;
        assert_eq!(answer.status, 503, "{}", answer.head);
        let head = answer.head.to_lowercase();
        assert!(head.contains("connection: close"), "{head}");
        let time = head.split("retry-after: ").nth(1).unwrap();
        let time: u64 = time.lines().next().unwrap().parse().unwrap();
        assert!((10..=60).contains(&time), "{time}");
        times.insert(time);
    }
    assert!(times.len() > 5, "{times:?}");
    assert_eq!(node.accepted(), accepted, "a node was asked");
    assert_eq!(turned_away(&balancer).await, 21.0);
    assert_eq!(node_of(&mut live).await, "n1", "the live session goes on");
    // The process takes clients, at its other listeners.
    assert_eq!(balancer.get("/readyz").await.status, 200);

    let ready = set(&balancer, READY, &json!({})).await;
    assert_eq!(ready["listener"]["state"], "listening", "{ready}");
    assert_eq!(node_of(&mut websocket(address, "/").await).await, "n1");
}

#[tokio::test]
async fn a_tcp_listener_resets_who_comes_wherever_it_accepts() {
    let node = Node::echo("n1").await;
    // Accepted on a relay thread, and on the set-up plane.
    for keys in ["", "tls = { passthrough = true }"] {
        let config = listener_with("main", "tcp", "nodes", keys)
            + &listener("raw", "tcp", "nodes")
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = Balancer::start(&config);
        let (main, raw) = (
            balancer.address("main").await,
            balancer.address("raw").await,
        );
        let mut live = greeted(raw).await.0;
        set(&balancer, DRAIN, &json!({})).await;
        for _ in 0..5 {
            assert_eq!(refused(main).await, (vec![], Ending::Rst), "{keys}");
        }
        assert_eq!(turned_away(&balancer).await, 5.0);
        assert_eq!(seen(&balancer, "main").await["state"], "draining");
        // The other listener of the same pool has nothing to do with it.
        assert_eq!(seen(&balancer, "raw").await["state"], "listening");
        echoed(&mut live, b"still here").await;
        assert_eq!(greeted(raw).await.1, "n1");
        let warnings: Vec<_> = balancer.log.all();
        assert!(!warnings.iter().any(|line| line.contains("\"WARN\"")));
    }
}

#[tokio::test]
async fn a_live_raw_connection_outlasts_the_drain_of_its_listener() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let address = balancer.address("main").await;
    let mut live = greeted(address).await.0;
    set(&balancer, DRAIN, &json!({})).await;
    assert_eq!(refused(address).await.1, Ending::Rst);
    echoed(&mut live, b"still here").await;
    set(&balancer, READY, &json!({})).await;
    assert_eq!(greeted(address).await.1, "n1");
    // Paced, it ends with a FIN.
    set(&balancer, DRAIN, &json!({ "rate": "100/s" })).await;
    assert_eq!(read_to_ending(&mut live).await, (vec![], Ending::Fin));
}

#[tokio::test]
async fn a_paced_drain_tells_the_clients_of_its_listener_alone() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let config = listener("other", "websocket", "nodes") + &simple("websocket", "", &[&n1, &n2]);
    let balancer = Balancer::start(&config);
    let (main, other) = (
        balancer.address("main").await,
        balancer.address("other").await,
    );
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        leaving.push(websocket(main, "/").await);
        staying.push(websocket(other, "/").await);
    }
    let body = json!({ "rate": "20/s", "close": { "code": 1001 } });
    let drained = set(&balancer, DRAIN, &body).await;
    assert_eq!(drained["job"]["target"], "listener main", "{drained}");
    let codes = join_all(leaving.into_iter().map(code_of)).await;
    assert_eq!(codes, vec![Some(1001); 10]);
    let done = set(&balancer, &format!("{DRAIN}?wait=20s"), &json!({})).await;
    assert_eq!(done["empty"], true, "{done}");
    let over = async {
        loop {
            let jobs = balancer.get("/api/v1/jobs").await.json()["jobs"].clone();
            if jobs[0]["phase"] == "done" {
                return jobs;
            }
        }
    };
    let jobs = within("the job", over).await;
    assert_eq!(
        (&jobs[0]["ended"], &jobs[0]["left"]),
        (&json!(10), &json!(0)),
        "{jobs}"
    );
    for socket in &mut staying {
        node_of(socket).await;
    }
}

#[tokio::test]
async fn a_drained_listener_outlasts_reloads_and_ready_keeps_what_is_left() {
    let node = Node::web("n1").await;
    let config = simple("websocket", "", &[&node]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut live = websocket(address, "/").await;
    // Nobody is ended before an hour has passed.
    let body = json!({ "rate": "100/s", "after": "1h" });
    set(&balancer, DRAIN, &body).await;
    let updated = config.replace("nodes\"\n", "nodes\"\nbacklog = 99\n");
    // The same name at another address: the socket is a new one.
    let moved = config.replace("127.0.0.1:0", "127.0.0.2:0");
    for text in [updated, moved] {
        balancer.reload(&text).await;
        let address = balancer.address("main").await;
        let answer = http(address, &request(address, false)).await;
        assert_eq!(answer.status, 503, "{text}");
        assert_eq!(seen(&balancer, "main").await["state"], "draining");
    }
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["jobs"][0]["target"], "listener main", "{status}");
    set(&balancer, READY, &json!({})).await;
    let jobs = balancer.get("/api/v1/jobs").await.json();
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["jobs"], json!([]), "{jobs}");
    assert_eq!(node_of(&mut live).await, "n1");
    let address = balancer.address("main").await;
    assert_eq!(node_of(&mut websocket(address, "/").await).await, "n1");
}

#[tokio::test]
async fn the_commands_drain_a_listener_and_take_it_back() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    let admin = balancer.address("admin").await.to_string();
    let evenkeel = async |words: &[&str]| {
        let words = [words, &["--admin", &admin]].concat();
        balancer.command(&words).await
    };
    let leaving = websocket(address, "/").await;
    let words = ["drain", "--listener", "main", "--wait", "300ms"];
    let (code, out, error) = evenkeel(&words).await;
    assert_eq!(code, 1, "{out}{error}");
    assert_eq!(out, "listener main: draining, 1 connection\n");
    assert!(
        error.contains("listener main: 1 connection left after 300ms"),
        "{error}"
    );
    let words = [
        "drain",
        "--listener",
        "main",
        "--rate",
        "50/s",
        "--code",
        "1001",
        "--wait",
        "20s",
    ];
    let (done, code) = tokio::join!(evenkeel(&words), code_of(leaving));
    assert_eq!((done.0, code), (0, Some(1001)), "{}{}", done.1, done.2);
    let (_, table, _) = evenkeel(&["status"]).await;
    let line = table
        .lines()
        .find(|line| line.trim_start().starts_with("main"));
    assert!(
        line.is_some_and(|line| line.contains("draining")),
        "{table}"
    );
    let (code, out, error) = evenkeel(&["ready", "--listener", "main"]).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "listener main: listening, 0 connections\n"),
        "{error}"
    );
    assert_eq!(node_of(&mut websocket(address, "/").await).await, "n1");
    let (code, _, error) = evenkeel(&["drain", "--listener", "mian"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("there are: main"), "{error}");
}

#[tokio::test]
async fn a_drain_that_is_not_understood_changes_nothing() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for (path, body, said) in [
        (DRAIN, json!({ "rate": "fast" }), "as in"),
        (DRAIN, json!({ "keep": true, "rate": "1/s" }), "keep"),
        (DRAIN, json!({ "speed": "1/s" }), "unknown field"),
        (READY, json!({ "rate": "1/s" }), "unknown field"),
    ] {
        let answer = balancer.post(path, &body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(answer.body.contains(said), "{body}: {}", answer.body);
    }
    let answer = balancer.post(&format!("{READY}?wait=1s"), "{}").await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(balancer.get(DRAIN).await.status, 405);
    assert_eq!(
        balancer
            .post("/api/v1/listeners/main/maint", "{}")
            .await
            .status,
        404
    );
    assert_eq!(seen(&balancer, "main").await["state"], "listening");
}
