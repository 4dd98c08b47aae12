//! What `resume` takes for the loss of a node, and what for its word: the stand-ins end sessions as
//! PHP servers do.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::clients::{Ending, Socket, ask, node_of, read_to_ending, websocket};
use crate::harness::{Balancer, within};
use crate::nodes::{Node, read_request, switching};
use crate::resume::{
    RESUME, balancer, close_of, frame, gone, masked, not_resumed, note, on, operate, raw, upgraded,
};

/// Ends a session as Workerman's `close()`, GatewayWorker's `closeClient`, Swoole's `close` and
/// their heartbeats do: by a FIN without a Close frame. A worker process that dies does the same to
/// all of its sessions.
async fn end(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
}

/// A node of four workers, which take connections in turns. It answers as `n1`, ends the session at
/// `kick`, and resets it at `reset`. A worker ends all of its sessions when its number is sent, and
/// takes new ones.
struct Workers {
    node: Node,
    dies: watch::Sender<Option<usize>>,
    /// Sessions that have ended.
    ended: watch::Receiver<usize>,
}

async fn workers() -> Workers {
    let (dies, dying) = watch::channel(None);
    let (count, ended) = watch::channel(0);
    let count = Arc::new(count);
    let node = Node::scripted(move |stream, number| {
        let mut dying = dying.clone();
        let count = Arc::clone(&count);
        async move {
            let (mut socket, _) = upgraded(stream, "").await;
            let died = async move {
                let _ = dying.wait_for(|dead| *dead == Some(number % 4)).await;
            };
            let serving = async {
                while let Some(Ok(Message::Text(text))) = socket.next().await {
                    match &*text {
                        "kick" => return false,
                        "reset" => return true,
                        _ => {}
                    }
                    let _ = socket.send(Message::text(format!("n1:{text}"))).await;
                }
                false
            };
            let resets = tokio::select! {
                resets = serving => resets,
                () = died => false,
            };
            let stream = socket.into_inner();
            match resets {
                true => stream.set_zero_linger().unwrap(),
                false => end(stream).await,
            }
            count.send_modify(|count| *count += 1);
        }
    })
    .await;
    Workers { node, dies, ended }
}

/// So many clients on the first node, with a second one beside it.
async fn clients(balancer: &Balancer, count: usize) -> Vec<Socket> {
    operate(balancer, "n2", "maint").await;
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(on(balancer, "n1").await);
    }
    operate(balancer, "n2", "ready").await;
    sockets
}

/// It ends, and no Close comes before that.
async fn ends_without_a_close(socket: &mut Socket) {
    let ending = within("the end of a websocket", socket.next()).await;
    assert!(!matches!(ending, Some(Ok(_))), "{ending:?}");
}

#[tokio::test]
async fn a_kick_ends_the_session_as_without_resume() {
    let (n1, n2) = (workers().await, Node::web("n2").await);
    for keys in [RESUME, ""] {
        let balancer = balancer(keys, &[&n1.node, &n2]);
        operate(&balancer, "n2", "maint").await;
        for (word, ending) in [("kick", Ending::Fin), ("reset", Ending::Rst)] {
            let mut stream = raw(&balancer).await;
            operate(&balancer, "n2", "ready").await;
            stream.write_all(&masked(0x81, b"who")).await.unwrap();
            assert_eq!(frame(&mut stream).await, (0x81, b"n1:who".to_vec()));
            stream
                .write_all(&masked(0x81, word.as_bytes()))
                .await
                .unwrap();
            let (rest, how) = read_to_ending(&mut stream).await;
            assert_eq!((rest, how), (Vec::new(), ending), "{keys} {word}");
            operate(&balancer, "n2", "maint").await;
        }
        assert_eq!(not_resumed(&balancer).await as u64, 0);
    }
    assert_eq!(n2.accepted(), 0, "a client that was kicked came back");
}

/// Two sessions of one user.
#[tokio::test]
async fn two_kicks_at_once_are_no_burst() {
    let (n1, n2) = (workers().await, Node::web("n2").await);
    let balancer = balancer(RESUME, &[&n1.node, &n2]);
    let mut sockets = clients(&balancer, 8).await;
    for socket in &mut sockets[..2] {
        socket.send(Message::text("kick")).await.unwrap();
    }
    for socket in &mut sockets[..2] {
        ends_without_a_close(socket).await;
    }
    for socket in &mut sockets[2..] {
        assert_eq!(node_of(socket).await, "n1");
    }
    assert_eq!(n2.accepted(), 0);
}

/// The address stands, the other workers serve, and no check notices anything.
#[tokio::test]
async fn one_of_four_workers_that_dies_is_followed_by_another_node() {
    let (n1, n2) = (workers().await, Node::web("n2").await);
    let balancer = balancer(RESUME, &[&n1.node, &n2]);
    let mut sockets = clients(&balancer, 12).await;
    n1.dies.send(Some(0)).unwrap();
    balancer
        .backend_until("nodes", "n1", |node| node["live"] == 9)
        .await;
    let mut moved = 0;
    for socket in &mut sockets {
        moved += usize::from(node_of(socket).await == "n2");
    }
    assert_eq!(moved, 3);
    assert_eq!(
        note(&n2).as_deref(),
        Some("count=1; from=\"n1\"; lost=unknown")
    );
}

/// What the documentation says of it: nothing tells a heartbeat's sweep from a worker that dies.
#[tokio::test]
async fn a_sweep_that_ends_many_at_once_is_taken_for_a_loss() {
    let (n1, n2) = (workers().await, Node::web("n2").await);
    let balancer = balancer(RESUME, &[&n1.node, &n2]);
    let mut sockets = clients(&balancer, 6).await;
    for socket in &mut sockets[..4] {
        socket.send(Message::text("kick")).await.unwrap();
    }
    gone_to(&balancer, "n1", 2).await;
    for (number, socket) in sockets.iter_mut().enumerate() {
        let expected = if number < 4 { "n2" } else { "n1" };
        assert_eq!(node_of(socket).await, expected);
    }
}

async fn gone_to(balancer: &Balancer, name: &str, live: u64) {
    balancer
        .backend_until("nodes", name, |node| node["live"] == live)
        .await;
}

#[tokio::test]
async fn an_end_on_a_node_that_is_drained_is_a_loss_unless_drains_are_none() {
    for (losses, resumes) in [("drain", true), ("close_code", false)] {
        let (n1, n2) = (workers().await, Node::web("n2").await);
        let keys = format!("resume = {{ on = [\"{losses}\"] }}");
        let balancer = balancer(&keys, &[&n1.node, &n2]);
        let mut sockets = clients(&balancer, 1).await;
        operate(&balancer, "n1", "drain").await;
        sockets[0].send(Message::text("kick")).await.unwrap();
        if resumes {
            gone(&balancer, "n1").await;
            assert_eq!(node_of(&mut sockets[0]).await, "n2");
        } else {
            ends_without_a_close(&mut sockets[0]).await;
        }
    }
}

#[tokio::test]
async fn without_drains_among_the_losses_a_drain_ends_sessions_and_a_close_code_moves_them() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        while let Some(Ok(message)) = socket.next().await {
            if message == Message::text("go") {
                let (code, reason) = (1012.into(), "".into());
                let _ = socket.close(Some(CloseFrame { code, reason })).await;
            } else if message.is_text() {
                let _ = socket.send(Message::text("n1:who")).await;
            }
        }
    })
    .await;
    let n2 = Node::web("n2").await;
    let keys = "resume = { on = [\"close_code\"] }";
    let balancer = balancer(keys, &[&n1, &n2]);
    let mut sockets = clients(&balancer, 2).await;
    sockets[0].send(Message::text("go")).await.unwrap();
    gone_to(&balancer, "n1", 1).await;
    assert_eq!(node_of(&mut sockets[0]).await, "n2");
    let drain = r#"{"rate": "100/s"}"#;
    let path = "/api/v1/pools/nodes/backends/n1/drain";
    assert_eq!(balancer.post(path, drain).await.status, 200);
    assert_eq!(close_of(&mut sockets[1]).await, Some(1012));
}

/// A node that says 1012 by itself, where that is not among the losses.
#[tokio::test]
async fn a_close_that_is_no_loss_is_the_client_s() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        let _ = socket.next().await;
        let (code, reason) = (1012.into(), "".into());
        let _ = socket.close(Some(CloseFrame { code, reason })).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let balancer = balancer("resume = { on = [\"burst\"] }", &[&n1]);
    let mut socket = websocket(balancer.address("main").await, "/").await;
    socket.send(Message::text("go")).await.unwrap();
    assert_eq!(close_of(&mut socket).await, Some(1012));
}

#[tokio::test]
async fn an_end_on_a_node_whose_check_is_down_is_a_loss() {
    let (healthy, health) = watch::channel(true);
    let n1 = Node::scripted(move |mut stream, _| {
        let health = health.clone();
        async move {
            let mut buffer = Vec::new();
            let Some(request) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            let Some(key) = request.header("sec-websocket-key") else {
                let status = if *health.borrow() {
                    "200 OK"
                } else {
                    "500 Ill"
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                return;
            };
            let _ = stream.write_all(switching(key).as_bytes()).await;
            let _ = stream.write_all(b"\x81\x06n1:who").await;
            // One more message ends it.
            for _ in 0..2 {
                let mut one = [0; 9];
                let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut one).await;
            }
            end(stream).await;
        }
    })
    .await;
    let n2 = Node::web("n2").await;
    let check = "check = { type = \"http\", path = \"/health\", interval = \"100ms\" }";
    let balancer = balancer(&format!("{RESUME}\n{check}"), &[&n1, &n2]);
    let mut sockets = clients(&balancer, 1).await;
    healthy.send(false).unwrap();
    balancer
        .backend_until("nodes", "n1", |node| node["state"] == "down")
        .await;
    sockets[0].send(Message::text("end")).await.unwrap();
    gone(&balancer, "n1").await;
    assert_eq!(node_of(&mut sockets[0]).await, "n2");
}

/// Fifty clients of such a node made a handshake a second each, for ever.
#[tokio::test]
async fn a_session_changes_its_node_so_often_and_no_more() {
    let n1 = Node::scripted(|stream, _| async {
        let (mut socket, _) = upgraded(stream, "").await;
        let (code, reason) = (1012.into(), "".into());
        let _ = socket.close(Some(CloseFrame { code, reason })).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let keys = "resume = { timeout = \"10m\", max = \"3/h\" }";
    let balancer = balancer(keys, &[&n1]);
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(close_of(&mut socket).await, Some(1012));
    assert_eq!(n1.accepted(), 4, "the first one, and three more");
    assert_eq!(not_resumed(&balancer).await as u64, 1);
}

/// A rolling restart has its own pace.
#[tokio::test]
async fn moves_of_the_operator_are_not_counted() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = balancer("resume = { max = \"1/h\" }", &[&n1, &n2]);
    let mut sockets = clients(&balancer, 1).await;
    for (from, to) in [("n1", "n2"), ("n2", "n1"), ("n1", "n2")] {
        let path = format!("/api/v1/pools/nodes/backends/{from}/drain");
        let answer = balancer.post(&path, r#"{"rate": "100/s"}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        gone(&balancer, from).await;
        assert_eq!(node_of(&mut sockets[0]).await, to);
        operate(&balancer, from, "ready").await;
    }
}

/// What the client says while its backend is in doubt is the next one's.
#[tokio::test]
async fn what_is_said_in_doubt_goes_to_the_next_node() {
    let (mut n1, n2) = (workers().await, Node::web("n2").await);
    let keys = "resume = { settle = \"10s\", on = [\"burst\"] }";
    let balancer = balancer(keys, &[&n1.node, &n2]);
    let mut sockets = clients(&balancer, 12).await;
    // The sessions of worker 0: two are kicked, and the third one's end makes three.
    for number in [0, 4] {
        sockets[number].send(Message::text("kick")).await.unwrap();
    }
    within("two ends", n1.ended.wait_for(|ended| *ended == 2))
        .await
        .unwrap();
    for number in [0, 4] {
        sockets[number].send(Message::text("more")).await.unwrap();
    }
    // Nothing tells of a session in doubt; those that are not go on.
    assert_eq!(ask(&mut sockets[1], "on").await, "n1:on");
    n1.dies.send(Some(0)).unwrap();
    for number in [0, 4] {
        let answer = within("an answer", sockets[number].next()).await;
        assert_eq!(answer.unwrap().unwrap(), Message::text("n2:more"));
    }
}

/// Ends all sessions by a filter, with a Close of its own.
async fn close_all(balancer: &Balancer) {
    let admin = balancer.address("admin").await.to_string();
    let words = [
        "close",
        "--admin",
        &admin,
        "--listener",
        "main",
        "--code",
        "4001",
    ];
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn who_is_between_two_nodes_is_ended_by_a_filter_too() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = balancer("resume = { on = [\"eof\"] }", &[&n1, &n2]);
    let mut sockets = clients(&balancer, 3).await;
    n2.kill().await;
    n1.kill().await;
    let is_gone = |backend: &serde_json::Value| backend["live"] == 0;
    balancer.backend_until("nodes", "n1", is_gone).await;
    close_all(&balancer).await;
    for socket in &mut sockets {
        assert_eq!(close_of(socket).await, Some(4001));
    }
}

#[tokio::test]
async fn who_was_kicked_and_is_held_is_ended_by_a_filter_too() {
    let (mut n1, n2) = (workers().await, Node::web("n2").await);
    // Longer than anything here takes.
    let keys = "resume = { settle = \"10s\", on = [\"burst\"] }";
    let balancer = balancer(keys, &[&n1.node, &n2]);
    let mut sockets = clients(&balancer, 1).await;
    let kick = Message::text("kick");
    sockets[0].send(kick).await.unwrap();
    let is_kicked = n1.ended.wait_for(|ended| *ended == 1);
    within("the kick", is_kicked).await.unwrap();
    close_all(&balancer).await;
    assert_eq!(close_of(&mut sockets[0]).await, Some(4001));
}
