//! Which requests share a connection to a backend, and which have one of their own.

use crate::certificates::Certificate;
use crate::harness::{Balancer, Launch};
use crate::settings::{backend, listener, pool, simple};
use crate::tls_nodes::{front, server};
use crate::wires::{
    GET, LAST_GET, OK, Then, Wire, answering, exchange, has_element, manual, primed, values,
};

#[tokio::test]
async fn requests_of_one_client_share_a_connection() {
    let node = answering(|request| match request.method.as_str() {
        "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".into(),
        "OPTIONS" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        _ => OK.into(),
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    for _ in 0..20 {
        client.send(GET).await;
        client.ok().await;
        for method in ["HEAD", "OPTIONS"] {
            client.send(GET.replace("GET", method)).await;
            client.head().await;
        }
    }
    assert_eq!(node.accepted(), 1);
}

#[tokio::test]
async fn requests_of_many_clients_share_a_connection_that_the_node_offers() {
    let offer = OK.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n");
    let node = answering(move |_| offer.clone()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut client = Wire::client(&balancer).await;
        client.send([GET, LAST_GET][i % 2]).await;
        client.ok().await;
        // With its lease the request has given the connection back.
        balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
        clients.push(client);
    }
    assert_eq!(node.accepted(), 1);
    let requests = balancer.metric(&["evenkeel_backend_requests_total"]).await;
    assert!((requests - 20.0).abs() < 0.5, "{requests}");
}

/// Some servers answer one request, leave the connection open and never read another.
#[tokio::test]
async fn a_first_request_goes_on_no_connection_that_is_not_proven() {
    let (mut node, balancer) = manual("").await;
    let (mut first, mut idle) = primed(&balancer, &mut node).await;
    let (_second, _) = primed(&balancer, &mut node).await;
    assert_eq!(node.node.accepted(), 2);
    // Its second request proves it.
    first.send(GET).await;
    idle.asked_by(&mut first).await;
    idle.send(OK).await;
    first.ok().await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    let mut third = Wire::client(&balancer).await;
    third.send(GET).await;
    idle.asked_by(&mut third).await;
    idle.send(OK).await;
    third.ok().await;
    assert_eq!(node.node.accepted(), 2);
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each() {
    let (mut node, balancer) = manual("").await;
    let (mut one, mut idle) = primed(&balancer, &mut node).await;
    one.send(GET).await;
    idle.asked_by(&mut one).await;
    let (_other, _idle) = primed(&balancer, &mut node).await;
    idle.send(OK).await;
    one.ok().await;
    assert_eq!(node.node.accepted(), 2);
}

#[tokio::test]
async fn chunked_answers_and_204s_leave_the_connection_usable() {
    let (mut node, balancer) = manual("").await;
    let (mut client, mut idle) = primed(&balancer, &mut node).await;
    for (answer, end) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nX: y\r\n\r\n",
            "X: y\r\n\r\n",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "\r\n\r\n"),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "\r\n\r\nok",
        ),
        (
            "HTTP/1.1 404 No\r\nContent-Length: 2, 2\r\n\r\nno",
            "\r\n\r\nno",
        ),
        (
            "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "\r\n\r\nok",
        ),
    ] {
        client.send(GET).await;
        idle.asked_by(&mut client).await;
        idle.send(answer).await;
        client.until(end).await;
    }
    assert_eq!(node.node.accepted(), 1);
}

/// TIME_WAIT is to be the node's, so it is told that this request is the last.
#[tokio::test]
async fn a_request_that_may_not_be_repeated_has_a_connection_of_its_own() {
    let (mut node, balancer) = manual("").await;
    let (mut client, mut idle) = primed(&balancer, &mut node).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get"] {
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
            ))
            .await;
        let (mut own, head) = node.asked_by(&mut client).await;
        assert!(has_element(&head, "connection", "close"), "{head}");
        assert_eq!(own.exactly(2).await, b"ab");
        own.send(OK).await;
        client.ok().await;
        own.ended().await;
        // The idle one was not disturbed.
        client.send(GET).await;
        idle.asked_by(&mut client).await;
        idle.send(OK).await;
        client.ok().await;
    }
}

/// NTLM and Negotiate authenticate a connection: on a shared one a client would be another.
#[tokio::test]
async fn a_request_that_authenticates_its_connection_has_one_of_its_own() {
    let (mut node, balancer) = manual("http_reuse_timeout = \"1h\"").await;
    let (mut client, mut idle) = primed(&balancer, &mut node).await;
    for scheme in [
        "NTLM TlRMTVNTUAAB",
        "Negotiate YII",
        "ntlm x",
        "NEGOTIATE x",
        "NTLM",
    ] {
        let field = format!("Host: a\r\nAuthorization: {scheme}\r\n");
        client.send(GET.replace("Host: a\r\n", &field)).await;
        let (mut own, head) = node.asked_by(&mut client).await;
        assert_eq!(values(&head, "authorization"), [scheme]);
        own.send(OK).await;
        client.ok().await;
        own.ended().await;
    }
    for scheme in ["Basic eDp5", "Bearer NTLM", "NTLMish x"] {
        let field = format!("Host: a\r\nAuthorization: {scheme}\r\n");
        client.send(GET.replace("Host: a\r\n", &field)).await;
        idle.asked_by(&mut client).await;
        idle.send(OK).await;
        client.ok().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_offered_such_a_scheme_is_not_used_again() {
    let (mut node, balancer) = manual("").await;
    for offer in [
        "WWW-Authenticate: NTLM",
        "www-authenticate: negotiate",
        "WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Negotiate",
        "WWW-Authenticate: Basic realm=\"x, y\", NTLM TlRMTVNTUAAC",
    ] {
        let (mut client, mut idle) = primed(&balancer, &mut node).await;
        client.send(GET).await;
        idle.asked_by(&mut client).await;
        idle.send(format!(
            "HTTP/1.1 401 No\r\n{offer}\r\nContent-Length: 2\r\n\r\nno"
        ))
        .await;
        let head = client.head().await;
        assert!(!values(&head, "www-authenticate").is_empty(), "{head}");
        assert_eq!(client.exactly(2).await, b"no");
        idle.ended().await;
    }
}

/// Its PROXY header names one client.
#[tokio::test]
async fn a_connection_with_a_proxy_header_is_not_used_again() {
    for version in ["v1", "v2"] {
        let (mut node, balancer) = manual(&format!("send_proxy = \"{version}\"")).await;
        let mut client = Wire::client(&balancer).await;
        for _ in 0..3 {
            client.send(GET).await;
            let (mut own, mut head) = node.asked_by(&mut client).await;
            if version == "v2" {
                // Its signature has an empty line.
                head = own.head().await;
            }
            assert!(head.contains("GET / HTTP/1.1\r\n"), "{head}");
            own.send(OK).await;
            client.ok().await;
            own.ended().await;
        }
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_behind_an_answer_that_forbids_it() {
    let (mut node, balancer) = manual("").await;
    for (answer, then) in [
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            Then::Stay,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nok",
            Then::Stay,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay),
        ("HTTP/1.1 200 OK\r\n\r\nok", Then::Close),
        // More than one answer: whose is the second?
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nevil",
            Then::Stay,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            Then::Stay,
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
            Then::Stay,
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Then::Stay,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            Then::Stay,
        ),
    ] {
        let seen = exchange(&balancer, &mut node, LAST_GET, answer, then).await;
        assert!(seen.head.starts_with("HTTP/1.1 20"), "{}", seen.head);
        assert!(!seen.body.contains("evil"), "{answer}");
        if let Some(mut backend) = seen.backend {
            backend.ended().await;
        }
    }
}

/// What a node sends to HEAD behind its head would be the next answer.
#[tokio::test]
async fn a_body_behind_the_answer_to_head_is_nobodys() {
    let (mut node, balancer) = manual("").await;
    let request = LAST_GET.replace("GET", "HEAD");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let seen = exchange(&balancer, &mut node, request, answer, Then::Stay).await;
    assert_eq!(seen.body, "");
    seen.backend.expect("its end").ended().await;
}

#[tokio::test]
async fn an_unfinished_exchange_ends_its_connection() {
    let (mut node, balancer) = manual("").await;
    let (mut client, mut idle) = primed(&balancer, &mut node).await;
    client.send(GET).await;
    idle.asked_by(&mut client).await;
    idle.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    client.until("half").await;
    client.reset();
    idle.ended().await;
    let _others = primed(&balancer, &mut node).await;
    assert_eq!(node.node.accepted(), 2);
}

/// An answer before the end of a request's body: what follows of the body would be read as a
/// request.
#[tokio::test]
async fn a_connection_that_still_lacks_a_body_is_not_used_again() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
        .await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend.send(OK).await;
    client.ok().await;
    // The rest of the body may or may not come; a request must not.
    client.try_send(format!("llo{GET}")).await;
    let (sent, _) = backend.rest().await;
    assert!(
        "hello".starts_with(&*String::from_utf8_lossy(&sent)),
        "{}",
        sent.escape_ascii()
    );
}

#[tokio::test]
async fn connections_over_tls_are_used_again() {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "n", &["n.example"]);
    let node = front(server(&certificate), answering(|_| OK.into()).await).await;
    let ca = certificate.cert.display();
    let keys = format!("tls = {{ sni = \"n.example\", ca = \"{ca}\" }}");
    let config = listener("main", "websocket", "nodes")
        + &pool("nodes", &keys, &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let mut client = Wire::client(&balancer).await;
    for _ in 0..10 {
        client.send(GET).await;
        client.ok().await;
    }
    assert_eq!(node.accepted(), 1);
}

#[tokio::test]
async fn without_reuse_each_request_has_a_connection_of_its_own() {
    let (mut node, balancer) = manual("http_reuse = \"never\"").await;
    let mut client = Wire::client(&balancer).await;
    for _ in 0..5 {
        client.send(GET).await;
        let (mut own, head) = node.asked_by(&mut client).await;
        assert!(has_element(&head, "connection", "close"), "{head}");
        own.send(OK).await;
        client.ok().await;
        own.ended().await;
    }
}

/// Set up on a relay thread it once had a header without its addresses.
#[tokio::test]
async fn a_websocket_that_comes_at_once_has_its_own_proxy_header() {
    let (mut node, balancer) = manual("send_proxy = \"v1\"").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send(
            "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let (_wire, head) = node.asked_by(&mut client).await;
    assert!(
        head.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{head}"
    );
    assert!(head.contains("GET /chat HTTP/1.1\r\n"), "{head}");
}
