//! Silent connections in set-up: when places run short they leave theirs to others, and lock nobody
//! out. Clients are told apart by their loopback address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::certificates::{Certificate, client};
use crate::clients::{http_on, read_line, read_to_ending};
use crate::harness::{Balancer, Event, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

const PLACES: usize = 12;
/// No deadline frees a place in time.
const PATIENT: &str = "handshake_timeout = \"1h\"";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection from 127.0.0.`number`.
async fn from(number: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
    socket.bind(SocketAddr::new(ip, 0)).expect("bind");
    within("a connection", socket.connect(address))
        .await
        .expect("connect")
}

/// More connections from 127.0.0.1 than there are places, each with `said`.
async fn flood(address: SocketAddr, said: &[u8]) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..2 * PLACES {
        let mut stream = from(1, address).await;
        // One that has left its place may be closed by now.
        let _ = stream.write_all(said).await;
        silent.push(stream);
    }
    silent
}

/// Of the one listener, a limit of the process by its key.
fn limited(limit: &str, listener: &str, pool: &str) -> String {
    format!(
        "[global]\nlog_format = \"json\"\nwatch = false\n{limit} = {PLACES}\n\n{listener}{pool}"
    )
}

async fn refused(balancer: &Balancer) -> f64 {
    let name = "evenkeel_listener_refused_connections_total";
    balancer.metric(&[name, "reason=\"silent\""]).await
}

async fn status(stream: &mut TcpStream) -> u16 {
    http_on(stream, GET).await.status
}

#[tokio::test]
async fn silent_connections_of_one_source_leave_their_places_to_another() {
    let node = Node::web("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    for (limit, said) in [
        ("max_setup_connections", ""),
        ("max_setup_connections", "GET / HTTP/1.1\r\nHost"),
        ("max_connections", ""),
    ] {
        let web = listener_with("main", "websocket", "nodes", PATIENT);
        let balancer = Balancer::start(&limited(limit, &web, &nodes));
        let address = balancer.address("main").await;
        // Of a source that holds little: it stays, though it is the oldest.
        let mut third = from(3, address).await;
        let silent = flood(address, said.as_bytes()).await;
        assert_eq!(status(&mut from(2, address).await).await, 200);
        assert!(refused(&balancer).await >= 1.0);
        let told = |event: &Event| event.message().starts_with("silent connections leave");
        let told = balancer.event("silence to be told of", 0, told).await;
        assert_eq!(told.field("limit"), Some(limit));
        let admin = balancer.address("admin").await.to_string();
        let (_, table, _) = balancer.command(&["status", "--admin", &admin]).await;
        assert!(table.contains(" (silent)"), "{table}");
        assert_eq!(status(&mut third).await, 200);
        let mut oldest = silent.into_iter().next().expect("the first");
        let (answer, _) = read_to_ending(&mut oldest).await;
        assert_eq!(answer, b"", "it was answered");
    }
}

#[tokio::test]
async fn silence_before_a_proxy_header_and_behind_it_leaves_its_place() {
    let node = Node::echo("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let keys = format!("{PATIENT}\naccept_proxy = true\ntrusted = [\"127.0.0.0/8\"]");
    let raw = listener_with("main", "tcp", "nodes", &keys);
    let balancer = Balancer::start(&limited("max_setup_connections", &raw, &nodes));
    let address = balancer.address("main").await;
    let _silent = flood(address, b"").await;
    let mut other = from(2, address).await;
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    other.write_all(header).await.expect("write");
    assert_eq!(read_line(&mut other).await.expect("a greeting"), "n1");
    drop(balancer);

    // The announced client counts, not who announces it.
    let node = Node::web("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let web = listener_with("main", "websocket", "nodes", &keys);
    let balancer = Balancer::start(&limited("max_setup_connections", &web, &nodes));
    let address = balancer.address("main").await;
    let mut third = from(1, address).await;
    let announced = b"PROXY TCP4 192.0.2.3 192.0.2.2 1 2\r\n";
    third.write_all(announced).await.expect("write");
    let _silent = flood(address, header).await;
    let mut other = from(1, address).await;
    let announced = b"PROXY TCP4 192.0.2.9 192.0.2.2 1 2\r\n";
    other.write_all(announced).await.expect("write");
    assert_eq!(status(&mut other).await, 200);
    assert_eq!(status(&mut third).await, 200);
}

#[tokio::test]
async fn silence_before_and_within_a_handshake_leaves_its_place() {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let node = Node::echo("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let tls = certificate.toml();
    let keys = format!("{PATIENT}\ntls = {{ certificates = [{tls}] }}");
    let raw = listener_with("main", "tcp", "nodes", &keys);
    let balancer = launch.start(&limited("max_setup_connections", &raw, &nodes));
    let address = balancer.address("main").await;
    // A record's head, and no more.
    for said in [&b""[..], b"\x16\x03\x01\x01\x00"] {
        let _silent = flood(address, said).await;
        let connector = TlsConnector::from(client(&[&certificate]));
        let name = "a.example".try_into().expect("a name");
        let stream = from(2, address).await;
        let shaken = within("a handshake", connector.connect(name, stream)).await;
        let mut stream = shaken.expect("a handshake");
        assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    }
}
