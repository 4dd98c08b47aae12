//! Answers that two readers could end at different places: each is a 502, and its connection is not
//! used again. Answers that break off never look complete.

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, tls};
use crate::harness::{Balancer, Launch};
use crate::settings::{backend, listener_with, pool, simple};
use crate::wires::{GET, LAST_GET, ManualNode, OK, Then, Wire, exchange, has_element, values};

/// Begins of answers that are none. What comes behind them must not pass either.
const BAD: &[&str] = &[
    // Lengths.
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 1, 2\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 1, 2\r\n\r\n",
    // Codings.
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    // Names, values and line ends.
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n X: folded\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\t5\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 5\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX\r\n\r\n",
    // Status lines.
    "HTTP/1.1 99 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    // A switch and an interim answer.
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/1.1 100 Continue\r\nTransfer-Encoding: x\r\n\r\n",
    "HTTP/1.1 103 Early Hints\nX: y\r\n\r\n",
];

#[tokio::test]
async fn an_answer_of_doubtful_framing_is_a_502_and_its_connection_ends() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for bad in BAD {
        let mut client = Wire::client(&balancer).await;
        client.send(LAST_GET).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend.send(format!("{bad}SECRET{OK}")).await;
        let (bytes, _) = client.rest().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 502 "), "{bad:?}: {text}");
        assert!(
            !text.contains("SECRET") && text.matches("HTTP/1.1 ").count() == 1,
            "{text}"
        );
        backend.ended().await;
    }
}

#[tokio::test]
async fn the_same_holds_on_a_connection_that_was_used_before() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let mut client = Wire::client(&balancer).await;
    for bad in BAD.iter().step_by(5) {
        client.send(GET).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend.send(OK).await;
        client.ok().await;
        client.send(GET).await;
        backend.asked_by(&mut client).await;
        backend.send(format!("{bad}SECRET")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{bad:?}: {head}");
        let length = values(&head, "content-length")[0]
            .parse()
            .expect("a length");
        client.exactly(length).await;
        backend.ended().await;
    }
}

/// The request behind it was discarded as the rest of its body.
#[tokio::test]
async fn a_refused_answer_takes_no_other_request_with_it() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let mut client = Wire::client(&balancer).await;
    client.send([GET, LAST_GET].concat()).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend.send(BAD[0]).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let length = values(&head, "content-length")[0];
    client.exactly(length.parse().expect("a length")).await;
    if has_element(&head, "connection", "close") {
        client.ended().await;
        return;
    }
    let (mut other, _) = node.asked_by(&mut client).await;
    other.send(OK).await;
    client.ok().await;
    assert_eq!(client.ended().await, Ending::Fin);
}

#[tokio::test]
async fn lengths_that_agree_become_one() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for lengths in [
        "Content-Length: 5, 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 05 ,5\r\ncontent-length: 5",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello");
        let seen = exchange(&balancer, &mut node, LAST_GET, answer, Then::Close).await;
        assert_eq!(values(&seen.head, "content-length"), ["5"], "{}", seen.head);
        assert_eq!((seen.body.as_str(), seen.ending), ("hello", Ending::Fin));
    }
}

/// A receiver that reads the length would take the rest for the next answer.
#[tokio::test]
async fn a_length_beside_chunks_does_not_pass() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n\
                  2\r\nok\r\n0\r\n\r\n";
    let seen = exchange(&balancer, &mut node, LAST_GET, answer, Then::Stay).await;
    assert!(
        values(&seen.head, "content-length").is_empty(),
        "{}",
        seen.head
    );
    assert_eq!(seen.body, "2\r\nok\r\n0\r\n\r\n");
    seen.backend.expect("its end").ended().await;
}

/// Answers that break off, by the version of the client.
const CUT: &[(&str, &str)] = &[
    ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
    (
        "1.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ),
    (
        "1.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ),
    (
        "1.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX: y\r\n",
    ),
    ("1.0", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
    (
        "1.0",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ),
    // Chunks that are none.
    (
        "1.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf0\r\n\r\n",
    ),
    (
        "1.1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0x0\r\n\r\n",
    ),
    (
        "1.0",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n-0\r\n\r\n",
    ),
];

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_a_rst() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for (version, answer) in CUT {
        for last in ["keep-alive", "close"] {
            let mut client = Wire::client(&balancer).await;
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {last}\r\n\r\n");
            client.send(request).await;
            let (mut backend, _) = node.asked_by(&mut client).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            backend.send(format!("{head}\r\n\r\n")).await;
            // Behind the head it cannot become a 502.
            client.head().await;
            backend.send(body).await;
            drop(backend);
            let (bytes, ending) = client.rest().await;
            assert_eq!(ending, Ending::Rst, "HTTP/{version}, {last}: {answer:?}");
            assert!(!bytes.ends_with(b"0\r\n\r\n"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_until_close_that_a_node_resets_is_not_complete() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    for version in ["1.0", "1.1"] {
        let mut client = Wire::client(&balancer).await;
        client
            .send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"))
            .await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
        client.until("half").await;
        backend.reset();
        let (bytes, ending) = client.rest().await;
        assert_eq!(ending, Ending::Rst, "HTTP/{version}");
        assert!(!bytes.ends_with(b"0\r\n\r\n"));
    }
}

/// A close_notify would say that all has come.
#[tokio::test]
async fn an_answer_that_breaks_off_ends_without_a_close_notify_over_tls() {
    let mut node = ManualNode::new().await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let stream = tls(address, "a.example", &client(&[&certificate])).await;
    let mut client = Wire::new(stream.expect("TLS"));
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        .await;
    client.until("half").await;
    drop(backend);
    assert_eq!(client.rest().await.1, Ending::Rst);
}

#[tokio::test]
async fn interim_answers_without_end_are_a_502() {
    const MOST: usize = 100;
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let mut client = Wire::client(&balancer).await;
    client.send(LAST_GET).await;
    let (mut backend, _) = node.asked_by(&mut client).await;
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    backend.send(interim.repeat(MOST)).await;
    for _ in 0..MOST {
        assert_eq!(client.head().await, interim);
    }
    backend.send(interim).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    client.rest().await;
    backend.ended().await;
}

/// Framing that never ends would be read for ever, and is no data to be counted.
#[tokio::test]
async fn extensions_and_trailers_of_an_answer_are_bounded() {
    let mut node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node.node]));
    let long = "x".repeat(1 << 20);
    for endless in [format!("1;{long}"), format!("0\r\nX: {long}")] {
        let mut client = Wire::client(&balancer).await;
        client.send(GET).await;
        let (mut backend, _) = node.asked_by(&mut client).await;
        backend
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.head().await;
        backend.try_send(endless).await;
        assert_eq!(client.rest().await.1, Ending::Rst);
    }
}
