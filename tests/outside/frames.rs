//! Bounds on what WebSocket clients send: the client hears which one it passed, the backend that it has gone, and both see an
//! end in order.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, Socket, ask, read_to_ending, tls, websocket, websocket_over};
use crate::harness::{Balancer, Event, Launch, a_moment, within};
use crate::nodes::{Node, read_request, switching};
use crate::settings::{backend, listener_with, pool};

/// What a node has seen of a session.
#[derive(Debug, Default, Clone, PartialEq)]
struct Heard {
    /// Whole messages.
    texts: Vec<usize>,
    pings: usize,
    close: Option<(u16, String)>,
    /// The end was one of the protocol and, behind it, a FIN.
    in_order: Option<bool>,
}

/// Answers each text with its length, keeps what it hears.
async fn listening_node() -> (Node, Arc<Mutex<Heard>>) {
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let keeping = heard.clone();
    let node = Node::scripted(move |stream, _| keep(stream, keeping.clone())).await;
    (node, heard)
}

async fn keep(mut stream: TcpStream, heard: Arc<Mutex<Heard>>) {
    let mut read = Vec::new();
    let request = read_request(&mut stream, &mut read).await.expect("a head");
    let answer = switching(request.header("sec-websocket-key").expect("a key"));
    let answered = stream.write_all(answer.as_bytes()).await;
    answered.expect("an answer");
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
    let mut in_order = true;
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) => {
                heard.lock().unwrap().texts.push(text.len());
                let answer = Message::text(text.len().to_string());
                in_order &= socket.send(answer).await.is_ok();
            }
            Ok(Message::Ping(_)) => heard.lock().unwrap().pings += 1,
            Ok(Message::Close(close)) => heard.lock().unwrap().close = close.map(plain),
            Ok(_) => {}
            Err(_) => in_order = false,
        }
    }
    let rest = socket.get_mut().read(&mut [0]).await;
    heard.lock().unwrap().in_order = Some(in_order && matches!(rest, Ok(0)));
}

fn plain(close: CloseFrame) -> (u16, String) {
    (close.code.into(), close.reason.to_string())
}

async fn ended(heard: &Mutex<Heard>) -> Heard {
    within("the end of the session at the node", async {
        while heard.lock().unwrap().in_order.is_none() {
            a_moment().await;
        }
    })
    .await;
    heard.lock().unwrap().clone()
}

/// Reads to the end; what the Close said, and whether it was an end in order.
async fn end_of<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> (u16, String) {
    let (mut said, mut broken) = (None, None);
    within("the end of a websocket", async {
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Close(close)) => said = close.map(plain),
                Ok(_) => {}
                Err(error) => broken = Some(error),
            }
        }
    })
    .await;
    assert!(broken.is_none(), "{broken:?} after {said:?}");
    said.expect("a Close that says why")
}

fn config(bounds: &str, keys: &str, node: &Node) -> String {
    let keys = format!("frames = {{ {bounds} }}\n{keys}");
    "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)])
}

/// One message in parts of these lengths.
async fn send_in_parts<S>(socket: &mut Socket<S>, parts: &[usize])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for (place, length) in parts.iter().enumerate() {
        let kind = match place {
            0 => Data::Text,
            _ => Data::Continue,
        };
        let is_last = place + 1 == parts.len();
        let frame = Frame::message(vec![b'x'; *length], OpCode::Data(kind), is_last);
        socket.send(Message::Frame(frame)).await.expect("send");
    }
}

/// What the access log says of the end.
async fn logged(balancer: &Balancer) -> Value {
    let line = balancer.access("the end", |line| line["listener"] == "main");
    line.await["end"].clone()
}

fn passed_a_bound() -> Value {
    json!({ "how": "full", "phase": "relay", "side": "client" })
}

async fn a_message_too_long<S>(socket: &mut Socket<S>, balancer: &Balancer, heard: &Mutex<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // As long as may be, whole and in parts, again and again: each message counts for itself.
    for _ in 0..3 {
        assert_eq!(ask(socket, &"x".repeat(1024)).await, "1024");
        send_in_parts(socket, &[500, 0, 524]).await;
        assert_eq!(ask(socket, "").await, "1024");
        let next = within("an answer", socket.next()).await;
        assert_eq!(next.unwrap().unwrap().into_text().unwrap(), "0");
    }
    // No frame of it is long.
    send_in_parts(socket, &[500, 524, 1]).await;
    let said = end_of(socket).await;
    assert_eq!(said, (1009, "message too big".to_owned()));
    let heard = ended(heard).await;
    assert_eq!(heard.texts, [1024, 1024, 0].repeat(3));
    let close = heard.close.map(|(code, _)| code);
    assert_eq!((close, heard.in_order), (Some(1001), Some(true)));
    assert_eq!(logged(balancer).await, passed_a_bound());
}

#[tokio::test]
async fn a_message_is_bounded_over_its_fragments_and_both_sides_are_told() {
    let (node, heard) = listening_node().await;
    let balancer = Balancer::start(&config("max_message = \"1KiB\"", "", &node));
    let mut socket = websocket(balancer.address("main").await, "/").await;
    a_message_too_long(&mut socket, &balancer, &heard).await;
}

#[tokio::test]
async fn a_message_is_bounded_over_tls_too() {
    let (node, heard) = listening_node().await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let balancer = launch.start(&config("max_message = \"1KiB\"", &keys, &node));
    let trusting = client(&[&certificate]);
    let stream = tls(balancer.address("main").await, "a.example", &trusting).await;
    let url = "wss://a.example/";
    let (mut socket, _) = websocket_over(stream.expect("a handshake"), url)
        .await
        .expect("a websocket");
    a_message_too_long(&mut socket, &balancer, &heard).await;
}

#[tokio::test]
async fn a_flood_of_pings_and_pongs_ends_its_session_and_no_other() {
    let (node, heard) = listening_node().await;
    let (quiet_node, quiet_heard) = listening_node().await;
    let text = config("max_pings = \"5/h\"", "", &node)
        + &listener_with(
            "quiet",
            "websocket",
            "quiet",
            "frames = { max_pings = \"5/h\" }",
        )
        + &pool("quiet", "", &[backend("n1", quiet_node.address)]);
    let balancer = Balancer::start(&text);
    let mut other = websocket(balancer.address("quiet").await, "/").await;
    let mut socket = websocket(balancer.address("main").await, "/").await;
    for number in 0..5u8 {
        let one: fn(Vec<u8>) -> Message = match number % 2 {
            0 => |data| Message::Ping(data.into()),
            _ => |data| Message::Pong(data.into()),
        };
        socket.send(one(vec![number])).await.expect("send");
        // Messages are none of it.
        assert_eq!(ask(&mut socket, "hello").await, "5");
        let ping = Message::Ping(vec![number].into());
        other.send(ping).await.expect("send");
    }
    socket
        .send(Message::Ping(vec![6].into()))
        .await
        .expect("send");
    let said = end_of(&mut socket).await;
    assert_eq!(said, (1008, "too many pings".to_owned()));
    let heard = ended(&heard).await;
    assert_eq!((heard.texts.len(), heard.pings), (5, 3));
    let close = heard.close.map(|(code, _)| code);
    assert_eq!((close, heard.in_order), (Some(1001), Some(true)));
    assert_eq!(ask(&mut other, "still here").await, "10");
    assert_eq!(quiet_heard.lock().unwrap().pings, 5);
    assert_eq!(logged(&balancer).await, passed_a_bound());
}

/// Each breaks RFC 6455 in another place of its header.
const BROKEN: [(&str, &[u8]); 4] = [
    ("a reserved opcode", &[0x83, 0x80, 0, 0, 0, 0]),
    ("no mask", &[0x81, 5, b'p', b'l', b'a', b'i', b'n']),
    ("a long ping", &[0x89, 0xfe, 0, 126, 0, 0, 0, 0]),
    ("a continuation of nothing", &[0x80, 0x81, 0, 0, 0, 0, b'x']),
];

/// The broken frame went on to the node, the answers under way were lost, and a RST followed the Close.
#[tokio::test]
async fn a_broken_frame_goes_nowhere_and_the_answers_before_it_come() {
    let (node, heard) = listening_node().await;
    let balancer = Balancer::start(&config("max_frame = \"1KiB\"", "", &node));
    for (what, broken) in BROKEN {
        *heard.lock().unwrap() = Heard::default();
        let mut socket = websocket(balancer.address("main").await, "/").await;
        for length in 1..=3 {
            let text = Message::text("x".repeat(length));
            socket.feed(text).await.expect("feed");
        }
        socket.flush().await.expect("flush");
        // In two pieces: a part of a header is not passed on either.
        let (first, rest) = broken.split_at(1);
        for piece in [first, rest] {
            let sent = socket.get_mut().write_all(piece).await;
            sent.expect("send");
        }
        let (mut answers, mut said) = (Vec::new(), None);
        within("the end of a websocket", async {
            while let Some(message) = socket.next().await {
                match message.expect("an end in order") {
                    Message::Close(close) => said = close.map(plain),
                    answer => answers.push(answer.into_text().expect("a text").to_string()),
                }
            }
        })
        .await;
        assert_eq!(answers, ["1", "2", "3"], "{what}");
        assert_eq!(said, Some((1002, "protocol error".to_owned())), "{what}");
        drop(socket);
        let heard = ended(&heard).await;
        let close = heard.close.map(|(code, _)| code);
        assert_eq!((heard.texts, close), (vec![1, 2, 3], Some(1001)), "{what}");
        assert_eq!(heard.in_order, Some(true), "{what}");
    }
    let broke = json!({ "how": "invalid", "phase": "relay", "side": "client" });
    assert_eq!(logged(&balancer).await, broke);
    // What a client does wrong is nothing that the operator has to read.
    for id in 1..=BROKEN.len() as u64 {
        let is_its = |event: &Event| {
            event.message() == "websocket client is refused" && event.number("id") == Some(id)
        };
        let told = balancer.event("a refusal", 0, is_its).await;
        assert_eq!(told.level(), "DEBUG");
    }
}

/// Both come in one turn, most of the time: the FIN must not stand for what the client did wrong.
#[tokio::test]
async fn a_fin_behind_a_broken_frame_changes_nothing() {
    const ROUNDS: usize = 8;
    let (node, heard) = listening_node().await;
    let balancer = Balancer::start(&config("max_frame = \"1KiB\"", "", &node));
    let long = [&[0x82, 0xfe, 8, 0, 0, 0, 0, 0][..], &[0; 2048]].concat();
    let wrong = [(BROKEN[0].1, 1002), (&long[..], 1009)];
    for (bytes, code) in std::iter::repeat_n(wrong, ROUNDS).flatten() {
        *heard.lock().unwrap() = Heard::default();
        let mut socket = websocket(balancer.address("main").await, "/").await;
        let text = Message::text("xx").into_data();
        let good = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], &text[..]].concat();
        let stream = socket.get_mut();
        let both = [&good, bytes].concat();
        stream.write_all(&both).await.expect("send");
        stream.shutdown().await.expect("a FIN");
        let (answer, ending) = read_to_ending(stream).await;
        let said = [
            &[0x81, 1, b'2', 0x88][..],
            &answer[4..5],
            &u16::to_be_bytes(code),
        ]
        .concat();
        assert!(answer.starts_with(&said), "{answer:?}");
        assert_eq!(ending, Ending::Fin);
        let heard = ended(&heard).await;
        let close = heard.close.map(|(code, _)| code);
        assert_eq!((heard.texts, close), (vec![2], Some(1001)), "{code}");
    }
}
