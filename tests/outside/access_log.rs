//! What the access log and the counters say of those who were served and of those who were turned away.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::certificates::{Certificate, client};
use crate::clients::{
    Socket, ask, connect, http, read_to_ending, refused, tls, try_websocket, websocket,
    websocket_over,
};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool, simple};

const LOG: &str = "[access_log]\noutput = \"stdout\"\n\n";

async fn said_goodbye<S>(socket: &mut Socket<S>, code: u16)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let close = CloseFrame {
        code: CloseCode::from(code),
        reason: "".into(),
    };
    within("a close", socket.close(Some(close)))
        .await
        .expect("close");
    let end = async { while let Some(Ok(_)) = socket.next().await {} };
    within("the end of a websocket", end).await;
}

fn end_of(listener: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["listener"] == listener && line["event"] == "end"
}

#[tokio::test]
async fn a_session_has_its_address_in_parts_its_handshake_and_both_closes() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = LOG.to_owned()
        + &listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let trusting = client(&[&certificate]);
    let address = balancer.address("main").await;
    let stream = tls(address, "a.example", &trusting).await.expect("tls");
    let local = stream.get_ref().0.local_addr().expect("an address");
    let (mut socket, _) = websocket_over(stream, "wss://a.example/")
        .await
        .expect("a websocket");
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    said_goodbye(&mut socket, 4001).await;
    drop(socket);
    let line = balancer.access("the end", end_of("main")).await;
    assert_eq!(line["client"], local.to_string());
    assert_eq!(line["client_ip"], "127.0.0.1");
    assert_eq!(line["client_port"], local.port());
    assert_eq!(line["tls_version"], "1.3");
    let cipher = line["tls_cipher"].as_str().expect("a cipher");
    assert!(cipher.starts_with("TLS_"), "{line}");
    assert_eq!(line["tls_resumed"], false);
    assert_eq!(line["client_close"], 4001, "{line}");
    // The node echoes it, as most do.
    assert_eq!(line["backend_close"], 4001, "{line}");
}

/// What each said by itself, and what they answered us.
#[tokio::test]
async fn closes_of_our_own_have_the_answers_of_both_sides() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&format!("{LOG}{}", simple("websocket", "", &[&node])));
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    let body = "{\"filter\":{\"pool\":\"nodes\"},\"close\":{\"code\":3007}}";
    let job = balancer.post("/api/v1/connections/close", body).await;
    assert!(job.status < 300, "{}", job.body);
    let end = async { while let Some(Ok(_)) = socket.next().await {} };
    within("the end of a websocket", end).await;
    let line = balancer.access("the end", end_of("main")).await;
    let closes = json!([line["client_close"], line["backend_close"]]);
    assert_eq!(closes, json!([3007, 3007]), "{line}");
}

/// The ids that the latest request had, under whatever name.
fn ids(node: &Node) -> Vec<String> {
    let heads = node.heads.lock().unwrap();
    let latest = heads.last().expect("a request");
    let fields = latest.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| name.replace('_', "-").eq_ignore_ascii_case("x-request-id"))
        .map(|(name, value)| format!("{name}:{value}"))
        .collect()
}

#[tokio::test]
async fn a_request_has_one_id_at_the_node_and_in_the_log() {
    let node = Node::web("n1").await;
    let backends = [backend("n1", node.address)];
    let config = LOG.to_owned()
        + &listener_with("main", "websocket", "nodes", "")
        + &listener_with(
            "trusting",
            "websocket",
            "nodes",
            "trusted = [\"127.0.0.1\"]",
        )
        + &listener_with("off", "websocket", "nodes", "request_id = false")
        + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: theirs-1\r\nX_Request_Id: theirs-2\r\n\
                   Connection: close, X-Request-Id\r\n\r\n";
    for (listener, is_theirs) in [("main", false), ("trusting", true)] {
        let answer = http(balancer.address(listener).await, request).await;
        assert_eq!(answer.status, 200);
        let line = balancer.access("a line", end_of(listener)).await;
        let id = line["request_id"].as_str().expect("an id").to_owned();
        assert_eq!(ids(&node), [format!("X-Request-Id: {id}")]);
        assert_eq!(id == "theirs-1", is_theirs, "{id}");
        assert!(is_theirs || id.len() == 32, "{id}");
    }
    let answer = http(balancer.address("off").await, &request.replace("X_", "Y_")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(ids(&node), ["X-Request-Id: theirs-1"]);
    let line = balancer.access("a line", end_of("off")).await;
    assert_eq!(line.get("request_id"), None);
    // An upgrade has one, too.
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    assert_eq!(ids(&node).len(), 1);
}

/// Waits until so many were turned away for that reason; none is, for a reason that is not there.
async fn counted(balancer: &Balancer, reason: &str, count: f64) {
    let reason = format!("reason=\"{reason}\"");
    let parts = ["evenkeel_listener_refused_connections_total{", &*reason];
    let waiting = async {
        while balancer.metric(&parts).await != count {
            a_moment().await;
        }
    };
    within(&format!("{count} of {reason}"), waiting).await;
}

/// Only lists and limits were counted: who found no route, no backend or no room was in no sum.
#[tokio::test]
async fn whoever_is_turned_away_is_counted_by_the_reason() {
    let node = Node::web("n1").await;
    let route = "route = [{ host = \"a\", pool = \"nodes\" }, { host = \"b\", pool = \"empty\" }, { host = \"c\", pool = \"gone\" }]";
    let web = listener_with("web", "websocket", "nodes", route).replace("pool = \"nodes\"\n", "");
    let trusted = "accept_proxy = true\ntrusted = [\"127.0.0.1\"]";
    let config = LOG.to_owned()
        + &web
        + &listener_with("raw", "tcp", "empty", "")
        + &listener_with("proxied", "tcp", "nodes", trusted)
        + &listener_with("slow", "websocket", "nodes", "handshake_timeout = \"1s\"")
        + &pool("nodes", "", &[backend("n1", node.address)])
        + &pool("empty", "", &[backend("n1", "127.0.0.1:9")])
        + &pool(
            "gone",
            "retries = 0",
            &[backend("n1", "unix:/nowhere/to/be.found")],
        );
    let balancer = Balancer::start(&config);
    let maint = "/api/v1/pools/empty/backends/n1/maint";
    assert_eq!(balancer.post(maint, "{}").await.status, 200);
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let web = balancer.address("web").await;
    for (request, status, reason) in [
        (get("x"), 404, "no_route"),
        (get("b"), 503, "no_backend"),
        (get("c"), 502, "connect_failed"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
    ] {
        counted(&balancer, reason, 0.0).await;
        assert_eq!(http(web, &request).await.status, status, "{reason}");
        counted(&balancer, reason, 1.0).await;
    }
    assert!(try_websocket(web, "/").await.is_err());
    counted(&balancer, "no_route", 2.0).await;
    refused(balancer.address("raw").await).await;
    counted(&balancer, "no_backend", 2.0).await;
    let mut stream = connect(balancer.address("proxied").await).await;
    stream.write_all(b"HELO\r\n").await.expect("write");
    read_to_ending(&mut stream).await;
    counted(&balancer, "proxy_header", 1.0).await;
    let mut silent = connect(balancer.address("slow").await).await;
    read_to_ending(&mut silent).await;
    balancer.access("its line", end_of("slow")).await;
    counted(&balancer, "handshake_timeout", 1.0).await;
    // Who was served is none of them.
    assert_eq!(http(web, &get("a")).await.status, 200);
    let all = "evenkeel_listener_refused_connections_total{";
    assert_eq!(balancer.metric(&[all]).await, 8.0);
}
