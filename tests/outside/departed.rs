//! Clients that leave while their upgrade waits: their places are free at once, and no node is asked for them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::clients::{connect, read_to_ending, reset, websocket};
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::{Node, read_request};
use crate::settings::{backend, backend_with, listener, pool, simple};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Bytes behind the upgrade: none, some, and more than are read before there is a tunnel.
const BEHIND: [usize; 3] = [0, 100, 40_000];

/// A client that has asked for a tunnel, and does not read.
async fn asking(address: SocketAddr, behind: usize) -> TcpStream {
    let mut stream = connect(address).await;
    let mut bytes = UPGRADE.as_bytes().to_vec();
    bytes.resize(bytes.len() + behind, b'x');
    stream.write_all(&bytes).await.expect("write");
    stream
}

/// Half of them finish, half of them reset. What is given back keeps the sockets of those that finish.
async fn leave(clients: Vec<TcpStream>) -> Vec<TcpStream> {
    let mut finished = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        match number % 2 {
            0 => {
                client.shutdown().await.expect("a FIN");
                finished.push(client);
            }
            _ => reset(client),
        }
    }
    finished
}

async fn queue_is(balancer: &Balancer, count: u64) {
    within("the queue", async {
        loop {
            let pools = balancer.get("/api/v1/pools").await.json();
            if pools["pools"][0]["queued"] == count {
                return;
            }
            a_moment().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_that_left_the_queue_reaches_no_node() {
    let node = Node::web("n1").await;
    let backends = [backend_with("n1", node.address, "max_connections = 1")];
    let keys = "max_queue = 10\nqueue_timeout = \"10m\"";
    let config = "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener("main", "websocket", "nodes")
        + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let first = websocket(address, "/").await;
    let mut clients = Vec::new();
    for behind in BEHIND {
        clients.push(asking(address, behind).await);
        clients.push(asking(address, behind).await);
    }
    queue_is(&balancer, 6).await;
    let _finished = leave(clients).await;
    queue_is(&balancer, 0).await;
    drop(first);
    websocket(address, "/").await;
    assert_eq!(node.accepted(), 2, "a phantom was served");
    let line = |how: &'static str| {
        balancer.access("who has left", move |line| {
            let end = &line["end"];
            end["side"] == "client" && end["phase"] == "queue" && end["how"] == how
        })
    };
    line("fin").await;
    line("rst").await;
}

#[tokio::test]
async fn an_upgrade_that_left_before_its_101_leaves_its_node() {
    let (tell, mut ended) = mpsc::unbounded_channel();
    let node = Node::scripted(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            read_request(&mut stream, &mut Vec::new()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = tell.send(());
        }
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    let mut clients = Vec::new();
    for behind in BEHIND {
        clients.push(asking(address, behind).await);
        clients.push(asking(address, behind).await);
    }
    node.reached(6).await;
    let _finished = leave(clients).await;
    for _ in 0..6 {
        within("the end of a node's connection", ended.recv()).await;
    }
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
    assert_eq!(node.accepted(), 6);
}

/// A listening socket whose queue is full: a further connect is neither taken nor refused.
fn full() -> (socket2::Socket, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("bind");
    socket.listen(0).expect("listen");
    let address = socket.local_addr().expect("an address").as_socket();
    let address = address.expect("of IP");
    let patience = std::time::Duration::from_millis(200);
    let fill = || std::net::TcpStream::connect_timeout(&address, patience).ok();
    let filled = std::iter::from_fn(fill).take(16).collect();
    (socket, filled)
}

#[tokio::test]
async fn an_upgrade_that_left_before_the_connect_is_done_gives_it_up() {
    let (socket, _filled) = full();
    let address = socket.local_addr().expect("an address").as_socket();
    let backends = [backend("n1", address.expect("of IP"))];
    let keys = "connect_timeout = \"50s\"";
    let config = listener("main", "websocket", "nodes") + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut clients = Vec::new();
    for behind in BEHIND {
        clients.push(asking(address, behind).await);
        clients.push(asking(address, behind).await);
    }
    let live =
        |count: u64| balancer.backend_until("nodes", "n1", move |seen| seen["live"] == count);
    live(6).await;
    let _finished = leave(clients).await;
    live(0).await;
}

#[tokio::test]
async fn an_upgrade_with_a_fin_behind_it_reaches_no_node() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    // What was sent and the FIN are there together.
    balancer.halt().await;
    let mut clients = Vec::new();
    for behind in BEHIND {
        let mut stream = asking(address, behind).await;
        stream.shutdown().await.expect("a FIN");
        clients.push(stream);
    }
    balancer.signal("CONT");
    for mut stream in clients {
        let (answer, _) = read_to_ending(&mut stream).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(node.accepted(), 0);
}
