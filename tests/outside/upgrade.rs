//! What may become a tunnel and what never reaches a backend: the upgrade matrix, answers that are no true 101, and
//! requests whose framing two readers could understand differently. All sent as raw bytes.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::clients::{connect, http_on, read_answer, read_exactly, read_to_ending};
use crate::harness::{Answer, Balancer, within};
use crate::nodes::{Node, Seen, read_request, switching};
use crate::settings::simple;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A right upgrade with one line replaced (or dropped, by an empty one) or added.
fn upgrade(replaced: &str, by: &str) -> String {
    let whole = format!(
        "GET /socket HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n{KEY}\r\n"
    );
    assert!(whole.contains(replaced), "{replaced}");
    whole.replacen(replaced, by, 1)
}

/// Sends `request` on a connection of its own and gives the first answer.
async fn send(balancer: &Balancer, request: &str) -> Answer {
    let mut stream = connect(balancer.address("main").await).await;
    http_on(&mut stream, request).await
}

#[tokio::test]
async fn a_right_upgrade_is_tunnelled() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for request in [
        upgrade("Upgrade: websocket", "Upgrade: WebSocket"),
        upgrade("Connection: Upgrade", "connection: keep-alive, upgrade"),
        upgrade(
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        upgrade("/socket", "/socket?token=secret"),
    ] {
        let answer = send(&balancer, &request).await;
        assert_eq!(answer.status, 101, "{request}\n{}", answer.head);
        let head = answer.head.to_ascii_lowercase();
        assert!(
            head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{}",
            answer.head
        );
        assert!(head.contains("upgrade: websocket"), "{}", answer.head);
    }
}

#[tokio::test]
async fn empty_elements_of_a_subprotocol_offer_are_ignored() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for offer in [
        "",
        " ",
        "a, ,b",
        "a,",
        ",a",
        "a\r\nSec-WebSocket-Protocol: b",
    ] {
        let field = format!("Sec-WebSocket-Protocol:{offer}\r\n{KEY}");
        let answer = send(&balancer, &upgrade(KEY, &field)).await;
        assert_eq!(answer.status, 101, "{offer:?}\n{}", answer.head);
    }
}

/// Browsers fail a connection over an empty subprotocol, and over one that they did not offer.
#[tokio::test]
async fn an_empty_subprotocol_in_an_answer_means_none_chosen() {
    let field = |value: &str| format!("Sec-WebSocket-Protocol: {value}\r\n");
    let offer = field("chat, v2") + KEY;
    for (answered, chosen) in [
        (field(""), None),
        (field(" , "), None),
        (field("chat"), Some("chat")),
        (field("chat,"), Some("chat")),
        (field("") + &field("chat"), Some("chat")),
    ] {
        for resume in ["", "resume = {}"] {
            let right = switching("dGhlIHNhbXBsZSBub25jZQ==");
            let (node, _) = answering(right.replace(ACCEPT, &(answered.clone() + ACCEPT))).await;
            let balancer = Balancer::start(&simple("websocket", resume, &[&node]));
            for request in [upgrade("", ""), upgrade(KEY, &offer)] {
                let unasked = !request.contains(&offer) && chosen.is_some();
                let answer = send(&balancer, &request).await;
                if unasked {
                    assert_eq!(answer.status, 502, "{answered:?}\n{}", answer.head);
                    continue;
                }
                assert_eq!(answer.status, 101, "{answered:?}\n{}", answer.head);
                let head = answer.head.to_ascii_lowercase();
                let fields = head.lines().filter_map(|line| line.split_once(": "));
                let protocols: Vec<&str> = fields
                    .filter(|(name, _)| *name == "sec-websocket-protocol")
                    .map(|(_, value)| value)
                    .collect();
                assert_eq!(protocols, Vec::from_iter(chosen), "{answered:?}\n{head}");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_upgrade_never_becomes_a_tunnel() {
    let seen = Seen::default();
    let node = seen.node().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for (request, status) in [
        (upgrade(KEY, ""), 400),
        (upgrade(KEY, "Sec-WebSocket-Key: short\r\n"), 400),
        (upgrade(KEY, &format!("{KEY}{KEY}")), 400),
        (upgrade("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (
            upgrade("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
            426,
        ),
        (upgrade("GET", "POST"), 400),
        (upgrade("HTTP/1.1", "HTTP/1.0"), 400),
        (
            upgrade(
                "Connection: Upgrade",
                "Connection: Upgrade\r\nContent-Length: 5",
            ) + "hello",
            400,
        ),
        (
            upgrade(
                "Connection: Upgrade",
                "Connection: Upgrade\r\nTransfer-Encoding: chunked",
            ) + "0\r\n\r\n",
            400,
        ),
    ] {
        let answer = send(&balancer, &request).await;
        assert_eq!(answer.status, status, "{request}\n{}", answer.head);
    }
    assert_eq!(seen.bytes(), 0, "a refused upgrade reached the backend");
}

#[tokio::test]
async fn other_upgrades_are_stripped_and_go_on_as_plain_requests() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let answer = send(&balancer, request).await;
        assert!(
            answer.status == 200 || answer.status == 400,
            "{request}\n{}",
            answer.head
        );
    }
    for head in node.heads.lock().unwrap().iter() {
        let head = head.to_ascii_lowercase();
        for word in ["upgrade:", "h2c", "http2-settings"] {
            assert!(!head.contains(word), "{word} reached the backend:\n{head}");
        }
    }
}

/// A node that answers every upgrade with `answer` and keeps what comes behind its head.
async fn answering(answer: String) -> (Node, Arc<Mutex<Vec<u8>>>) {
    let behind: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = behind.clone();
    let node = Node::scripted(move |mut stream, _| {
        let (answer, kept) = (answer.clone(), kept.clone());
        async move {
            let mut buffer = Vec::new();
            if read_request(&mut stream, &mut buffer).await.is_none() {
                return;
            }
            kept.lock().unwrap().extend(&buffer);
            let _ = stream.write_all(answer.as_bytes()).await;
            let mut more = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut more).await {
                kept.lock().unwrap().extend(&more[..count]);
            }
        }
    })
    .await;
    (node, behind)
}

#[tokio::test]
async fn a_false_101_is_a_502_and_no_byte_passes() {
    let right = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{ACCEPT}\r\n"
    );
    for (answer, what) in [
        (right.replace(ACCEPT, ""), "no Accept"),
        (
            right.replace(
                "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "c3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            ),
            "a wrong Accept",
        ),
        (right.replace("Upgrade: websocket\r\n", ""), "no Upgrade"),
        (
            right.replace("Connection: Upgrade\r\n", ""),
            "no Connection",
        ),
        (
            right.replace("Upgrade: websocket", "Upgrade: h2c"),
            "another protocol",
        ),
        (
            right.replace("Connection: Upgrade", "Connection: close"),
            "another Connection",
        ),
    ] {
        let (node, behind) = answering(answer + "SECRET OF THE BACKEND").await;
        let balancer = Balancer::start(&simple("websocket", "retries = 0", &[&node]));
        let mut stream = connect(balancer.address("main").await).await;
        let request = upgrade(
            "\r\n\r\n",
            "\r\n\r\nGET /admin HTTP/1.1\r\nHost: inside\r\n\r\n",
        );
        stream.write_all(request.as_bytes()).await.expect("write");
        let (bytes, _) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 502"), "{what}: {text}");
        assert!(!text.contains("SECRET"), "{what}: {text}");
        assert_eq!(
            String::from_utf8_lossy(&behind.lock().unwrap()),
            "",
            "{what}: client bytes reached the backend"
        );
    }
}

#[tokio::test]
async fn a_101_to_a_plain_request_is_a_502() {
    let (node, _) = answering(switching("dGhlIHNhbXBsZSBub25jZQ==")).await;
    let balancer = Balancer::start(&simple("websocket", "retries = 0", &[&node]));
    assert_eq!(
        send(&balancer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .status,
        502
    );
}

#[tokio::test]
async fn a_refused_upgrade_passes_the_answer_and_opens_no_tunnel() {
    let answer = "HTTP/1.1 403 Forbidden\r\nX-Reason: banned\r\nContent-Length: 3\r\n\r\nno!";
    let (node, behind) = answering(answer.into()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    stream
        .write_all((upgrade("", "") + "\x01early bytes").as_bytes())
        .await
        .expect("write");
    let answer = read_answer(&mut stream).await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "no!"));
    assert!(
        answer.head.contains("X-Reason: banned"),
        "header case is kept: {}",
        answer.head
    );
    drop(stream);
    assert_eq!(String::from_utf8_lossy(&behind.lock().unwrap()), "");
}

#[tokio::test]
async fn early_bytes_reach_the_backend_only_after_its_101() {
    let early: Arc<Mutex<Option<usize>>> = Arc::default();
    let before = early.clone();
    let node = Node::scripted(move |mut stream, _| {
        let before = before.clone();
        async move {
            let mut buffer = Vec::new();
            let Some(request) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            // All that could have come before the 101 is here once a little time has passed without any of it.
            let quiet = std::time::Duration::from_millis(200);
            let _ = tokio::time::timeout(quiet, stream.read_buf(&mut buffer)).await;
            *before.lock().unwrap() = Some(buffer.len());
            let answer = switching(request.header("sec-websocket-key").expect("a key"));
            stream.write_all(answer.as_bytes()).await.expect("write");
            crate::nodes::echo(stream).await;
        }
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    let answer = http_on(&mut stream, &(upgrade("", "") + "early")).await;
    assert_eq!(answer.status, 101);
    assert_eq!(read_exactly(&mut stream, 5).await, b"early");
    assert_eq!(*early.lock().unwrap(), Some(0));
}

#[tokio::test]
async fn a_backend_that_never_answers_the_upgrade_is_a_504() {
    let seen = Seen::default();
    let node = seen.node().await;
    let config = simple("websocket", "", &[&node]).replace(
        "pool = \"nodes\"\n",
        "pool = \"nodes\"\nupgrade_timeout = \"500ms\"\n",
    );
    let balancer = Balancer::start(&config);
    let answer = within("an answer", send(&balancer, &upgrade("", ""))).await;
    assert_eq!(answer.status, 504, "{}", answer.head);
    assert!(seen.bytes() > 0);
}

#[tokio::test]
async fn a_backend_connection_that_saw_an_upgrade_is_not_used_again() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (node, _) = answering(answer.into()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    assert_eq!(http_on(&mut stream, &upgrade("", "")).await.status, 200);
    drop(stream);
    assert_eq!(
        send(&balancer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .status,
        200
    );
    assert_eq!(node.accepted(), 2);
}

/// Requests that must get `status` and never reach a backend.
fn rejected() -> Vec<(&'static str, &'static str, u16)> {
    vec![
        (
            "Transfer-Encoding with Content-Length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "the same, turned",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "two lengths that differ",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            400,
        ),
        (
            "two lengths that agree",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            400,
        ),
        (
            "a list of lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
            400,
        ),
        (
            "a signed length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            400,
        ),
        (
            "a negative length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
            400,
        ),
        (
            "a hexadecimal length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            400,
        ),
        (
            "an empty length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
            400,
        ),
        (
            "a length beyond 64 bits",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
            400,
        ),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: one\r\n two\r\n\r\n",
            400,
        ),
        (
            "obs-fold by tab",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: one\r\n\ttwo\r\n\r\n",
            400,
        ),
        (
            "a first header that is folded",
            "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
            400,
        ),
        (
            "bare LF after the request line",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            400,
        ),
        (
            "bare LF after a header",
            "GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
            400,
        ),
        (
            "bare LF at the end of the head",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            400,
        ),
        ("bare LF throughout", "GET / HTTP/1.1\nHost: a\n\n", 400),
        (
            "a bare CR in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n",
            400,
        ),
        (
            "NUL in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
            400,
        ),
        (
            "an empty header name",
            "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
            400,
        ),
        (
            "a space before the colon",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
            400,
        ),
        (
            "a space before the colon of a length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
            400,
        ),
        (
            "a header without a colon",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n",
            400,
        ),
        ("no Host", "GET / HTTP/1.1\r\nX-A: b\r\n\r\n", 400),
        (
            "two Hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
        ),
        (
            "two Hosts that agree",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            400,
        ),
        (
            "chunked that is not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "another transfer coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "a transfer coding in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "the HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            400,
        ),
        (
            "a version that is none",
            "GET / HTTP/1.9x\r\nHost: a\r\n\r\n",
            400,
        ),
        (
            "two spaces in the request line",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        (
            "a request line without a version",
            "GET /\r\nHost: a\r\n\r\n",
            400,
        ),
        (
            "a control byte in the target",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        (
            "TLS on a plain listener",
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            400,
        ),
    ]
}

#[tokio::test]
async fn ambiguous_framing_is_a_400_that_no_backend_sees() {
    let seen = Seen::default();
    let node = seen.node().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    let mut wrong = Vec::new();
    for (what, request, status) in rejected() {
        let mut stream = connect(address).await;
        // A second request behind it must not be read either: the connection closes.
        let smuggled = format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(smuggled.as_bytes()).await.expect("write");
        let (bytes, _) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes);
        if !text.starts_with(&format!("HTTP/1.1 {status}")) || text.matches("HTTP/1.1").count() != 1
        {
            wrong.push(format!("{what}: {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(seen.bytes(), 0, "a rejected request reached the backend");
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn rejections_are_the_same_however_the_bytes_are_cut() {
    let seen = Seen::default();
    let node = seen.node().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    for (what, request, status) in rejected().into_iter().step_by(3) {
        let mut stream = connect(address).await;
        for byte in request.as_bytes() {
            // The balancer may have answered and closed before the last byte.
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        let (bytes, _) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")) || text.is_empty(),
            "{what}: {text:?}"
        );
    }
    assert_eq!(seen.bytes(), 0);
}

#[tokio::test]
async fn a_head_over_16_kib_is_a_431() {
    let seen = Seen::default();
    let node = seen.node().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let request = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
        "x".repeat(17 * 1024)
    );
    assert_eq!(send(&balancer, &request).await.status, 431);
    let endless = format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "x".repeat(17 * 1024));
    let status = send(&balancer, &endless).await.status;
    assert!(status == 431 || status == 414, "{status}");
    assert_eq!(seen.bytes(), 0);
}

#[tokio::test]
async fn a_bad_chunk_ends_the_request_and_nothing_behind_it_passes() {
    for body in [
        "5\r\nhello\r\nZ\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
    ] {
        let node = Node::web("n1").await;
        let balancer = Balancer::start(&simple("websocket", "retries = 0", &[&node]));
        let mut stream = connect(balancer.address("main").await).await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("write");
        let (bytes, _) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("HTTP/1.1 200"), "{body:?}: {text}");
        let heads = node.heads.lock().unwrap().join("");
        assert!(!heads.contains("/smuggled"), "{body:?}: {heads}");
    }
}
