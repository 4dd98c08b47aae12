//! Forms of a request that are unusual and right, and refusals that tell a client why: targets in absolute form, an
//! Upgrade of another hop, upgrades of HTTP/1.0, plain HTTP on a TLS port, and 426.

use tokio::io::AsyncWriteExt as _;

use crate::certificates::Certificate;
use crate::clients::{Ending, connect, read_to_ending};
use crate::harness::{Balancer, Launch};
use crate::nodes::{Node, switching};
use crate::settings::{backend, listener_with, pool, simple};
use crate::wires::{
    LAST_GET, ManualNode, OK, Then, Wire, answering, exchange, has_element, status, values,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake with this target and version.
fn upgrade(target: &str, version: &str) -> String {
    format!(
        "GET {target} HTTP/{version}\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

#[tokio::test]
async fn absolute_form_is_served_in_origin_form() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for (target, host, path) in [
        ("http://a.example/x?y=1", "a.example", "/x?y=1"),
        ("https://a.example/x", "a.example", "/x"),
        ("ws://a.example/x", "a.example", "/x"),
        ("wss://a.example/x", "a.example", "/x"),
        ("HTTP://A.example:80/x", "a.example:80", "/x"),
        ("http://a.example", "a.example", "/"),
        ("ws://a.example?y", "a.example", "/?y"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let seen = exchange(&balancer, &mut node, request, OK, Then::Close).await;
        assert!(
            seen.sent.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
            "{}",
            seen.sent
        );
        assert!(seen.head.starts_with("HTTP/1.1 200 "), "{}", seen.head);
        let hosts = values(&seen.sent, "host");
        assert!(
            hosts.len() == 1 && hosts[0].eq_ignore_ascii_case(host),
            "{}",
            seen.sent
        );
    }
}

#[tokio::test]
async fn a_websocket_is_opened_by_absolute_form() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for scheme in ["http", "ws", "wss"] {
        let mut client = Wire::client(&balancer).await;
        client
            .send(upgrade(&format!("{scheme}://a.example/chat?x"), "1.1"))
            .await;
        let (mut backend, head) = node.asked_by(&mut client).await;
        assert!(head.starts_with("GET /chat?x HTTP/1.1\r\n"), "{head}");
        backend.send(switching(KEY)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
}

#[tokio::test]
async fn an_upgrade_without_its_option_is_an_ordinary_request() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let complete = upgrade("/x", "1.1");
    let body = "Upgrade: h2c, WebSocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for request in [
        complete.replace("Connection: Upgrade\r\n", ""),
        complete.replace("Connection: Upgrade", "Connection: close"),
        complete.replace("Connection: Upgrade", "Connection: upgraded"),
        format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{body}"),
    ] {
        let mut client = Wire::client(&balancer).await;
        client.send(&request).await;
        let (mut backend, head) = node.asked_by(&mut client).await;
        assert!(head.contains(" /x HTTP/1.1\r\n"), "{head}");
        for name in ["upgrade", "x-upgrade"] {
            assert!(values(&head, name).is_empty(), "{request}\n{head}");
        }
        assert!(
            !has_element(&head, "connection", "upgrade"),
            "{request}\n{head}"
        );
        backend.send(OK).await;
        client.ok().await;
    }
}

#[tokio::test]
async fn an_upgrade_of_http_1_0_is_a_400_that_says_why() {
    let node = answering(|_| OK.into()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    client.send(upgrade("/", "1.0")).await;
    let (bytes, ending) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let body = body.to_lowercase();
    assert_eq!(status(head), 400, "{head}");
    assert!(
        values(head, "content-type")[0].starts_with("text/plain"),
        "{head}"
    );
    assert!(
        body.contains("upgrade") && body.contains("http/1.0"),
        "{body}"
    );
    assert_eq!((ending, node.accepted()), (Ending::Fin, 0));
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_a_readable_400() {
    let node = answering(|_| OK.into()).await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for request in [LAST_GET, post, &upgrade("/", "1.1")] {
        let mut stream = connect(balancer.address("main").await).await;
        stream.write_all(request.as_bytes()).await.expect("write");
        let (bytes, ending) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        assert!(head.starts_with("HTTP/1.1 400 "), "{request}: {text}");
        assert!(
            values(head, "content-type")[0].starts_with("text/plain"),
            "{head}"
        );
        assert!(has_element(head, "connection", "close"), "{head}");
        let length = values(head, "content-length");
        assert_eq!(length, [body.len().to_string()], "{head}");
        let body = body.to_lowercase();
        assert!(body.contains("tls") || body.contains("https"), "{body}");
        assert_eq!(ending, Ending::Fin);
    }
    assert_eq!(node.accepted(), 0);
}

/// Bytes that are neither TLS nor HTTP get no words.
#[tokio::test]
async fn other_bytes_on_a_tls_port_get_no_http() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"\0\x01\x02\x03\x04\x05\x06\x07",
    ] {
        let mut stream = connect(balancer.address("main").await).await;
        stream.write_all(bytes).await.expect("write");
        let (bytes, _) = read_to_ending(&mut stream).await;
        assert!(!bytes.starts_with(b"HTTP"), "{}", bytes.escape_ascii());
    }
}

fn is_offer(head: &str) -> bool {
    head.starts_with("HTTP/1.1 426 ")
        && has_element(head, "upgrade", "websocket")
        && has_element(head, "connection", "upgrade")
}

#[tokio::test]
async fn our_own_426_says_what_to_upgrade_to() {
    let node = answering(|_| OK.into()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for version in ["8", "12"] {
        let mut client = Wire::client(&balancer).await;
        let field = format!("Sec-WebSocket-Version: {version}\r\n");
        let request = upgrade("/", "1.1").replace("Sec-WebSocket-Version: 13\r\n", &field);
        client.send(request).await;
        let head = client.head().await;
        assert!(is_offer(&head), "{head}");
        assert_eq!(values(&head, "sec-websocket-version"), ["13"], "{head}");
    }
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn a_426_of_a_node_keeps_its_offer() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let answer = "HTTP/1.1 426 Upgrade Required\r\ncache-control: max-age=0, private\r\n\
                  connection: upgrade\r\ncontent-length: 0\r\nserver: Cowboy\r\nupgrade: websocket\r\n\r\n";
    for request in [LAST_GET.to_owned(), upgrade("/", "1.1")] {
        let mut client = Wire::client(&balancer).await;
        client.send(request).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend.send(answer).await;
        let head = client.head().await;
        assert!(is_offer(&head), "{head}");
        assert_eq!(values(&head, "server"), ["Cowboy"]);
        assert_eq!(values(&head, "content-length"), ["0"]);
    }
}

/// RFC 9110 section 7.8: the field is of one hop.
#[tokio::test]
async fn the_offer_of_another_answer_ends_here() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let answer = OK.replace(
        "\r\n\r\n",
        "\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    );
    let seen = exchange(&balancer, &mut node, LAST_GET, answer, Then::Stay).await;
    assert!(seen.head.starts_with("HTTP/1.1 200 "), "{}", seen.head);
    assert!(values(&seen.head, "upgrade").is_empty(), "{}", seen.head);
    assert!(
        !has_element(&seen.head, "connection", "upgrade"),
        "{}",
        seen.head
    );
}
