//! The bound of the process's memory: new clients are refused, those that live go on, and when there
//! is room again all are served.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clients::{http, read_to_ending};
use crate::harness::{Balancer, PATIENCE, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

/// Of what each client leaves behind: the most of a head that is held.
const HEAD_BYTES: usize = 15 * 1024;
/// What the process may take beside what it takes at rest.
const ROOM_BYTES: u64 = 12 << 20;
const MOST_CLIENTS: usize = 4_000;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.expect("RssAnon").parse::<u64>().expect("a number") * 1024
}

async fn refused(balancer: &Balancer) -> f64 {
    let name = "evenkeel_listener_refused_connections_total";
    balancer.metric(&[name, "reason=\"max_memory\""]).await
}

/// Whether a client is served; a reset may come at any time.
async fn is_served(address: std::net::SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(GET.as_bytes()).await?;
        let (bytes, _) = read_to_ending(&mut stream).await;
        std::io::Result::Ok(bytes.starts_with(b"HTTP/1.1 200"))
    };
    within("an answer or an end", asked).await.unwrap_or(false)
}

#[tokio::test]
async fn above_max_memory_new_clients_are_refused_until_there_is_room() {
    let node = Node::web("n1").await;
    let text = |keys: &str| {
        format!("[global]\nlog_format = \"json\"\nwatch = false\n{keys}\n\n")
            + &listener_with("main", "websocket", "nodes", "handshake_timeout = \"1h\"")
            + &pool("nodes", "", &[backend("n1", node.address)])
    };
    let balancer = Balancer::start(&text(""));
    let address = balancer.address("main").await;
    assert_eq!(http(address, GET).await.status, 200);
    let bound = anonymous_bytes(balancer.pid()) + ROOM_BYTES;
    let bounded = text(&format!("max_memory = \"{bound}B\""));
    balancer.reload(&bounded).await;
    let mut live = crate::clients::websocket(address, "/").await;
    assert_eq!(crate::clients::ask(&mut live, "a").await, "n1:a");

    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(HEAD_BYTES));
    let mut held = Vec::new();
    while refused(&balancer).await == 0.0 {
        assert!(held.len() < MOST_CLIENTS, "nobody is refused");
        for _ in 0..20 {
            // The reset of a refusal may come before the connect is over here.
            let Ok(mut stream) = TcpStream::connect(address).await else {
                break;
            };
            let _ = stream.write_all(head.as_bytes()).await;
            held.push(stream);
        }
    }
    // What lives goes on, and the operator is served.
    assert_eq!(crate::clients::ask(&mut live, "b").await, "n1:b");
    assert_eq!(balancer.get("/api/v1/status").await.status, 200);
    assert_eq!(balancer.get("/readyz").await.status, 503);
    let admin = balancer.address("admin").await.to_string();
    let (_, table, _) = balancer.command(&["status", "--admin", &admin]).await;
    let line = table
        .lines()
        .find(|line| line.starts_with("new connections are refused: memory "));
    let line = line.unwrap_or_else(|| panic!("the head does not say so: {table}"));
    assert!(
        line.contains("MiB of ") && line.ends_with(", max_memory"),
        "{line}"
    );
    assert!(table.contains("(max_memory)"), "{table}");
    balancer.reload(&bounded.replace("1h", "59m")).await;
    let told = |event: &crate::harness::Event| event.field("limit") == Some("max_memory");
    let told = balancer.event("the limit to be told of", 0, told).await;
    assert!(told.field("used").is_some_and(|used| used.ends_with("MiB")));
    assert!(told.field("max_memory").is_some());

    drop(held);
    let emptied = async {
        while !is_served(address).await {
            a_moment().await;
        }
    };
    let served = tokio::time::timeout(PATIENCE, emptied).await;
    assert!(
        served.is_ok(),
        "{} of {bound} bytes are still taken",
        anonymous_bytes(balancer.pid())
    );
    let over =
        |event: &crate::harness::Event| event.message().starts_with("memory is short no more");
    balancer.event("the end to be told of", 0, over).await;
    assert_eq!(balancer.get("/readyz").await.status, 200);
}
