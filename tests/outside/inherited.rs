//! Sockets that a service manager passes (LISTEN_FDS): who takes them, who is named, and what a reload does to them.
//!
//! The test is the manager. A shell moves the socket from standard input to the numbers of sd_listen_fds(3).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::clients::{connect, echoed, greeted, read_line};
use crate::harness::{Balancer, Event, Launch, complete};
use crate::nodes::Node;
use crate::settings::{backend, pool};

/// Moves the socket to 3, as the only one.
const ONE: &str = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web";

fn listener_at(name: &str, bind: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\nprotocol = \"tcp\"\npool = \"nodes\"\n"
    )
}

fn nodes(node: &Node) -> String {
    pool("nodes", "", &[backend("n1", node.address)])
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket to pass");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

fn passing(setup: &str, socket: &TcpListener, config: &str) -> Balancer {
    let passed = OwnedFd::from(socket.try_clone().expect("another descriptor"));
    Launch::new().after(setup).on_stdin(passed).start(config)
}

/// How many descriptors of the balancer are this socket.
fn descriptors_of(balancer: &Balancer, socket: &TcpListener) -> usize {
    let own = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let wanted = std::fs::read_link(own).expect("an open socket");
    let open = std::fs::read_dir(format!("/proc/{}/fd", balancer.pid())).expect("its descriptors");
    open.flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|link| *link == wanted)
        .count()
}

#[tokio::test]
async fn a_listener_takes_the_socket_of_its_address_and_those_who_wait_there() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    // Before there is a balancer: the manager's socket queues it.
    let mut early = connect(address).await;
    let config = listener_at("main", &address.to_string()) + &nodes(&node);
    let balancer = passing(ONE, &socket, &config);
    assert_eq!(balancer.address("main").await, address);
    assert_eq!(read_line(&mut early).await.expect("a greeting"), "n1");
    echoed(&mut early, b"hello").await;
    greeted(address).await;
}

#[tokio::test]
async fn reloads_keep_an_inherited_socket_and_give_it_back_to_a_listener_that_returns() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let with = |name: &str, keys: &str| {
        listener_at("other", "127.0.0.1:0")
            + &listener_at(name, &address.to_string())
            + &format!("{keys}\n")
            + &nodes(&node)
    };
    let balancer = passing(ONE, &socket, &with("main", ""));
    balancer.reload(&with("main", "max_connections = 9")).await;
    greeted(address).await;
    balancer.reload(&with("renamed", "")).await;
    greeted(address).await;
    let from = balancer.log.position();
    let without = listener_at("other", "127.0.0.1:0") + &nodes(&node);
    balancer.reload(&without).await;
    let warned = |event: &Event| event.message().contains("holds the inherited socket open");
    let event = balancer.event("the warning", from, warned).await;
    assert_eq!(event.field("listener"), Some("renamed"));
    let mut waiting = connect(address).await;
    let text = complete(&with("back", ""));
    let body = serde_json::json!({ "configuration": text }).to_string();
    let plan = balancer.post("/api/v1/plan", &body).await;
    assert_eq!(
        plan.json()["refusals"],
        serde_json::json!([]),
        "{}",
        plan.body
    );
    balancer.reload(&with("back", "")).await;
    assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
    greeted(address).await;
}

#[tokio::test]
async fn descriptors_that_no_listener_takes_are_named_and_closed() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let config = listener_at("main", "127.0.0.1:0") + &nodes(&node);
    let setup = "exec 3<&0 4</dev/null 0</dev/null; \
                 export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=web:file:gone";
    let balancer = passing(setup, &socket, &config);
    balancer.address("main").await;
    let named = async |descriptor: u64| {
        let is_it = |event: &Event| event.number("descriptor") == Some(descriptor);
        balancer.event("the line of a descriptor", 0, is_it).await
    };
    let unused = named(3).await;
    assert_eq!(unused.level(), "WARN");
    assert_eq!(unused.field("name"), Some("web"));
    assert_eq!(unused.field("address"), Some(&*address.to_string()));
    let no_socket = named(4).await;
    assert_eq!(no_socket.field("name"), Some("file"));
    assert_eq!(no_socket.field("why"), Some("it is no socket"));
    assert_eq!(named(5).await.field("why"), Some("it is not open"));
    assert_eq!(descriptors_of(&balancer, &socket), 0);
}

#[tokio::test]
async fn the_second_socket_of_one_address_is_closed() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let config = listener_at("main", &address.to_string()) + &nodes(&node);
    let setup = "exec 3<&0 4<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=2";
    let balancer = passing(setup, &socket, &config);
    greeted(address).await;
    let is_it = |event: &Event| event.number("descriptor") == Some(4);
    let event = balancer.event("the second", 0, is_it).await;
    assert!(event.message().starts_with("inherited socket closed"));
}

#[tokio::test]
async fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let config = listener_at("main", &address.to_string()) + &nodes(&node);
    let setup = "exec 3<&0 0</dev/null; export LISTEN_PID=1 LISTEN_FDS=1";
    let balancer = passing(setup, &socket, &config);
    assert_eq!(balancer.exit().await.code(), Some(1));
    let log = balancer.log.all().join("\n");
    assert!(log.contains("address in use"), "{log}");
}

#[tokio::test]
async fn an_inherited_unix_socket_keeps_its_file() {
    let node = Node::echo("n1").await;
    let launch = Launch::new().after(ONE);
    let path = launch.path("front.sock");
    let socket = UnixListener::bind(&path).expect("a socket to pass");
    let bind = format!("unix:{}", path.display());
    let config = listener_at("main", &bind) + &nodes(&node);
    let balancer = launch.on_stdin(OwnedFd::from(socket)).start(&config);
    let mut stream = tokio::net::UnixStream::connect(&path)
        .await
        .expect("connect");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    drop(stream);
    balancer.signal("TERM");
    balancer.exit().await;
    assert!(path.exists(), "it is the manager's");
}

#[tokio::test]
async fn the_admin_endpoint_takes_an_inherited_socket_too() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let admin = format!("\n[admin]\nbind = \"{address}\"\n");
    let config = listener_at("main", "127.0.0.1:0") + &nodes(&node) + &admin;
    let balancer = passing(ONE, &socket, &config);
    assert_eq!(balancer.get("/readyz").await.status, 200);
    assert!(descriptors_of(&balancer, &socket) > 0);
}

/// The socket would stay open in the manager, and get clients that nobody accepts.
#[tokio::test]
async fn an_address_that_overlaps_an_inherited_socket_is_refused() {
    let node = Node::echo("n1").await;
    let (socket, address) = socket();
    let config = listener_at("main", &address.to_string()) + &nodes(&node);
    let balancer = passing(ONE, &socket, &config);
    greeted(address).await;
    let wide = format!("0.0.0.0:{}", address.port());
    let answer = balancer
        .try_reload(&(listener_at("main", &wide) + &nodes(&node)))
        .await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    let why = format!("it overlaps with the inherited socket {address}");
    assert!(answer.body.contains(&why), "{}", answer.body);
    greeted(address).await;
}
