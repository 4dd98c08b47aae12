//! What a node is asked and told beside its clients' own words: a ping when its check has failed, and its own name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::clients::{ask, connect, http_on, node_of, websocket};
use crate::harness::{Balancer, within};
use crate::nodes::{Node, read_request, switching};
use crate::settings::simple;

/// A node whose checks pass while `is_well`, whose sessions at `/dead` hear nothing, and whose others count their pings.
#[derive(Default)]
struct Ward {
    is_ill: AtomicBool,
    pings: AtomicUsize,
}

async fn serve(mut stream: TcpStream, ward: Arc<Ward>) {
    let mut read = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut read).await {
        let Some(key) = request.header("sec-websocket-key") else {
            let status = match ward.is_ill.load(Ordering::SeqCst) {
                true => "503 Service Unavailable",
                false => "200 OK",
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        };
        let answer = switching(key);
        stream.write_all(answer.as_bytes()).await.expect("answer");
        if request.target == "/dead" {
            // It stays, and says nothing.
            return std::future::pending().await;
        }
        let mut socket =
            WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Ping(_) => {
                    ward.pings.fetch_add(1, Ordering::SeqCst);
                }
                Message::Text(text) => {
                    let _ = socket.send(Message::Text(text)).await;
                }
                _ => {}
            }
        }
        return;
    }
}

/// Nobody found out that such a session was dead, or all backends were pinged all the time.
#[tokio::test]
async fn sessions_of_a_node_whose_check_fails_are_pinged_once() {
    let ward = Arc::new(Ward::default());
    let serving = Arc::clone(&ward);
    let node = Node::scripted(move |stream, _| serve(stream, Arc::clone(&serving))).await;
    let keys = "ping = { interval = \"1h\", timeout = \"2s\" }\n\
                check = { type = \"http\", interval = \"100ms\", timeout = \"5s\", fall = 1 }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&node]));
    balancer
        .backend_until("nodes", "n1", |node| node["check"] == "up")
        .await;
    let mut alive = websocket(balancer.address("main").await, "/alive").await;
    let mut dead = websocket(balancer.address("main").await, "/dead").await;
    assert_eq!(ask(&mut alive, "before").await, "before");
    assert_eq!(ward.pings.load(Ordering::SeqCst), 0);
    ward.is_ill.store(true, Ordering::SeqCst);
    let said = within("the end of the dead session", async {
        match dead.next().await {
            Some(Ok(Message::Close(Some(close)))) => u16::from(close.code),
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(said, 1011);
    // The one that answers goes on, with nothing of it to be seen at its client.
    assert_eq!(ask(&mut alive, "after").await, "after");
    assert_eq!(ward.pings.load(Ordering::SeqCst), 1);
}

fn names(node: &Node) -> Vec<String> {
    let heads = node.heads.lock().unwrap();
    let latest = heads.last().expect("a request").clone();
    let fields = latest.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| name.replace('_', "-").eq_ignore_ascii_case("x-backend"))
        .map(|(name, value)| format!("{name}:{value}"))
        .collect()
}

#[tokio::test]
async fn a_node_is_told_its_own_name_and_no_forged_one() {
    let (one, two) = (Node::web("n1").await, Node::web("n2").await);
    let keys = "name_header = \"X-Backend\"\nresume = {}\nbalance = \"least_conn\"";
    let balancer = Balancer::start(&simple("websocket", keys, &[&one, &two]));
    let address = balancer.address("main").await;
    let mut stream = connect(address).await;
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Backend: evil\r\nX_Backend: evil\r\n\r\n";
    let answer = http_on(&mut stream, forged).await;
    assert_eq!(answer.status, 200);
    let asked = [&one, &two].map(|node| node.heads.lock().unwrap().len());
    let (first, name) = if asked[0] > 0 {
        (&one, "n1")
    } else {
        (&two, "n2")
    };
    assert_eq!(names(first), [format!("X-Backend: {name}")]);
    // A session is told the name of the node that it is with: another one after a move.
    let mut socket = websocket(address, "/").await;
    let before = node_of(&mut socket).await;
    let (holder, other) = match &*before {
        "n1" => (&one, &two),
        _ => (&two, &one),
    };
    assert_eq!(names(holder), [format!("X-Backend: {before}")]);
    let moving = balancer
        .post(
            "/api/v1/connections/move",
            "{\"filter\":{\"pool\":\"nodes\"}}",
        )
        .await;
    assert!(moving.status < 300, "{}", moving.body);
    balancer
        .backend_until("nodes", &before, |node| node["live"] == 0)
        .await;
    let after = node_of(&mut socket).await;
    assert_ne!(after, before);
    assert_eq!(names(other), [format!("X-Backend: {after}")]);
}
