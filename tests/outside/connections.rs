//! The connection table from outside: what is listed under each filter, page by page, and what ends one connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::certificates::{Certificate, client};
use crate::clients::{
    Ending, Socket, echoed, greeted, node_of, read_line, read_to_ending, tls, websocket_over,
};
use crate::harness::{Balancer, Launch, a_moment, raw_request, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool, simple};

const PATH: &str = "/api/v1/connections";

async fn page(balancer: &Balancer, query: &str) -> Value {
    let answer = balancer.get(&format!("{PATH}?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.json()
}

async fn listed(balancer: &Balancer, query: &str) -> Vec<Value> {
    let page = page(balancer, query).await;
    page["connections"].as_array().expect("a list").clone()
}

fn id(connection: &Value) -> u64 {
    connection["id"].as_u64().expect("an id")
}

/// Waits until so many match: for what only time brings about.
async fn listed_until(balancer: &Balancer, query: &str, count: usize) -> Vec<Value> {
    let asked = async {
        loop {
            let seen = listed(balancer, query).await;
            if seen.len() == count {
                return seen;
            }
            a_moment().await;
        }
    };
    within(&format!("{count} connections with {query}"), asked).await
}

/// A greeted connection to an echo node from another address of loopback.
async fn greeted_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let source = format!("{source}:0").parse().expect("an address");
    socket.bind(source).expect("bind");
    let mut stream = within("a connection", socket.connect(address))
        .await
        .expect("connect");
    read_line(&mut stream).await.expect("a greeting");
    stream
}

/// A listener `main` before the echo nodes n1 and n2, and `web` over TLS before the web node w1; a connection on each.
struct Scene {
    balancer: Balancer,
    near: TcpStream,
    far: TcpStream,
    web: Socket<tokio_rustls::client::TlsStream<TcpStream>>,
    nodes: [Node; 3],
}

impl Scene {
    async fn new() -> Scene {
        let nodes = [
            Node::echo("n1").await,
            Node::echo("n2").await,
            Node::web("w1").await,
        ];
        let launch = Launch::new();
        let certificate = Certificate::write(launch.folder.path(), "chat", &["chat.example.org"]);
        let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
        let config = listener("main", "tcp", "nodes")
            + &listener_with("web", "websocket", "chat", &keys)
            + &pool(
                "nodes",
                "",
                &[
                    backend("n1", nodes[0].address),
                    backend("n2", nodes[1].address),
                ],
            )
            + &pool("chat", "", &[backend("w1", nodes[2].address)]);
        let balancer = launch.start(&config);
        let (mut near, name) = greeted(balancer.address("main").await).await;
        assert_eq!(name, "n1");
        echoed(&mut near, b"12345").await;
        let far = greeted_from("127.0.0.2", balancer.address("main").await).await;
        let trust = client(&[&certificate]);
        let address = balancer.address("web").await;
        let stream = tls(address, "chat.example.org", &trust).await;
        let stream = stream.expect("a TLS connection");
        let url = "ws://chat.example.org/socket?token=secret";
        let (mut web, _) = websocket_over(stream, url).await.expect("a WebSocket");
        node_of(&mut web).await;
        Scene {
            balancer,
            near,
            far,
            web,
            nodes,
        }
    }
}

#[tokio::test]
async fn a_connection_is_listed_with_all_that_is_known_and_never_its_query() {
    let scene = Scene::new().await;
    let whole = page(&scene.balancer, "").await;
    assert_eq!(
        (&whole["live"], &whole["next"]),
        (&3.into(), &Value::Null),
        "{whole}"
    );
    assert!(!whole.to_string().contains("secret"), "{whole}");
    let counted = page(&scene.balancer, "count=true&limit=1").await;
    assert_eq!(
        (&counted["matching"], &whole["matching"]),
        (&3.into(), &Value::Null)
    );
    let raw = &listed(&scene.balancer, "backend=n1").await[0];
    let local = scene.near.local_addr().expect("an address").to_string();
    assert_eq!(raw["client"], local.as_str(), "{raw}");
    for unknown in ["sni", "host", "path"] {
        assert_eq!(raw[unknown], Value::Null, "{raw}");
    }
    // The greeting is "n1" and a line feed.
    assert_eq!(
        (&raw["bytes_from_client"], &raw["bytes_from_backend"]),
        (&5.into(), &8.into()),
        "{raw}"
    );
    let web = &listed(&scene.balancer, "listener=web").await[0];
    for (field, wanted) in [
        ("listener", "web"),
        ("sni", "chat.example.org"),
        ("host", "chat.example.org"),
        ("path", "/socket"),
        ("pool", "chat"),
        ("backend", "w1"),
    ] {
        assert_eq!(web[field], wanted, "{web}");
    }
    assert_eq!(
        (&raw["tls"], &web["tls"]),
        (&false.into(), &true.into()),
        "{whole}"
    );
    drop((scene.far, scene.web, scene.nodes));
}

#[tokio::test]
async fn every_filter_holds_and_all_of_them_together() {
    let scene = Scene::new().await;
    for (query, wanted) in [
        ("", 3),
        ("listener=main", 2),
        ("pool=nodes", 2),
        ("pool=chat", 1),
        ("backend=n2", 1),
        ("listener=web&pool=nodes", 0),
        ("sni=CHAT.example.org", 1),
        ("sni=example.org", 0),
        ("path=/socket&host=chat.example.org", 1),
        ("client=127.0.0.0/8", 3),
        ("client=127.0.0.2", 1),
        (
            "client=127.0.0.2%2F32&listener=main&pool=nodes&backend=n2",
            1,
        ),
        ("client=::/0", 0),
        ("min_age=1h", 0),
        ("min_idle=1h", 0),
        ("min_age=0s&min_idle=0s", 3),
    ] {
        let seen = listed(&scene.balancer, query).await;
        assert_eq!(seen.len(), wanted, "{query}: {seen:?}");
    }
    listed_until(&scene.balancer, "min_age=200ms&min_idle=200ms", 3).await;
    drop((scene.near, scene.far, scene.web, scene.nodes));
}

/// It found nobody, which looks like the end of the work.
#[tokio::test]
async fn a_name_that_nothing_has_is_an_error_and_no_job() {
    let scene = Scene::new().await;
    let balancer = &scene.balancer;
    for (filter, said) in [
        (
            "listener=none",
            "no listener \"none\"; there are: main, web",
        ),
        ("pool=nope", "no pool \"nope\"; there are: chat, nodes"),
        (
            "backend=n9",
            "no backend \"n9\" in any pool; there are: n1, n2, w1",
        ),
        (
            "pool=nodes&backend=w1",
            "no backend \"w1\" in pool \"nodes\"; there are: n1, n2",
        ),
    ] {
        let answer = balancer.get(&format!("{PATH}?{filter}")).await;
        assert_eq!(answer.status, 404, "{filter}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(error, said, "{filter}");
        let conditions: serde_json::Map<String, Value> = filter
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let body = serde_json::json!({ "filter": conditions }).to_string();
        for word in ["close", "move"] {
            let answer = balancer.post(&format!("{PATH}/{word}"), &body).await;
            assert_eq!(answer.status, 404, "{filter}: {}", answer.body);
            assert!(answer.json()["error"] == said, "{}", answer.body);
        }
    }
    let admin = balancer.address("admin").await.to_string();
    let words = ["connections", "--pool", "nope", "--admin", &admin];
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("there are: chat, nodes"), "{error}");
    let jobs = balancer.get("/api/v1/jobs").await.json();
    assert_eq!(jobs["jobs"], serde_json::json!([]));
    assert_eq!(listed(balancer, "").await.len(), 3);
}

#[tokio::test]
async fn what_cannot_move_is_told_so() {
    let scene = Scene::new().await;
    let balancer = &scene.balancer;
    for (body, said) in [
        (
            r#"{"filter": {"pool": "chat"}}"#,
            "pool \"chat\" has no `resume`",
        ),
        (
            r#"{"filter": {"backend": "n1"}}"#,
            "pool \"nodes\" has no `resume`",
        ),
        (r#"{"all": true}"#, "has `resume`, so no session can move"),
    ] {
        let answer = balancer.post(&format!("{PATH}/move"), body).await;
        assert_eq!(answer.status, 409, "{body}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{body}: {error}");
    }
    let jobs = balancer.get("/api/v1/jobs").await.json();
    assert_eq!(jobs["jobs"], serde_json::json!([]));
}

/// A pool that a reload removed is still named by those that it left.
#[tokio::test]
async fn what_was_removed_is_found_while_it_has_connections() {
    let scene = Scene::new().await;
    let balancer = &scene.balancer;
    let kept = listener("web", "websocket", "chat")
        + &pool("chat", "", &[backend("w1", scene.nodes[2].address)]);
    balancer.reload(&kept).await;
    for filter in ["listener=main", "pool=nodes", "pool=nodes&backend=n2"] {
        assert!(!listed(balancer, filter).await.is_empty(), "{filter}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_what_is_allowed() {
    let scene = Scene::new().await;
    for (query, said) in [
        ("pol=chat", "allowed: listener, pool, backend, client"),
        ("client=evil.example", "parameter client"),
        ("min_age=60", "parameter min_age"),
        ("limit=1001", "1 to 1000"),
        ("cursor=-1", "parameter cursor"),
    ] {
        let answer = scene.balancer.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.body.contains(said), "{query}: {}", answer.body);
    }
    // Any number is a cursor; behind the table there is nothing.
    page(&scene.balancer, &format!("cursor={}", u32::MAX)).await;
    let behind = listed(&scene.balancer, &format!("cursor={}", u64::MAX)).await;
    assert!(behind.is_empty(), "{behind:?}");
    assert_eq!(listed(&scene.balancer, "").await.len(), 3);
}

#[tokio::test]
async fn pages_list_each_connection_once() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..130 {
        held.push(greeted(address).await.0);
    }
    assert_eq!(listed(&balancer, "").await.len(), 100, "the default limit");
    let mut ids = Vec::new();
    let mut query = "limit=7".to_owned();
    loop {
        let page = page(&balancer, &query).await;
        assert_eq!(page["live"], 130);
        let connections = page["connections"].as_array().expect("a list");
        assert!(connections.len() <= 7);
        ids.extend(connections.iter().map(id));
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        query = format!("limit=7&cursor={next}");
    }
    let once: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!((ids.len(), once.len()), (130, 130));
}

#[tokio::test]
async fn a_delete_ends_that_connection_alone() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&format!("[access_log]\noutput = \"stdout\"\n\n{config}"));
    let address = balancer.address("main").await;
    let (mut one, _) = greeted(address).await;
    let first = id(&listed(&balancer, "").await[0]);
    let (mut other, _) = greeted(address).await;
    let path = format!("{PATH}/{first}");
    let answer = balancer.change("DELETE", &path, "").await;
    assert_eq!(
        (answer.status, answer.json()["closed"].as_u64()),
        (200, Some(1)),
        "{}",
        answer.body
    );
    assert_eq!(read_to_ending(&mut one).await, (Vec::new(), Ending::Fin));
    let line = balancer
        .access("its line", |line| line["id"] == first)
        .await;
    let end = &line["end"];
    assert_eq!(
        (&end["side"], &end["phase"], &end["how"]),
        (&"evenkeel".into(), &"relay".into(), &"stop".into()),
        "{line}"
    );
    let seen = listed_until(&balancer, "", 1).await;
    assert_ne!(id(&seen[0]), first);
    echoed(&mut other, b"still here").await;
    for gone in [first.to_string(), "999999".into(), "x".into()] {
        let answer = balancer
            .change("DELETE", &format!("{PATH}/{gone}"), "{}")
            .await;
        assert_eq!(answer.status, 404, "{gone}: {}", answer.body);
    }
    echoed(&mut other, b"and still").await;
}

#[tokio::test]
async fn no_foreign_page_no_get_and_no_form_ends_a_connection() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let admin = balancer.address("admin").await;
    let (mut live, _) = greeted(balancer.address("main").await).await;
    let path = format!("{PATH}/{}", id(&listed(&balancer, "").await[0]));
    let json = "Content-Type: application/json\r\n";
    let own = format!("Host: {admin}\r\n");
    for (method, headers, body, status) in [
        ("DELETE", format!("Host: evil.example\r\n{json}"), "{}", 403),
        (
            "DELETE",
            format!("{own}{json}Origin: http://evil.example\r\n"),
            "{}",
            403,
        ),
        (
            "DELETE",
            format!("{own}{json}Sec-Fetch-Site: cross-site\r\n"),
            "{}",
            403,
        ),
        ("DELETE", own.clone(), "", 415),
        (
            "DELETE",
            format!("{own}Content-Type: text/plain\r\n"),
            "{}",
            415,
        ),
        ("DELETE", format!("{own}{json}"), "{\"all\": true}", 400),
        ("GET", own.clone(), "", 405),
        ("HEAD", own.clone(), "", 405),
        ("POST", format!("{own}{json}"), "{}", 405),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = raw_request(admin, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
    }
    let answer = balancer.change("DELETE", PATH, "{}").await;
    assert_eq!(answer.status, 405, "the whole table: {}", answer.body);
    echoed(&mut live, b"still here").await;
}

#[tokio::test]
async fn the_command_shows_a_table_or_json_and_follows_the_pages() {
    let scene = Scene::new().await;
    let admin = scene.balancer.address("admin").await.to_string();
    let command = async |words: &[&str]| {
        let words = [words, &["--admin", &admin]].concat();
        scene.balancer.command(&words).await
    };
    let (code, table, error) = command(&["connections", "--pool", "chat"]).await;
    assert_eq!(code, 0, "{error}");
    for word in ["CLIENT", "web", "chat/w1", "chat.example.org/socket"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(table.ends_with("\n1 listed, 3 live\n"), "{table}");
    let (_, table, _) = command(&["connections", "--limit", "1"]).await;
    assert!(table.contains("there may be more: --all"), "{table}");
    let filters = [
        "connections",
        "--client",
        "127.0.0.2",
        "--min-age",
        "0s",
        "--listener",
        "main",
        "--backend",
        "n2",
        "-o",
        "json",
    ];
    let (_, json, _) = command(&filters).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["connections"][0]["backend"], "n2", "{json}");
    let (_, json, _) = command(&["connections", "--all", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["connections"].as_array().map(Vec::len),
        Some(3),
        "{json}"
    );
    let (code, _, error) = command(&["connections", "--client", "evil"]).await;
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("10.0.0.0/8"), "{error}");
    let (code, ..) = command(&["connections", "--min-idle", "60"]).await;
    assert_eq!(code, 2, "a duration without a unit is wrong usage");
}

#[tokio::test]
async fn close_ends_one_and_fails_when_there_is_none() {
    let mut scene = Scene::new().await;
    let admin = scene.balancer.address("admin").await.to_string();
    let far = id(&listed(&scene.balancer, "client=127.0.0.2").await[0]).to_string();
    let words = ["close", far.as_str(), "--admin", &admin];
    let (code, out, error) = scene.balancer.command(&words).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "1 connection closed\n"),
        "{error}"
    );
    assert_eq!(read_to_ending(&mut scene.far).await.1, Ending::Fin);
    let (code, out, error) = scene.balancer.command(&words).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains(&far), "{error}");
    echoed(&mut scene.near, b"still here").await;
    node_of(&mut scene.web).await;
}

/// They were up to half a minute behind.
#[tokio::test]
async fn bytes_of_live_connections_are_in_the_metrics_when_they_are_asked_for() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let (mut stream, _) = greeted(balancer.address("main").await).await;
    for round in 1..=3u32 {
        echoed(&mut stream, &[7; 1000]).await;
        let name = "evenkeel_listener_from_client_bytes_total";
        assert_eq!(
            balancer.metric(&[name, "main"]).await,
            f64::from(round * 1000)
        );
        let seen = balancer.backend("nodes", "n1").await;
        assert_eq!(seen["bytes_from_client"], round * 1000, "{seen}");
    }
}

#[tokio::test]
async fn the_busiest_and_the_quietest_are_shown_first() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let address = balancer.address("main").await;
    let mut streams = Vec::new();
    for size in [10, 3000, 200] {
        let (mut stream, _) = greeted(address).await;
        echoed(&mut stream, &vec![7; size]).await;
        streams.push(stream);
    }
    let ids = |listed: &[Value]| listed.iter().map(id).collect::<Vec<_>>();
    assert_eq!(ids(&listed(&balancer, "sort=bytes").await), [2, 3, 1]);
    assert_eq!(ids(&listed(&balancer, "sort=age&limit=2").await), [1, 2]);
    // The oldest speaks last; the clock of idleness has ticks of 10 ms.
    within("the one that speaks to be the last by idleness", async {
        loop {
            echoed(&mut streams[0], b"again").await;
            let by_idleness = ids(&listed(&balancer, "sort=idle").await);
            if by_idleness.last() == Some(&1) {
                return;
            }
        }
    })
    .await;
    for bad in ["sort=size", "sort=age&cursor=0"] {
        let answer = balancer.get(&format!("{PATH}?{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let admin = balancer.address("admin").await.to_string();
    let words = [
        "connections",
        "--sort",
        "bytes",
        "--limit",
        "1",
        "--admin",
        &admin,
    ];
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        out.lines()
            .nth(1)
            .is_some_and(|row| row.trim_start().starts_with('2')),
        "{out}"
    );
}
