//! Requests and answers on their way through: interim answers, bodies, trailers and fields, as they were said.

use tokio::io::AsyncWriteExt as _;

use crate::clients::Ending;
use crate::harness::Balancer;
use crate::settings::simple;
use crate::wires::{
    GET, LAST_GET, OK, Then, Wire, answering, exchange, has_element, manual, status, values,
};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";

#[tokio::test]
async fn interim_answers_pass_in_order_before_the_final_one() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client.send(GET).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    for interim in [
        HINTS,
        processing,
        "HTTP/1.1 100 Continue\r\n\r\n",
        processing,
    ] {
        backend.send(interim).await;
        // The node has said no more than that.
        assert_eq!(client.head().await, interim);
    }
    backend.send(OK).await;
    client.ok().await;
}

#[tokio::test]
async fn a_client_of_http_1_0_is_sent_no_interim_answer() {
    let (mut node, balancer) = manual("").await;
    let answer = format!("{HINTS}HTTP/1.1 100 Continue\r\n\r\n{OK}");
    let request = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    let seen = exchange(&balancer, &mut node, request, answer, Then::Stay).await;
    assert_eq!(status(&seen.head), 200, "{}", seen.head);
    assert_eq!((seen.body.as_str(), seen.ending), ("ok", Ending::Fin));
}

#[tokio::test]
async fn an_interim_answer_before_a_101_is_no_refusal() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend.send(HINTS).await;
    let switching = crate::nodes::switching("dGhlIHNhbXBsZSBub25jZQ==");
    backend.send(switching).await;
    let mut head = client.head().await;
    if head == HINTS {
        head = client.head().await;
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[tokio::test]
async fn an_expectation_reaches_the_node_which_alone_answers_it() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    let (mut backend, head) = node.asked_by(&mut client).await;
    assert_eq!(values(&head, "expect"), ["100-continue"]);
    backend
        .send("HTTP/1.1 100 Continue\r\nX-From: the node\r\n\r\n")
        .await;
    let interim = client.head().await;
    assert_eq!(values(&interim, "x-from"), ["the node"], "{interim}");
    client.send("hello").await;
    assert_eq!(backend.exactly(5).await, b"hello");
    backend.send(OK).await;
    client.ok().await;
}

/// A client may send its body all the same, or keep it: what comes next must not be read as the other.
#[tokio::test]
async fn a_body_that_the_node_refuses_unread_is_never_a_request() {
    const BODY: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for status in ["417 Expectation Failed", "401 Unauthorized"] {
        for expect in ["Expect: 100-continue\r\n", ""] {
            let (mut node, balancer) = manual("").await;
            let mut client = Wire::client(&balancer).await;
            let length = BODY.len();
            client
                .send(format!(
                    "POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: {length}\r\n\r\n"
                ))
                .await;
            let (mut backend, _) = node.asked_by(&mut client).await;
            backend
                .send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"))
                .await;
            let head = client.head().await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{head}"
            );
            assert_eq!(client.exactly(2).await, b"no");
            let next = GET.replace("GET /", "GET /next");
            if client.try_send(format!("{BODY}{next}")).await {
                tokio::select! {
                    mut other = node.next() => {
                        let head = other.head().await;
                        assert!(head.starts_with("GET /next "), "{head}");
                        other.send(OK).await;
                        client.ok().await;
                    }
                    // Closing is right as well.
                    _ = client.ended() => {}
                }
            }
            drop(backend);
        }
    }
}

/// A node may refuse a large body by its head alone, and close: the rest of it is reset.
#[tokio::test]
async fn an_answer_is_heard_while_its_body_is_still_sent() {
    const BODY_BYTES: usize = 8 << 20;
    for closes in [false, true] {
        let (mut node, balancer) = manual("").await;
        let client = Wire::client(&balancer).await;
        let (reading, mut writing) = client.stream.into_split();
        let sending = tokio::spawn(async move {
            let head =
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
            let _ = writing.write_all(head.as_bytes()).await;
            let _ = writing.write_all(&vec![b'x'; BODY_BYTES]).await;
            writing
        });
        let mut backend = node.next().await;
        backend.head().await;
        backend
            .send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .await;
        let backend = Some(backend).filter(|_| !closes);
        let mut client = Wire::new(tokio::io::join(reading, tokio::io::sink()));
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{closes}: {head}");
        assert_eq!(client.exactly(2).await, b"no");
        sending.abort();
        drop(backend);
    }
}

#[tokio::test]
async fn a_length_without_a_body_stays_and_the_connection_goes_on() {
    let node = answering(|request| match request.target.as_str() {
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n".into(),
        "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".into(),
        _ => OK.into(),
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    for (request, status) in [
        ("HEAD /head", "200"),
        ("GET /304", "304"),
        ("HEAD /304", "304"),
    ] {
        client.send(GET.replace("GET /", request)).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(values(&head, "content-length"), ["1234"], "{head}");
        client.send(GET).await;
        client.ok().await;
    }
}

#[tokio::test]
async fn a_204_has_neither_length_nor_body() {
    let node = answering(|request| match request.target.as_str() {
        "/plain" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n".into(),
        "/zero" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n".into(),
        _ => OK.into(),
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    for path in ["/plain", "/zero"] {
        client
            .send(GET.replace("GET /", &format!("GET {path}")))
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert_eq!(values(&head, "x-a"), ["1"]);
        for name in ["content-length", "transfer-encoding"] {
            assert!(values(&head, name).is_empty(), "{head}");
        }
        client.send(GET).await;
        client.ok().await;
    }
}

#[tokio::test]
async fn a_head_request_of_a_chunked_answer_gets_no_chunk() {
    let node = answering(|request| match request.method.as_str() {
        "HEAD" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        _ => OK.into(),
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    client.send(GET.replace("GET", "HEAD")).await;
    client.head().await;
    client.send(GET).await;
    client.ok().await;
}

const CHUNKS: &str =
    "00A;name=\"a;b\" ;x\r\n0123456789\r\n5\r\nhello\r\n000;last\r\nX-Sum: 42\r\nx-more: 1\r\n\r\n";

#[tokio::test]
async fn chunks_and_trailers_of_an_answer_pass_as_they_are() {
    let (mut node, balancer) = manual("").await;
    let answer =
        format!("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}");
    let seen = exchange(&balancer, &mut node, LAST_GET, answer, Then::Stay).await;
    assert_eq!(seen.body, CHUNKS);
    assert_eq!(values(&seen.head, "transfer-encoding"), ["chunked"]);
    assert_eq!(values(&seen.head, "trailer"), ["X-Sum"]);
}

#[tokio::test]
async fn chunks_and_trailers_of_a_request_pass_as_they_are() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"
        ))
        .await;
    let (mut backend, head) = node.asked_by(&mut client).await;
    assert_eq!(values(&head, "transfer-encoding"), ["chunked"]);
    assert_eq!(values(&head, "trailer"), ["X-Sum"]);
    let body = backend.exactly(CHUNKS.len()).await;
    assert_eq!(String::from_utf8_lossy(&body), CHUNKS);
    backend.send(OK).await;
    client.ok().await;
}

#[tokio::test]
async fn each_chunk_passes_before_the_next_one_comes() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for chunk in ["1\r\na\r\n", "2;x\r\nbc\r\n", "0\r\n\r\n"] {
        client.send(chunk).await;
        assert_eq!(backend.exactly(chunk.len()).await, chunk.as_bytes());
        backend.send(chunk).await;
        assert_eq!(client.exactly(chunk.len()).await, chunk.as_bytes());
    }
}

#[tokio::test]
async fn fields_keep_their_spelling_and_their_bytes_both_ways() {
    let (mut node, balancer) = manual("").await;
    let sent =
        "X-CaSe: One\r\nx-low:two\r\nX-UP: caf\u{e9} \r\nETAG: \"x\"\r\ncontent-LENGTH: 2\r\n";
    let lines = [
        "X-CaSe: One",
        "x-low: two",
        "X-UP: caf\u{e9}",
        "ETAG: \"x\"",
        "content-LENGTH: 2",
    ];
    let latin: Vec<u8> = sent.chars().map(|one| one as u8).collect();
    let message = |start: &str| [start.as_bytes(), &latin, b"\r\nok"].concat();
    let request = message("POST / HTTP/1.1\r\nhOsT: a\r\nConnection: close\r\n");
    let answer = message("HTTP/1.1 200 All Is Well\r\n");
    let seen = exchange(&balancer, &mut node, request, answer, Then::Stay).await;
    for line in lines {
        let line = format!("\r\n{line}\r\n");
        assert!(seen.sent.contains(&line), "{line} of {}", seen.sent);
        assert!(seen.head.contains(&line), "{line} of {}", seen.head);
    }
    assert!(seen.sent.contains("\r\nhOsT: a\r\n"), "{}", seen.sent);
    assert!(
        seen.head.starts_with("HTTP/1.1 200 All Is Well\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.body, "ok");
}

#[tokio::test]
async fn an_answer_until_close_becomes_chunked_and_the_connection_goes_on() {
    let (mut node, balancer) = manual("").await;
    let mut client = Wire::client(&balancer).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        client.send(GET).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend.send(answer).await;
        let head = client.head().await;
        assert_eq!(values(&head, "transfer-encoding"), ["chunked"], "{head}");
        assert!(values(&head, "content-length").is_empty(), "{head}");
        assert!(!has_element(&head, "connection", "close"), "{head}");
        backend.send("hello").await;
        assert_eq!(client.until("\r\n").await, "5\r\n");
        assert_eq!(client.exactly(7).await, b"hello\r\n");
        drop(backend);
        assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
    }
}

#[tokio::test]
async fn answers_of_unknown_length_are_plain_data_until_close_for_http_1_0() {
    let (mut node, balancer) = manual("").await;
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}");
    let until_close = "HTTP/1.1 200 OK\r\n\r\n0123456789hello";
    for (answer, then) in [(chunked.as_str(), Then::Stay), (until_close, Then::Close)] {
        let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let seen = exchange(&balancer, &mut node, request, answer, then).await;
        assert_eq!(seen.body, "0123456789hello", "{answer}");
        assert_eq!(seen.ending, Ending::Fin);
        for name in ["transfer-encoding", "content-length", "trailer"] {
            assert!(values(&seen.head, name).is_empty(), "{}", seen.head);
        }
        assert!(
            !has_element(&seen.head, "connection", "keep-alive"),
            "{}",
            seen.head
        );
    }
}

#[tokio::test]
async fn a_connection_of_http_1_0_is_kept_where_both_ends_can() {
    let node = answering(|_| OK.into()).await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut client = Wire::client(&balancer).await;
    for _ in 0..2 {
        client
            .send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let head = client.ok().await;
        assert!(has_element(&head, "connection", "keep-alive"), "{head}");
    }
}
