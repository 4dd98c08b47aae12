//! What checks say and what they take for a success: header names and fields, subprotocols, statuses, bytes, roles.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::Balancer;
use crate::nodes::{Node, read_request, switching};
use crate::settings::{backend, listener, pool};
use crate::spelling::value;

const PACE: &str = "interval = \"100ms\", timeout = \"5s\", fall = 1, rise = 1";

fn checked(check: &str, node: &Node) -> String {
    let check = format!("check = {{ {check}, {PACE} }}");
    listener("main", "tcp", "nodes") + &pool("nodes", &check, &[backend("n1", node.address)])
}

/// Waits for a verdict that a check has given; its reason.
async fn until(balancer: &Balancer, verdict: &str) -> String {
    let seen = balancer
        .backend_until("nodes", "n1", |seen| seen["check"] == verdict)
        .await;
    seen["reason"].as_str().unwrap_or_default().to_owned()
}

/// A node that keeps the last head and answers by it.
async fn answering(answer: fn(&str) -> String) -> (Node, Arc<Mutex<String>>) {
    let last = Arc::new(Mutex::new(String::new()));
    let seen = last.clone();
    let node = Node::scripted(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let mut buffer = Vec::new();
            let Some(request) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            seen.lock().unwrap().clone_from(&request.head);
            let _ = stream.write_all(answer(&request.head).as_bytes()).await;
            let _ = stream.read_to_end(&mut buffer).await;
        }
    })
    .await;
    (node, last)
}

fn accepted(head: &str) -> String {
    match value(head, "Sec-WebSocket-Key") {
        Some(key) => switching(key),
        None => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
    }
}

#[tokio::test]
async fn a_handshake_has_the_fields_that_a_node_wants_letter_by_letter() {
    let (node, head) = answering(|head| {
        let wanted = value(head, "Origin") == Some("https://chat.example.org")
            && value(head, "X-API-key") == Some("7")
            && value(head, "User-Agent") == Some("probe")
            && value(head, "Sec-WebSocket-Protocol") == Some("wamp.2.json");
        match wanted {
            true => accepted(head),
            false => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
        }
    })
    .await;
    let balancer = Balancer::start(&checked(
        "type = \"websocket\", protocol = \"wamp.2.json\", \
         headers = { Origin = \"https://chat.example.org\", X-API-key = \"7\", User-Agent = \"probe\" }",
        &node,
    ));
    until(&balancer, "up").await;
    let head = head.lock().unwrap().clone();
    for name in ["Host", "Connection", "Upgrade", "Sec-WebSocket-Version"] {
        assert!(value(&head, name).is_some(), "{name} in {head}");
    }
    assert_eq!(head.matches("probe").count(), 1, "{head}");
    assert!(!head.contains("evenkeel/"), "{head}");
}

#[tokio::test]
async fn a_request_of_a_check_has_its_fields_letter_by_letter() {
    let (node, head) =
        answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
    let balancer = Balancer::start(&checked(
        "type = \"http\", host = \"chat.test\", headers = { X-API-key = \"7\" }",
        &node,
    ));
    until(&balancer, "up").await;
    let head = head.lock().unwrap().clone();
    assert_eq!(value(&head, "Host"), Some("chat.test"), "{head}");
    assert_eq!(value(&head, "X-API-key"), Some("7"), "{head}");
    assert_eq!(value(&head, "Connection"), Some("close"), "{head}");
}

#[tokio::test]
async fn a_node_that_asks_for_a_login_is_alive_where_its_status_is_wanted() {
    let (node, _) = answering(|_| {
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n".into()
    })
    .await;
    let check =
        |status: &str| checked(&format!("type = \"websocket\", ping = true{status}"), &node);
    let balancer = Balancer::start(&check(""));
    assert_eq!(until(&balancer, "down").await, "status 401 (wanted 101)");
    balancer.reload(&check(", status = [101, 401]")).await;
    until(&balancer, "up").await;
}

/// A node that answers each connection with `answer`, in two pieces.
async fn saying(answer: &'static [&'static [u8]]) -> (Node, Arc<Mutex<Vec<u8>>>) {
    let last = Arc::new(Mutex::new(Vec::new()));
    let seen = last.clone();
    let node = Node::scripted(move |mut stream: TcpStream, _| {
        let seen = seen.clone();
        async move {
            let mut asked = vec![0; 64];
            let Ok(count) = stream.read(&mut asked).await else {
                return;
            };
            asked.truncate(count);
            *seen.lock().unwrap() = asked;
            for piece in answer {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
    (node, last)
}

#[tokio::test]
async fn bytes_are_sent_and_expected_in_hexadecimal() {
    let (node, asked) = saying(&[b"\x00\x01", b"\xff\x02"]).await;
    let check = |bytes: &str| {
        checked(
            &format!("type = \"expect\", send_binary = \"00 FF 0a\", expect_binary = \"{bytes}\""),
            &node,
        )
    };
    let balancer = Balancer::start(&check("01FF02"));
    until(&balancer, "up").await;
    assert_eq!(*asked.lock().unwrap(), [0, 255, 10]);
    balancer
        .reload(&check("01ff03").replace("\"5s\"", "\"200ms\""))
        .await;
    assert_eq!(until(&balancer, "down").await, "no answer within 200ms");
}

/// Scripts that answer the checks of databases write such lines; for a while they were taken for
/// a fault of the backend.
#[tokio::test]
async fn answers_that_no_proxy_would_pass_on_are_enough_for_a_check() {
    let answers: [&[&[u8]]; 5] = [
        &[b"HTTP/1.1 200 OK\r\n", b"\n"],
        &[b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\n\r\nup\n"],
        &[b"\r\nHTTP/1.1 ", b"200 OK\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
    ];
    for answer in answers {
        let (node, _) = saying(answer).await;
        let balancer = Balancer::start(&checked("type = \"http\", status = [200]", &node));
        until(&balancer, "up").await;
    }
}

/// What must not be there may come behind what must.
#[tokio::test]
async fn an_answer_with_unwanted_bytes_fails() {
    let (node, _) = saying(&[b"role:", b"slave\r\n"]).await;
    let check = |keys: &str| checked(&format!("type = \"expect\", send = \"?\", {keys}"), &node);
    let balancer = Balancer::start(&check("expect = \"role:\", expect_not = \"slave\""));
    let reason = until(&balancer, "down").await;
    assert_eq!(reason, "expect: the answer has \"slave\"");
    balancer.reload(&check("expect_not = \"master\"")).await;
    until(&balancer, "up").await;
    balancer.reload(&check("expect_not = \"lave\"")).await;
    until(&balancer, "down").await;
}

#[tokio::test]
async fn a_redis_server_is_checked_for_its_role() {
    let primary = Arc::new(AtomicBool::new(true));
    let is_primary = primary.clone();
    let node = Node::scripted(move |mut stream: TcpStream, _| {
        let role = match is_primary.load(Ordering::SeqCst) {
            true => "master",
            false => "slave",
        };
        async move {
            let mut asked = [0; 24];
            let _ = stream.read_exact(&mut asked).await;
            if &asked == b"PING\r\nINFO replication\r\n" {
                let info = format!("# Replication\r\nrole:{role}\r\nconnected_slaves:0\r\n");
                let answer = format!("+PONG\r\n${}\r\n{info}\r\n", info.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            let _ = stream.read(&mut asked).await;
        }
    })
    .await;
    let balancer = Balancer::start(&checked("type = \"redis\", role = \"primary\"", &node));
    until(&balancer, "up").await;
    primary.store(false, Ordering::SeqCst);
    let reason = until(&balancer, "down").await;
    assert_eq!(reason, "redis: its role is replica (wanted primary)");
    primary.store(true, Ordering::SeqCst);
    until(&balancer, "up").await;
}
