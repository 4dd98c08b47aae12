//! WebSocket sessions through the balancer, plain and over TLS, with an independent client.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::certificates::{Certificate, client};
use crate::clients::{ask, connect, node_of, read_exactly, tls, websocket, websocket_over};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::{Node, switching};
use crate::settings::{backend, listener_with, pool, simple};

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut socket = websocket(balancer.address("main").await, "/socket").await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        within("a send", socket.send(Message::binary(sent.clone())))
            .await
            .expect("send");
        match within("a message", socket.next())
            .await
            .expect("an open socket")
            .expect("a message")
        {
            Message::Binary(bytes) => assert!(bytes == sent, "{size} bytes came back changed"),
            other => panic!("{other:?}"),
        }
    }
    let lost = balancer
        .metric(&["evenkeel_listener_lost_frames_total"])
        .await;
    assert_eq!(lost, 0.0, "its frames are not understood");
}

#[tokio::test]
async fn frames_are_followed_until_they_break_the_protocol_and_the_bytes_go_on() {
    // A frame, and behind it what is none: a reserved opcode.
    const SENT: &[u8] = b"\x82\x03abc\x8f\x00and so on";
    let node = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let Some(request) = crate::nodes::read_request(&mut stream, &mut buffer).await else {
            return;
        };
        let head = switching(request.header("sec-websocket-key").unwrap_or_default());
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(SENT).await;
        crate::nodes::echo(stream).await;
    })
    .await;
    let config = listener_with("off", "websocket", "nodes", "follow_frames = false")
        + &listener_with("on", "websocket", "nodes", "")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    for listener in ["off", "on"] {
        let mut stream = connect(balancer.address(listener).await).await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("ask");
        let answer = crate::clients::read_answer(&mut stream).await;
        assert_eq!(answer.status, 101);
        assert_eq!(read_exactly(&mut stream, SENT.len()).await, SENT);
        stream.write_all(b"no frame either").await.expect("send");
        assert_eq!(read_exactly(&mut stream, 15).await, b"no frame either");
    }
    let lost = async |listener: &str| {
        let label = format!("listener=\"{listener}\"");
        balancer
            .metric(&["evenkeel_listener_lost_frames_total", &label])
            .await
    };
    within("the count", async {
        while lost("on").await < 1.0 {
            crate::harness::a_moment().await;
        }
    })
    .await;
    assert_eq!((lost("off").await, lost("on").await), (0.0, 1.0));
}

#[tokio::test]
async fn sessions_spread_over_the_nodes() {
    let nodes = [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
    ];
    let balancer = Balancer::start(&simple("websocket", "", &[&nodes[0], &nodes[1], &nodes[2]]));
    let address = balancer.address("main").await;
    let mut sockets = Vec::new();
    for number in 0..9 {
        let mut socket = websocket(address, "/").await;
        assert_eq!(node_of(&mut socket).await, format!("n{}", number % 3 + 1));
        sockets.push(socket);
    }
    for socket in &mut sockets {
        assert!(ask(socket, "still").await.ends_with(":still"));
    }
}

#[tokio::test]
async fn a_close_frame_and_its_answer_pass() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut socket = websocket(balancer.address("main").await, "/").await;
    let frame = CloseFrame {
        code: CloseCode::Away,
        reason: "bye".into(),
    };
    within("a close", socket.close(Some(frame.clone())))
        .await
        .expect("close");
    match within("the answer", socket.next()).await {
        Some(Ok(Message::Close(Some(answer)))) => assert_eq!(answer, frame),
        other => panic!("{other:?}"),
    }
    assert!(within("the end", socket.next()).await.is_none());
}

#[tokio::test]
async fn a_subprotocol_and_its_answer_pass() {
    let node = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let Some(request) = crate::nodes::read_request(&mut stream, &mut buffer).await else {
            return;
        };
        assert_eq!(
            request.header("sec-websocket-protocol"),
            Some("chat.v2, chat.v1")
        );
        let answer = crate::nodes::switching(request.header("sec-websocket-key").expect("a key"))
            .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
            .await
            .expect("write");
        crate::nodes::echo(stream).await;
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    let mut request =
        tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
            "ws://{address}/"
        ))
        .expect("a request");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        "chat.v2, chat.v1".parse().expect("a value"),
    );
    let stream = connect(address).await;
    let (_, response) = within(
        "a handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await
    .expect("a WebSocket");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v1");
}

#[tokio::test]
async fn sessions_over_tls_carry_messages() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "chat", &["chat.example.org"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let config = client(&[&certificate]);
    for _ in 0..10 {
        let stream = tls(address, "chat.example.org", &config)
            .await
            .expect("a TLS connection");
        let (mut socket, _) = websocket_over(stream, "ws://chat.example.org/")
            .await
            .expect("a WebSocket");
        assert_eq!(node_of(&mut socket).await, "n1");
        let sent = vec![7_u8; 300_000];
        within("a send", socket.send(Message::binary(sent.clone())))
            .await
            .expect("send");
        let answer = within("a message", socket.next())
            .await
            .expect("open")
            .expect("a message");
        assert!(answer.into_data() == sent);
    }
    let heads = node.heads.lock().unwrap().join("");
    assert!(
        heads
            .to_ascii_lowercase()
            .contains("x-forwarded-proto: https"),
        "{heads}"
    );
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_an_unknown_name_is_refused() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let exact = Certificate::write(launch.folder.path(), "exact", &["chat.example.org"]);
    let wild = Certificate::write(launch.folder.path(), "wild", &["*.example.net"]);
    let keys = format!(
        "tls = {{ certificates = [{}, {}] }}",
        exact.toml(),
        wild.toml()
    );
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let config = client(&[&exact, &wild]);
    for (name, wanted) in [
        ("chat.example.org", &exact),
        ("a.example.net", &wild),
        ("b.example.net", &wild),
    ] {
        let stream = tls(address, name, &config).await.expect(name);
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .expect("a certificate")[0]
            .clone();
        assert_eq!(&shown, wanted.der(), "{name}");
    }
    for name in ["other.example.org", "a.b.example.net", "example.net"] {
        let error = tls(address, name, &config).await.expect_err(name);
        assert!(error.to_string().contains("alert"), "{name}: {error}");
    }
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn a_default_certificate_serves_unknown_names() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "chat", &["chat.example.org"]);
    let toml = certificate.toml().replace(" }", ", default = true }");
    let keys = format!("tls = {{ certificates = [{toml}] }}");
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let error = tls(
        balancer.address("main").await,
        "other.example.org",
        &client(&[&certificate]),
    )
    .await;
    let error = error
        .expect_err("a name that the certificate does not cover")
        .to_string();
    assert!(
        error.contains("NotValidForName") || error.contains("not valid for name"),
        "{error}"
    );
}
