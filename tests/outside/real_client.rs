//! The client behind a trusted HTTP balancer: whom its forwarding field names, request by request.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::clients::{Ending, connect, http_on, node_of};
use crate::harness::{Balancer, Launch, within};
use crate::http::{one, sent};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

const TRUSTED: &str = "trusted = [\"127.0.0.0/8\"]";

const LOGGED: &str = "[access_log]\noutput = \"stdout\"\n\n";

#[tokio::test]
async fn the_client_that_a_trusted_balancer_names_is_the_one_of_routes_log_and_fields() {
    let node = Node::web("n1").await;
    let config = LOGGED.to_owned()
        + &listener_with("main", "websocket", "nodes", "trusted = [\"127.0.0.0/8\"]")
        + "[[listener.route]]\npath = \"/\"\npool = \"nodes\"\ndeny = [\"203.0.113.0/24\"]\n"
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    let ask = |chain: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: {chain}\r\n\r\n"
        )
    };
    let page = http_on(&mut stream, &ask("203.0.113.1, 198.51.100.7")).await;
    assert_eq!(sent(&page, "x-real-ip"), ["198.51.100.7"]);
    let line = balancer
        .access("the client", |line| line["client"] == "198.51.100.7")
        .await;
    assert_eq!(line["via"], stream.local_addr().unwrap().to_string());
    // The same connection carries another client.
    let page = http_on(&mut stream, &ask("198.51.100.7, 203.0.113.1")).await;
    assert_eq!(page.status, 403);
}

#[tokio::test]
async fn only_the_field_that_forwarded_names_tells_who_the_client_is() {
    let node = Node::web("n1").await;
    let x = "X-Forwarded-For: 198.51.100.1";
    let rfc = "Forwarded: for=\"[2001:db8::2]:80\";proto=https";
    let real = "X-Real-IP: 6.6.6.6";
    for (keys, fields, named) in [
        (
            "allow = [\"127.0.0.0/8\"]",
            [x, rfc, real],
            Some("198.51.100.1"),
        ),
        ("forwarded = \"both\"", [x, rfc, real], Some("198.51.100.1")),
        (
            "forwarded = \"rfc7239\"",
            [x, rfc, real],
            Some("2001:db8::2"),
        ),
        ("forwarded = \"rfc7239\"", [x, real, "A: b"], None),
        ("", [rfc, real, "X_Forwarded_For: 6.6.6.6"], None),
        ("", ["X-Forwarded-For: 6.6.6.6, unknown", rfc, real], None),
        ("client_ip_from = \"peer\"", [x, rfc, real], None),
    ] {
        let keys = format!("trusted = [\"127.0.0.0/8\"]\n{keys}");
        let config = LOGGED.to_owned()
            + &listener_with("main", "websocket", "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = Balancer::start(&config);
        let mut stream = connect(balancer.address("main").await).await;
        let peer = stream.local_addr().unwrap().to_string();
        let fields = fields.join("\r\n");
        let page = http_on(
            &mut stream,
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"),
        )
        .await;
        assert_eq!(page.status, 200, "{keys}");
        let line = balancer
            .access("the client", |line| line["path"] == "/")
            .await;
        assert_eq!(line["client"], named.unwrap_or(&peer), "{keys} {fields}");
        assert_eq!(
            line["via"].as_str(),
            named.map(|_| &*peer),
            "{keys} {fields}"
        );
    }
}

#[tokio::test]
async fn a_chain_that_names_nobody_makes_the_peer_the_client_of_x_real_ip() {
    let node = Node::web("n1").await;
    for (keys, real) in [("", "127.0.0.1"), ("client_ip_from = \"peer\"", "6.6.6.6")] {
        let keys = format!("trusted = [\"127.0.0.0/8\"]\n{keys}");
        let config = listener_with("main", "websocket", "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = Balancer::start(&config);
        let page = one(
            &balancer,
            "GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6, unknown\r\n\r\n",
        )
        .await;
        assert_eq!(sent(&page, "x-real-ip"), [real], "{keys}");
    }
}

// It may know more hops than `trusted` names, as an nginx behind a CDN does.
#[tokio::test]
async fn x_real_ip_of_a_trusted_balancer_stays_where_it_is_of_the_chain() {
    let node = Node::web("n1").await;
    let config = listener_with("main", "websocket", "nodes", TRUSTED)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    for (told, real) in [
        ("X-Real-IP: 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Real-IP: 6.6.6.6\r\n", "198.51.100.1"),
        (
            "X-Real-IP: 203.0.113.9\r\nX-Real-IP: 6.6.6.6\r\n",
            "198.51.100.1",
        ),
        ("", "198.51.100.1"),
    ] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n{told}\r\n"
        );
        let page = one(&balancer, &request).await;
        assert_eq!(sent(&page, "x-real-ip"), [real], "{told}");
    }
}

/// The name of the node that served a request for this client.
async fn node_for(balancer: &Balancer, client: u8) -> String {
    let request =
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.{client}\r\n\r\n");
    let page = one(balancer, &request).await;
    page.json()["node"].as_str().expect("a node").to_owned()
}

#[tokio::test]
async fn clients_behind_a_trusted_balancer_are_hashed_each_for_itself() {
    let nodes = [Node::web("n1").await, Node::web("n2").await];
    let backends = [
        backend("n1", nodes[0].address),
        backend("n2", nodes[1].address),
    ];
    for balance in ["ip_hash", "hash\"\nhash_key = \"header:X-None"] {
        let keys = format!("balance = \"{balance}\"");
        let start = |listener: &str| {
            let listener = listener_with("main", "websocket", "nodes", listener);
            Balancer::start(&(listener + &pool("nodes", &keys, &backends)))
        };
        let balancer = start(TRUSTED);
        let mut seen = Vec::new();
        for client in 0..32 {
            let node = node_for(&balancer, client).await;
            assert_eq!(node_for(&balancer, client).await, node, "{balance}");
            seen.push(node);
        }
        assert!(seen.iter().any(|node| *node != seen[0]), "{balance}");
        let balancer = start("");
        let first = node_for(&balancer, 0).await;
        for client in 1..16 {
            assert_eq!(node_for(&balancer, client).await, first, "not trusted");
        }
    }
}

/// A session of this client over a connection of the balancer in front, or the status that it was told.
async fn session(address: SocketAddr, client: &str) -> Result<WebSocketStream<TcpStream>, u16> {
    let mut request = format!("ws://{address}/")
        .into_client_request()
        .expect("a request");
    let chain = client.parse().expect("a value");
    request.headers_mut().insert("x-forwarded-for", chain);
    let stream = connect(address).await;
    match within(
        "a handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await
    {
        Ok((mut socket, _)) => {
            assert_eq!(node_of(&mut socket).await, "n1");
            Ok(socket)
        }
        Err(Error::Http(answer)) => {
            assert!(answer.headers().contains_key("retry-after"), "{answer:?}");
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

async fn refused(balancer: &Balancer, reason: &str) -> f64 {
    let name = "evenkeel_listener_refused_connections_total";
    let reason = format!("reason=\"{reason}\"");
    balancer.metric(&[name, "listener=\"main\"", &reason]).await
}

async fn limited(keys: &str) -> (Balancer, Node) {
    let node = Node::web("n1").await;
    let keys = format!("{TRUSTED}\n{keys}");
    let config = LOGGED.to_owned()
        + &listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    (Balancer::start(&config), node)
}

#[tokio::test]
async fn sessions_are_limited_for_each_client_that_the_balancer_names() {
    let (balancer, _node) = limited("per_source = { max_connections = 2 }").await;
    let address = balancer.address("main").await;
    // Connections of the balancer in front are nobody's own, and requests are no sessions.
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(address).await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n";
        assert_eq!(http_on(&mut stream, request).await.status, 200);
        kept.push(stream);
    }
    let first = session(address, "203.0.113.1").await.expect("the first");
    let _second = session(address, "6.6.6.6, 203.0.113.1")
        .await
        .expect("the second");
    assert_eq!(session(address, "203.0.113.1").await.err(), Some(429));
    assert_eq!(
        session(address, "6.6.6.7, 203.0.113.1:80").await.err(),
        Some(429)
    );
    let line = balancer
        .access("who was kept out", |line| line["status"] == 429)
        .await;
    assert_eq!(line["client"], "203.0.113.1");
    assert_eq!(line["end"]["how"], "full");
    assert_eq!(refused(&balancer, "per_source.max_connections").await, 2.0);
    let _other = session(address, "203.0.113.2")
        .await
        .expect("another client");
    let _network = session(address, "2001:db8::1").await.expect("one of IPv6");
    drop(first);
    within("its place", async {
        while session(address, "203.0.113.1").await.is_err() {}
    })
    .await;
    // Where no chain names a client, the balancer is the client.
    let unnamed = [
        session(address, "unknown").await.expect("the first"),
        session(address, "203.0.113.1, unknown")
            .await
            .expect("the second"),
    ];
    assert_eq!(session(address, "unknown").await.err(), Some(429));
    drop(unnamed);
}

#[tokio::test]
async fn sessions_come_at_a_rate_for_each_client_that_the_balancer_names() {
    let (balancer, _node) = limited("per_source = { max_connection_rate = \"2/h\" }").await;
    let address = balancer.address("main").await;
    for client in ["203.0.113.1", "203.0.113.2"] {
        for _ in 0..2 {
            session(address, client).await.expect("within the rate");
        }
        assert_eq!(session(address, client).await.err(), Some(429), "{client}");
    }
    assert_eq!(
        refused(&balancer, "per_source.max_connection_rate").await,
        2.0
    );
}

#[tokio::test]
async fn the_peer_is_limited_at_accept_where_it_is_the_client() {
    for keys in ["client_ip_from = \"peer\"", "trusted = [\"192.0.2.1\"]"] {
        let (trusted, peer) = match keys.starts_with("trusted") {
            true => (keys, ""),
            false => (TRUSTED, keys),
        };
        let node = Node::web("n1").await;
        let keys = format!("{trusted}\n{peer}\nper_source = {{ max_connections = 2 }}");
        let config = listener_with("main", "websocket", "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = Balancer::start(&config);
        let address = balancer.address("main").await;
        let _held = [
            session(address, "203.0.113.1").await.expect("the first"),
            session(address, "203.0.113.2").await.expect("the second"),
        ];
        assert_eq!(
            crate::clients::refused(address).await,
            (vec![], Ending::Rst),
            "{keys}"
        );
    }
}

// The header says that its sender asks for itself, so a chain behind it is a stranger's.
#[tokio::test]
async fn behind_a_proxy_header_that_announces_nobody_no_chain_is_read() {
    let (balancer, _node) = limited("accept_proxy = true").await;
    let address = balancer.address("main").await;
    let mut stream = connect(address).await;
    let peer = stream.local_addr().expect("an address").to_string();
    let request =
        "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n";
    let page = http_on(&mut stream, request).await;
    assert_eq!(sent(&page, "x-real-ip"), ["127.0.0.1"]);
    let line = balancer
        .access("the client", |line| line["path"] == "/")
        .await;
    assert_eq!(line["client"], *peer);
    // One that announces a trusted balancer leaves the naming to it.
    let mut stream = connect(address).await;
    let via = stream.local_addr().expect("an address").to_string();
    let request = "PROXY TCP4 127.0.0.9 127.0.0.1 4711 443\r\nGET /named HTTP/1.1\r\nHost: a\r\n\
                   X-Forwarded-For: 203.0.113.1\r\n\r\n";
    let page = http_on(&mut stream, request).await;
    assert_eq!(sent(&page, "x-real-ip"), ["203.0.113.1"]);
    let line = balancer
        .access("the client", |line| line["path"] == "/named")
        .await;
    assert_eq!(
        (&line["client"], &line["via"]),
        (&"203.0.113.1".into(), &via.into())
    );
}

#[tokio::test]
async fn a_balancer_behind_a_unix_socket_names_clients_too() {
    let node = Node::web("n1").await;
    // A balancer on this machine, and one behind another of the network.
    for (trusted, hops) in [("\"unix\"", ""), ("\"unix\", \"10.0.0.0/8\"", ", 10.0.0.9")] {
        let launch = Launch::new();
        let path = launch.path("web.sock");
        let keys = format!("trusted = [{trusted}]\nper_source = {{ max_connections = 1 }}");
        let config = listener_with("main", "websocket", "nodes", &keys).replacen(
            "127.0.0.1:0",
            &format!("unix:{}", path.display()),
            1,
        ) + "[[listener.route]]\npath = \"/\"\npool = \"nodes\"\ndeny = [\"203.0.113.0/24\"]\n"
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = launch.start(&config);
        balancer
            .event("the listener", 0, |event| {
                event.message() == "listening" && event.field("listener") == Some("main")
            })
            .await;
        for (client, status) in [("198.51.100.1", "200"), ("203.0.113.1", "403")] {
            let mut stream = UnixStream::connect(&path).await.expect("connect");
            let request = format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: {client}{hops}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("write");
            let mut answer = String::new();
            within("an answer", stream.read_to_string(&mut answer))
                .await
                .expect("read");
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }
}
