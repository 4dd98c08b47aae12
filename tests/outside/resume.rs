//! WebSockets that outlive their backend: the client's socket stays open and another node takes the session.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::clients::{Ending, Socket, ask, connect, node_of, read_to_ending, websocket};
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::{Node, read_request, speak, switching};
use crate::settings::simple;

pub const RESUME: &str = "resume = { timeout = \"5s\", max_buffer = \"4KiB\" }";
/// Every end of a node is a loss.
const RESUME_ON_EOF: &str = "resume = { on = [\"eof\"], timeout = \"5s\" }";

/// A balancer before these nodes, of which the first takes everybody.
pub fn balancer(keys: &str, nodes: &[&Node]) -> Balancer {
    let config = simple("websocket", keys, nodes);
    Balancer::start(&format!("[access_log]\noutput = \"stdout\"\n\n{config}"))
}

/// What the latest handshake said of the one before.
pub fn note(node: &Node) -> Option<String> {
    let heads = node.heads.lock().unwrap();
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("evenkeel-resume")
            .then(|| value.trim().to_owned())
    };
    heads.last()?.lines().find_map(line)
}

pub async fn close_of(socket: &mut Socket) -> Option<u16> {
    let mut code = None;
    let reading = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(close) = message {
                code = close.map(|close| close.code.into());
            }
            let _ = socket.flush().await;
        }
    };
    within("the end of a websocket", reading).await;
    code
}

/// A client on the node of that name.
pub async fn on(balancer: &Balancer, name: &str) -> Socket {
    let address = balancer.address("main").await;
    loop {
        let mut socket = websocket(address, "/chat?room=1").await;
        if node_of(&mut socket).await == name {
            return socket;
        }
    }
}

/// Nobody is on that node: what is sent from now on is not sent to it.
pub async fn gone(balancer: &Balancer, name: &str) {
    balancer
        .backend_until("nodes", name, |node| node["live"] == 0)
        .await;
}

/// So many sessions have been silent for longer than `settle`.
async fn quiet(balancer: &Balancer, count: usize) {
    let path = "/api/v1/connections?min_idle=510ms";
    let asking = async {
        loop {
            let page = balancer.get(path).await.json();
            if page["connections"].as_array().unwrap().len() == count {
                return;
            }
            a_moment().await;
        }
    };
    within("silent sessions", asking).await;
}

pub async fn operate(balancer: &Balancer, name: &str, what: &str) {
    let path = format!("/api/v1/pools/nodes/backends/{name}/{what}");
    let answer = balancer.post(&path, "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

pub async fn not_resumed(balancer: &Balancer) -> f64 {
    balancer
        .metric(&["evenkeel_backend_resumes_total", "result=\"ended\""])
        .await
}

#[tokio::test]
async fn a_node_that_dies_is_followed_by_another_and_the_client_notices_nothing() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = balancer(RESUME, &[&n1, &n2]);
    let mut socket = on(&balancer, "n1").await;
    n1.kill().await;
    gone(&balancer, "n1").await;
    assert_eq!(ask(&mut socket, "still there").await, "n2:still there");
    assert_eq!(
        note(&n2).as_deref(),
        Some("count=1; from=\"n1\"; lost=unknown")
    );
    let head = n2.heads.lock().unwrap().last().unwrap().clone();
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    let line = balancer
        .access("a resume line", |line| line["event"] == "resume")
        .await;
    assert_eq!(
        (&line["from"], &line["backend"]),
        (&"n1".into(), &"n2".into())
    );
    assert_eq!(line["lost"], "unknown", "{line}");
    assert!(line["gap_ms"].is_number(), "{line}");
    let live = balancer.backend("nodes", "n2").await["live"].as_u64();
    assert_eq!(live, Some(1));
    let resumed = balancer
        .metric(&["evenkeel_backend_resumes_total", "n2", "result=\"resumed\""])
        .await;
    assert_eq!(resumed as u64, 1);
    socket.close(None).await.unwrap();
    drop(socket);
    gone(&balancer, "n2").await;
}

#[tokio::test]
async fn without_resume_a_session_ends_with_its_node() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    for keys in ["", "resume = { enabled = false }"] {
        let balancer = balancer(keys, &[&n1, &n2]);
        let mut socket = on(&balancer, "n1").await;
        let drain = r#"{"rate": "100/s"}"#;
        let path = "/api/v1/pools/nodes/backends/n1/drain";
        assert_eq!(balancer.post(path, drain).await.status, 200);
        assert_eq!(close_of(&mut socket).await, Some(1012), "{keys}");
    }
}

#[tokio::test]
async fn a_drain_moves_sessions_with_nothing_lost() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = balancer(RESUME, &[&n1, &n2]);
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(on(&balancer, "n1").await);
    }
    quiet(&balancer, sockets.len()).await;
    let path = "/api/v1/pools/nodes/backends/n1/drain";
    let answer = balancer.post(path, r#"{"rate": "1000/s"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    gone(&balancer, "n1").await;
    for socket in &mut sockets {
        assert_eq!(node_of(socket).await, "n2");
    }
    assert_eq!(note(&n2).as_deref(), Some("count=1; from=\"n1\"; lost=0"));
    assert_eq!(not_resumed(&balancer).await as u64, 0);
    // And back again, as the node is ready and the other one goes.
    operate(&balancer, "n1", "ready").await;
    n2.kill().await;
    gone(&balancer, "n2").await;
    for socket in &mut sockets {
        assert_eq!(node_of(socket).await, "n1");
    }
    assert_eq!(
        note(&n1).as_deref(),
        Some("count=2; from=\"n2\"; lost=unknown")
    );
}

/// A `ws`-like node for one session: what it reads goes to `act`, with the socket.
pub async fn upgraded(mut stream: TcpStream, extra: &str) -> (WebSocketStream<TcpStream>, String) {
    let mut buffer = Vec::new();
    let request = read_request(&mut stream, &mut buffer)
        .await
        .expect("a request");
    let key = request.header("sec-websocket-key").expect("a key");
    let answer = switching(key).replace("\r\n\r\n", &format!("\r\n{extra}\r\n"));
    stream.write_all(answer.as_bytes()).await.expect("a 101");
    let socket = WebSocketStream::from_partially_read(stream, buffer, Role::Server, None).await;
    (socket, request.head)
}

#[tokio::test]
async fn a_node_that_says_it_goes_is_answered_and_its_close_is_not_seen() {
    for code in [1001u16, 1012, 1013] {
        let answered: Arc<Mutex<Option<u16>>> = Arc::default();
        let seen = Arc::clone(&answered);
        let n1 = Node::scripted(move |stream, _| {
            let seen = Arc::clone(&seen);
            async move {
                let (mut socket, _) = upgraded(stream, "").await;
                let who = socket.next().await;
                assert_eq!(who.unwrap().unwrap(), Message::text("who"));
                let _ = socket.send(Message::text("n1:who")).await;
                let _ = socket.next().await;
                let reason = "deploy".into();
                let code = code.into();
                let _ = socket.close(Some(CloseFrame { code, reason })).await;
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Close(Some(close)) = message {
                        *seen.lock().unwrap() = Some(close.code.into());
                    }
                }
            }
        })
        .await;
        let n2 = Node::web("n2").await;
        let balancer = balancer(RESUME, &[&n1, &n2]);
        let mut socket = on(&balancer, "n1").await;
        socket.send(Message::text("go")).await.unwrap();
        balancer
            .access("a resume line", |line| line["event"] == "resume")
            .await;
        assert_eq!(node_of(&mut socket).await, "n2");
        within("the answer", async {
            while answered.lock().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(*answered.lock().unwrap(), Some(1001));
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_a_ping_is_left() {
    // Shakes hands, answers once, and reads no more.
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        let _ = socket.next().await;
        let _ = socket.send(Message::text("n1:who")).await;
        std::future::pending::<()>().await;
    })
    .await;
    let n2 = Node::web("n2").await;
    let ping = "ping = { interval = \"1s\", timeout = \"1s\", to = [\"backend\"] }";
    let balancer = balancer(&format!("{RESUME}\n{ping}"), &[&n1, &n2]);
    let mut socket = on(&balancer, "n1").await;
    gone(&balancer, "n1").await;
    assert_eq!(node_of(&mut socket).await, "n2");
}

#[tokio::test]
async fn an_ordinary_close_of_a_node_is_the_client_s() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        let _ = socket.next().await;
        let close = CloseFrame {
            code: CloseCode::Normal,
            reason: "bye".into(),
        };
        let _ = socket.close(Some(close)).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let balancer = balancer(RESUME, &[&n1]);
    let mut socket = websocket(balancer.address("main").await, "/").await;
    socket.send(Message::text("go")).await.unwrap();
    assert_eq!(close_of(&mut socket).await, Some(1000));
    drop(socket);
    let line = balancer
        .access("an end", |line| line["event"] == "end")
        .await;
    assert_ne!(line["end"]["how"], "timeout", "{line}");
}

/// A frame of a client, masked by zeros.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let head = [first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    [&head[..], payload].concat()
}

pub async fn raw(balancer: &Balancer) -> TcpStream {
    let mut stream = connect(balancer.address("main").await).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a 101", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// One frame of a server with a short payload.
pub async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    within("a frame", stream.read_exact(&mut head))
        .await
        .unwrap();
    let mut payload = vec![0; head[1].into()];
    within("a payload", stream.read_exact(&mut payload))
        .await
        .unwrap();
    (head[0], payload)
}

#[tokio::test]
async fn what_is_sent_without_a_node_is_held_and_pings_are_answered() {
    let n1 = Node::web("n1").await;
    let address = n1.address;
    let balancer = balancer(RESUME, &[&n1]);
    let mut stream = raw(&balancer).await;
    stream.write_all(&masked(0x81, b"who")).await.unwrap();
    assert_eq!(frame(&mut stream).await, (0x81, b"n1:who".to_vec()));
    n1.kill().await;
    gone(&balancer, "n1").await;
    let sent = [
        masked(0x81, b"one"),
        masked(0x89, b"ping"),
        masked(0x01, b"tw"),
    ];
    stream.write_all(&sent.concat()).await.unwrap();
    assert_eq!(frame(&mut stream).await, (0x8a, b"ping".to_vec()));
    let n1 = Node::web_at(address, "n1").await;
    assert_eq!(frame(&mut stream).await, (0x81, b"n1:one".to_vec()));
    // Of the held message the rest comes now, with a ping for the node in between.
    let rest = [masked(0x89, b"p"), masked(0x80, b"o")].concat();
    stream.write_all(&rest).await.unwrap();
    let two = [frame(&mut stream).await, frame(&mut stream).await];
    assert!(two.contains(&(0x8a, b"p".to_vec())), "{two:?}");
    assert!(two.contains(&(0x81, b"n1:two".to_vec())), "{two:?}");
    drop(n1);
}

#[tokio::test]
async fn a_message_that_was_half_sent_is_lost_alone() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        // The first part of a message, then nothing.
        let _ = tokio::time::timeout(Duration::from_millis(200), socket.next()).await;
    })
    .await;
    let n2 = Node::web("n2").await;
    let balancer = balancer(RESUME_ON_EOF, &[&n1, &n2]);
    operate(&balancer, "n2", "maint").await;
    let mut stream = raw(&balancer).await;
    operate(&balancer, "n2", "ready").await;
    stream.write_all(&masked(0x01, b"cut ")).await.unwrap();
    balancer
        .access("a resume line", |line| line["event"] == "resume")
        .await;
    let rest = [masked(0x80, b"off"), masked(0x81, b"next")].concat();
    stream.write_all(&rest).await.unwrap();
    assert_eq!(frame(&mut stream).await, (0x81, b"n2:next".to_vec()));
    assert_eq!(
        note(&n2).as_deref(),
        Some("count=1; from=\"n1\"; lost=unknown")
    );
}

#[tokio::test]
async fn a_client_with_half_a_message_is_told_to_reconnect() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        let half = Frame::message("half", OpCode::Data(Data::Text), false);
        let _ = socket.send(Message::Frame(half)).await;
        let _ = socket.next().await;
    })
    .await;
    let n2 = Node::web("n2").await;
    let balancer = balancer(RESUME_ON_EOF, &[&n1, &n2]);
    operate(&balancer, "n2", "maint").await;
    let mut stream = raw(&balancer).await;
    assert_eq!(frame(&mut stream).await, (0x01, b"half".to_vec()));
    stream.write_all(&masked(0x81, b"go")).await.unwrap();
    let (first, payload) = frame(&mut stream).await;
    assert_eq!((first, &payload[..2]), (0x88, &1012u16.to_be_bytes()[..]));
    stream
        .write_all(&masked(0x88, &payload[..2]))
        .await
        .unwrap();
    assert_eq!(read_to_ending(&mut stream).await.0, b"");
    assert_eq!(not_resumed(&balancer).await as u64, 1);
}

#[tokio::test]
async fn a_client_with_half_a_frame_is_reset() {
    let n1 = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let request = read_request(&mut stream, &mut buffer).await.unwrap();
        let key = request.header("sec-websocket-key").unwrap();
        let answer = [switching(key).as_bytes(), b"\x81\x05hal"].concat();
        let _ = stream.write_all(&answer).await;
        let _ = stream.read_u8().await;
    })
    .await;
    let n2 = Node::web("n2").await;
    let balancer = balancer(RESUME_ON_EOF, &[&n1, &n2]);
    operate(&balancer, "n2", "maint").await;
    let mut stream = raw(&balancer).await;
    let mut part = [0; 5];
    within("a part", stream.read_exact(&mut part))
        .await
        .unwrap();
    stream.write_all(&masked(0x81, b"go")).await.unwrap();
    assert_eq!(read_to_ending(&mut stream).await.1, Ending::Rst);
}

#[tokio::test]
async fn another_subprotocol_ends_it() {
    let offers = |protocol: &'static str| {
        Node::scripted(move |stream, _| async move {
            let extra = format!("Sec-WebSocket-Protocol: {protocol}\r\n");
            let (mut socket, _) = upgraded(stream, &extra).await;
            let _ = socket.next().await;
        })
    };
    let (n1, n2) = (offers("v1").await, offers("v2").await);
    let balancer = balancer(RESUME_ON_EOF, &[&n1, &n2]);
    operate(&balancer, "n2", "maint").await;
    let mut stream = connect(balancer.address("main").await).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: v1, v2\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a 101", stream.read_u8()).await.unwrap());
    }
    operate(&balancer, "n2", "ready").await;
    stream.write_all(&masked(0x81, b"go")).await.unwrap();
    let (first, payload) = frame(&mut stream).await;
    assert_eq!((first, &payload[..2]), (0x88, &1012u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn a_session_without_a_node_ends_when_its_time_is_over() {
    let n1 = Node::web("n1").await;
    let balancer = balancer("resume = { timeout = \"1s\" }", &[&n1]);
    let mut socket = on(&balancer, "n1").await;
    n1.kill().await;
    gone(&balancer, "n1").await;
    assert_eq!(close_of(&mut socket).await, Some(1012));
    assert_eq!(not_resumed(&balancer).await as u64, 1);
}

/// Of 413 moves 51 were ended by one message of 70 kB.
#[tokio::test]
async fn what_exceeds_the_buffer_waits_and_the_session_goes_on() {
    let n1 = Node::web("n1").await;
    let address = n1.address;
    let balancer = balancer(
        "resume = { timeout = \"10m\", max_buffer = \"1KiB\" }",
        &[&n1],
    );
    let mut socket = on(&balancer, "n1").await;
    let mut leaves = on(&balancer, "n1").await;
    n1.kill().await;
    gone(&balancer, "n1").await;
    let long = "x".repeat(70_000);
    for socket in [&mut socket, &mut leaves] {
        socket.send(Message::text(long.as_str())).await.unwrap();
    }
    // Nothing is read of it that would tell of its reset.
    leaves.get_ref().set_zero_linger().unwrap();
    drop(leaves);
    let left = async {
        while balancer.metric(&["evenkeel_relayed_sessions"]).await > 1.0 {
            a_moment().await;
        }
    };
    within("one to be gone", left).await;
    let n1 = Node::web_at(address, "n1").await;
    let answer = within("an answer", socket.next()).await.unwrap().unwrap();
    assert_eq!(answer, Message::text(format!("n1:{long}")));
    drop(n1);
}

/// Answers each Close at once, as Swoole's reactor does, whatever its workers are at. Behind `work`
/// it speaks until `done`, then gives its answer, unless a Close has come. The longest pause
/// between two of its words is kept.
async fn reactor(done: watch::Receiver<bool>, pause: Arc<Mutex<Duration>>) -> Node {
    Node::scripted(move |stream, _| {
        let (mut done, pause) = (done.clone(), Arc::clone(&pause));
        async move {
            let (mut socket, _) = upgraded(stream, "").await;
            let mut spoke = None;
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                let message = tokio::select! {
                    message = socket.next() => message,
                    _ = ticks.tick(), if spoke.is_some() => {
                        let is_over = *done.borrow_and_update();
                        let word = if is_over { "n1:work" } else { "tick" };
                        let _ = socket.send(Message::text(word)).await;
                        let passed = spoke.replace(Instant::now()).map(|at| at.elapsed());
                        let mut pause = pause.lock().unwrap();
                        *pause = pause.max(passed.unwrap_or_default());
                        if is_over {
                            spoke = None;
                        }
                        continue;
                    }
                };
                match message {
                    Some(Ok(Message::Text(text))) if text == "work" => spoke = Some(Instant::now()),
                    Some(Ok(Message::Text(text))) if text == "mute" => {}
                    Some(Ok(Message::Text(text))) => {
                        let _ = socket.send(Message::text(format!("n1:{text}"))).await;
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                }
            }
        }
    })
    .await
}

/// Five of five requests under way were lost with `lost=0`.
#[tokio::test]
async fn a_node_that_answers_a_close_before_a_message_may_have_lost_it() {
    let (_done, working) = watch::channel(false);
    let (n1, n2) = (
        reactor(working, Arc::default()).await,
        Node::web("n2").await,
    );
    let balancer = balancer(RESUME, &[&n1, &n2]);
    let mut socket = on(&balancer, "n1").await;
    socket.send(Message::text("mute")).await.unwrap();
    let path = "/api/v1/pools/nodes/backends/n1/drain";
    assert_eq!(
        balancer.post(path, r#"{"rate": "1000/s"}"#).await.status,
        200
    );
    gone(&balancer, "n1").await;
    assert_eq!(node_of(&mut socket).await, "n2");
    assert_eq!(
        note(&n2).as_deref(),
        Some("count=1; from=\"n1\"; lost=unknown")
    );
}

#[tokio::test]
async fn a_node_that_works_on_an_answer_is_not_told_close_before_it() {
    loop {
        let pause: Arc<Mutex<Duration>> = Arc::default();
        let (done, working) = watch::channel(false);
        let n1 = reactor(working, Arc::clone(&pause)).await;
        let n2 = Node::web("n2").await;
        let balancer = balancer("resume = { settle = \"10s\" }", &[&n1, &n2]);
        let mut socket = on(&balancer, "n1").await;
        socket.send(Message::text("work")).await.unwrap();
        let path = "/api/v1/pools/nodes/backends/n1/drain";
        assert_eq!(
            balancer.post(path, r#"{"rate": "1000/s"}"#).await.status,
            200
        );
        let job = async {
            while balancer.get("/api/v1/jobs/1").await.json()["ended"] != 1 {
                a_moment().await;
            }
        };
        within("the session to be told to go", job).await;
        // A job counts what it has told its worker, which reads a client before its orders. The
        // worker's answer comes behind them.
        assert_eq!(balancer.get("/api/v1/connections").await.status, 200);
        done.send(true).unwrap();
        // It is held, and the next node's.
        socket.send(Message::text("who")).await.unwrap();
        let hearing = async {
            let mut heard = Vec::<String>::new();
            while heard.last().is_none_or(|last| last != "n2:who") {
                let message = socket.next().await.unwrap().unwrap();
                heard.push(message.into_text().unwrap().to_string());
            }
            heard
        };
        let heard = within("the next node", hearing).await;
        let is_answered = heard.iter().any(|word| word == "n1:work");
        // A node that had no turn to speak looks as if it had nothing to say.
        if is_answered || *pause.lock().unwrap() < Duration::from_millis(25) {
            assert!(is_answered, "{heard:?}");
            return;
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_meanwhile_is_answered_and_nobody_is_looked_for() {
    let n1 = Node::web("n1").await;
    let address = n1.address;
    let balancer = balancer(RESUME, &[&n1]);
    let (mut closes, leaves) = (on(&balancer, "n1").await, on(&balancer, "n1").await);
    n1.kill().await;
    gone(&balancer, "n1").await;
    closes.close(None).await.unwrap();
    close_of(&mut closes).await;
    drop(leaves);
    let left = async {
        while balancer.metric(&["evenkeel_relayed_sessions"]).await > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    within("both to be gone", left).await;
    let n1 = Node::web_at(address, "n1").await;
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(node_of(&mut socket).await, "n1");
    assert_eq!(n1.heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn compression_goes_on_without_a_window_and_a_forged_note_is_dropped() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let n1 = Node::scripted(move |stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let extra =
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n";
            let (socket, head) = upgraded(stream, extra).await;
            seen.lock().unwrap().push(head);
            speak(socket.into_inner(), Vec::new(), "n1").await;
        }
    })
    .await;
    let balancer = balancer(RESUME, &[&n1]);
    let mut stream = connect(balancer.address("main").await).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nEvenkeel-Resume: count=9\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a 101", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let agreed = "sec-websocket-extensions: permessage-deflate; server_max_window_bits=12; client_no_context_takeover\r\n";
    assert!(head.contains(agreed), "{head}");
    let heads = heads.lock().unwrap();
    assert!(!heads[0].to_ascii_lowercase().contains("evenkeel-resume"));
}

#[tokio::test]
async fn a_move_gives_sessions_another_node_and_leaves_those_that_cannot() {
    let nodes = [Node::web("n1").await, Node::web("n2").await];
    let web = |keys: &str| simple("websocket", keys, &[&nodes[0], &nodes[1]]);
    for (keys, moves) in [(RESUME, true), ("", false)] {
        let balancer = Balancer::start(&web(keys));
        let mut sockets = Vec::new();
        for _ in 0..5 {
            sockets.push(on(&balancer, "n1").await);
        }
        let admin = balancer.address("admin").await.to_string();
        let command = async |words: &[&str]| {
            let words = [&["move", "--admin", &admin], words].concat();
            balancer.command(&words).await
        };
        assert_eq!(command(&[]).await.0, 2, "nobody is meant by accident");
        let (code, out, error) = command(&["--backend", "n1", "--rate", "100/s"]).await;
        if moves {
            assert_eq!(code, 0, "{error}");
            assert!(out.starts_with("job 1 on move of backend=n1: "), "{out}");
            let job = async {
                loop {
                    let job = balancer.get("/api/v1/jobs/1").await.json();
                    if job["phase"] == "done" {
                        return job;
                    }
                }
            };
            let job = within("the job", job).await;
            assert_eq!(job["ended"], 5, "{job}");
            let (_, table, _) = balancer.command(&["jobs", "--admin", &admin]).await;
            let rows = table
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>());
            let rows: Vec<Vec<&str>> = rows.collect();
            assert!(
                rows[0].ends_with(&["CLOSE", "ENDED", "MOVED", "LEFT", "ETA"]),
                "{table}"
            );
            assert!(rows[1].ends_with(&["-", "-", "5", "0"]), "{table}");
            gone(&balancer, "n1").await;
        } else {
            assert_eq!(code, 1, "{out}");
            assert!(error.contains("resume"), "{error}");
        }
        for socket in &mut sockets {
            assert_eq!(node_of(socket).await, if moves { "n2" } else { "n1" });
        }
    }
}
