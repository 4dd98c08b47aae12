//! Whose a session is: its tag in the table, in the log and nowhere else, and the sessions that a filter finds.

use std::sync::Arc;

use futures_util::StreamExt as _;
use rustls::version::TLS13;
use serde_json::Value;

use crate::authority::{Authority, ECDSA};
use crate::clients::{connect, node_of, read_line, tls, websocket_over};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

type Socket = crate::clients::Socket<tokio::net::TcpStream>;

struct Scene {
    balancer: Balancer,
    _node: Node,
}

impl Scene {
    async fn new(keys: &str) -> Scene {
        let node = Node::web("n1").await;
        let config = listener_with("main", "websocket", "nodes", keys)
            + &pool("nodes", "", &[backend("n1", node.address)])
            + "[access_log]\noutput = \"stdout\"\n";
        Scene {
            balancer: Balancer::start(&config),
            _node: node,
        }
    }

    async fn session(&self, url: &str) -> Socket {
        let stream = connect(self.balancer.address("main").await).await;
        let (mut socket, _) = websocket_over(stream, url).await.expect("a WebSocket");
        node_of(&mut socket).await;
        socket
    }

    async fn listed(&self, query: &str) -> Vec<Value> {
        let path = format!("/api/v1/connections?{query}");
        let answer = self.balancer.get(&path).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let page = answer.json();
        page["connections"].as_array().expect("a list").clone()
    }

    /// The tags of those that a filter finds.
    async fn tags(&self, query: &str) -> Vec<String> {
        let listed = self.listed(query).await;
        let tag = |one: &Value| one["tag"].as_str().unwrap_or("none").to_owned();
        let mut tags: Vec<String> = listed.iter().map(tag).collect();
        tags.sort();
        tags
    }
}

async fn ended(mut socket: Socket) {
    let end = async { while socket.next().await.is_some_and(|one| one.is_ok()) {} };
    within("the end of the session", end).await;
}

#[tokio::test]
async fn one_users_sessions_are_found_and_ended() {
    let scene = Scene::new("tag = \"query:uid\"").await;
    let first = scene.session("ws://a.example/s?x=1&uid=u%207").await;
    let second = scene.session("ws://a.example/s?uid=u%207").await;
    let other = scene.session("ws://a.example/s?uid=8").await;
    let untagged = scene.session("ws://a.example/s?other=u%207").await;
    assert_eq!(scene.tags("tag=u%207").await, ["u 7", "u 7"]);
    assert_eq!(scene.tags("tag=u").await, [""; 0]);
    assert_eq!(scene.tags("").await, ["8", "none", "u 7", "u 7"]);
    let admin = scene.balancer.address("admin").await.to_string();
    let run = |words: &[&str]| {
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        all.extend(["--admin".to_owned(), admin.clone()]);
        let balancer = &scene.balancer;
        async move {
            let words: Vec<&str> = all.iter().map(String::as_str).collect();
            balancer.command(&words).await
        }
    };
    let (code, shown, error) = run(&["connections", "--tag", "u 7"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        shown.contains("TAG") && shown.contains("2 listed"),
        "{shown}"
    );
    let (code, _, error) = run(&["close", "--tag", "u 7"]).await;
    assert_eq!(code, 0, "{error}");
    ended(first).await;
    ended(second).await;
    let left = async {
        while scene.tags("").await != ["8", "none"] {
            a_moment().await;
        }
    };
    within("the others alone", left).await;
    let (code, _, _) = run(&["close", "1", "--tag", "8"]).await;
    assert_eq!(code, 2, "an id is one connection, a tag a filter");
    let metrics = scene.balancer.get("/metrics").await.body;
    assert!(
        !metrics.contains("u 7") && !metrics.contains("tag="),
        "{metrics}"
    );
    drop((other, untagged));
}

#[tokio::test]
async fn the_log_has_the_tag_or_its_hash() {
    let long = "x".repeat(100);
    // printf %0100d 0 | tr 0 x | sha256sum | cut -c1-16
    let hash = "09ecb6ebc8bcefc7";
    let kept = format!("{}~{hash}", "x".repeat(47));
    for (keys, wanted) in [
        ("tag = \"query:uid\"", &*kept),
        ("tag = \"query:uid\"\ntag_hash = true", hash),
    ] {
        let scene = Scene::new(keys).await;
        let mut socket = scene.session(&format!("ws://a.example/s?uid={long}")).await;
        let shown = scene.tags("").await;
        assert_eq!(shown, [&*kept], "the operator finds it in either case");
        socket.close(None).await.expect("a close");
        ended(socket).await;
        let line = scene
            .balancer
            .access("the end of the session", |line| line["event"] == "end")
            .await;
        assert_eq!(line["tag"], wanted, "{line}");
        assert_eq!(line["path"], "/s", "{line}");
    }
}

#[tokio::test]
async fn sessions_are_found_by_host_and_path() {
    let scene = Scene::new("tag = \"query:n\"").await;
    let _sockets = [
        scene.session("ws://a.example/chat/one?n=1").await,
        scene.session("ws://a.example:81/chat?n=2").await,
        scene.session("ws://b.example/chat/two?n=3").await,
    ];
    for (query, found) in [
        ("host=A.example", &["1", "2"][..]),
        ("host=a.example:81", &["1", "2"]),
        ("path=/chat", &["2"]),
        ("path=/chat/*", &["1", "3"]),
        ("path=/chat/*&host=b.example", &["3"]),
        ("sni=a.example", &[]),
        ("subject=CN%3Da", &[]),
    ] {
        assert_eq!(scene.tags(query).await, found, "{query}");
    }
    let body = "{\"filter\": {\"host\": \"b.example\", \"path\": \"/chat/two\"}}";
    let job = scene.balancer.post("/api/v1/connections/close", body).await;
    assert_eq!(job.status, 202, "{}", job.body);
    let what = job.json()["target"].as_str().unwrap_or_default().to_owned();
    assert_eq!(what, "host=b.example path=/chat/two");
    let left = async {
        while scene.tags("").await != ["1", "2"] {
            a_moment().await;
        }
    };
    within("the others alone", left).await;
}

#[tokio::test]
async fn sessions_are_found_by_the_clients_certificate_and_name() {
    const NAME: &str = "chat.example.org";
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = authority.server("server", &[NAME], ECDSA);
    let keys = format!(
        "tls = {{ client_auth = {{ ca = \"ca.pem\", mode = \"required\" }}, certificates = [{}] }}",
        server.toml()
    );
    let balancer = launch.start(
        &(listener_with("main", "tcp", "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", node.address)])),
    );
    let mut streams = Vec::new();
    for (serial, common) in [(7, "alice"), (8, "bob")] {
        let issued = authority.client(common, common, serial);
        let client = authority.trusting(&[&TLS13], Some(&issued));
        let address = balancer.address("main").await;
        let stream = tls(address, NAME, &Arc::new(client)).await;
        let mut stream = stream.expect("a TLS connection");
        read_line(&mut stream).await.expect("a greeting");
        streams.push(stream);
    }
    let scene = Scene {
        balancer,
        _node: node,
    };
    for (query, found) in [
        ("subject=CN%3Dalice", 1),
        ("subject=CN%3Dbob,O%3DExample", 1),
        ("subject=O%3DExample", 2),
        ("subject=CN%3Dali", 0),
        ("sni=Chat.example.org", 2),
        ("sni=example.org", 0),
    ] {
        let listed = scene.listed(query).await;
        assert_eq!(listed.len(), found, "{query}: {listed:?}");
    }
    let alice = &scene.listed("subject=CN%3Dalice").await[0];
    assert_eq!(alice["client_subject"], "CN=alice,O=Example");
}

#[tokio::test]
async fn long_tags_of_one_beginning_are_other_users() {
    let scene = Scene::new("tag = \"query:uid\"").await;
    let long = |end: &str| "x".repeat(64) + end;
    let mut held = Vec::new();
    for end in ["", "A", "B"] {
        let url = format!("ws://a.example/s?uid={}", long(end));
        held.push(scene.session(&url).await);
    }
    let shown = scene.tags("").await;
    assert!(shown.iter().all(|tag| tag.len() == 64), "{shown:?}");
    for end in ["", "A", "B"] {
        let found = scene.tags(&format!("tag={}", long(end))).await;
        assert_eq!(found.len(), 1, "{found:?}");
        // As it is shown it is found too.
        assert_eq!(scene.tags(&format!("tag={}", found[0])).await, found);
    }
}
