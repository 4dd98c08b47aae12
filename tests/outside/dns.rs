//! Backends from DNS, by a small name server of our own: followed by TTL, and never emptied by an error.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clients::{echoed, greeted};
use crate::harness::{Balancer, within};
use crate::nodes::Node;
use crate::settings::listener;

const A: u16 = 1;
pub const SRV: u16 = 33;

#[derive(Clone)]
pub enum Reply {
    /// Record data, one per record.
    Records(Vec<Vec<u8>>),
    /// An RCODE: 2 is SERVFAIL, 3 is NXDOMAIN.
    Error(u8),
    Silence,
}

type Zone = HashMap<(String, u16), Reply>;

/// A name server on loopback; what its zone does not hold does not exist.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl NameServer {
    pub async fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0")
            .await
            .expect("bind a name server");
        let address = socket.local_addr().expect("its address");
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let (count, asked) = watch::channel(0);
        let serving = zone.clone();
        let task = tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &serving.lock().unwrap());
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
                count.send_modify(|count| *count += 1);
            }
        });
        NameServer {
            address,
            zone,
            asked,
            task,
        }
    }

    pub fn set(&self, name: &str, kind: u16, reply: Reply) {
        self.zone
            .lock()
            .unwrap()
            .insert((name.to_owned(), kind), reply);
    }

    pub fn addresses(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.set(
            name,
            A,
            Reply::Records(
                addresses
                    .iter()
                    .map(|address| address.octets().to_vec())
                    .collect(),
            ),
        );
    }

    /// Waits until it was asked `count` more times.
    async fn asked(&self, count: usize) {
        let mut asked = self.asked.clone();
        let from = *asked.borrow();
        within("questions", asked.wait_for(|&seen| seen >= from + count))
            .await
            .expect("the name server lives");
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while let Some(&length @ 1..) = query.get(at) {
        let label = query.get(at + 1..at + 1 + usize::from(length))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + usize::from(length);
    }
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let question = query.get(12..at + 5)?;
    let name = labels.join(".");
    let known = zone.keys().any(|(known, _)| *known == name);
    let missing = if known {
        Reply::Records(Vec::new())
    } else {
        Reply::Error(3)
    };
    let (code, records) = match zone.get(&(name, kind)).cloned().unwrap_or(missing) {
        Reply::Records(records) => (0, records),
        Reply::Error(code) => (code, Vec::new()),
        Reply::Silence => return None,
    };
    let mut reply = query[..2].to_vec();
    reply.extend([0x84, code, 0, 1]);
    reply.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    reply.extend([0, 0, 0, 0]);
    reply.extend(question);
    for record in records {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        // Class IN, TTL 1 s.
        reply.extend([0, 1, 0, 0, 0, 1]);
        reply.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
        reply.extend(record);
    }
    Some(reply)
}

pub fn service(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let mut record = [
        priority.to_be_bytes(),
        weight.to_be_bytes(),
        port.to_be_bytes(),
    ]
    .concat();
    for label in target.split('.') {
        record.push(label.len() as u8);
        record.extend(label.as_bytes());
    }
    record.push(0);
    record
}

pub fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 5, last)
}

/// Nodes on one port of several loopback addresses, as DNS names them.
async fn nodes(count: u8) -> (Vec<Node>, u16) {
    loop {
        let first = Node::echo_at((ip(1), 0).into(), "n1").await;
        let port = first.address.port();
        let free = (2..=count).all(|last| std::net::TcpListener::bind((ip(last), port)).is_ok());
        if !free {
            continue;
        }
        let mut nodes = vec![first];
        for last in 2..=count {
            nodes.push(Node::echo_at((ip(last), port).into(), &format!("n{last}")).await);
        }
        return (nodes, port);
    }
}

fn discovering(source: &str, server: &NameServer) -> String {
    format!(
        "{}[pool.nodes]\ndiscover = {{ {source}, nameservers = [\"{}\"], min_ttl = \"200ms\", timeout = \"1s\" }}\n\n",
        listener("main", "tcp", "nodes"),
        server.address
    )
}

/// Connects until exactly `wanted` nodes are seen in one round of connections.
pub async fn until_served_by(address: SocketAddr, wanted: &[&str]) {
    within(&format!("{wanted:?} to serve"), async {
        loop {
            let mut seen: Vec<String> = Vec::new();
            for _ in 0..wanted.len() * 4 {
                let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
                    continue;
                };
                if let Ok(name) = crate::clients::read_line(&mut stream).await {
                    seen.push(name);
                }
            }
            seen.sort();
            seen.dedup();
            if seen == wanted {
                return;
            }
            crate::harness::a_moment().await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_address_of_a_name_is_a_backend_and_changes_are_followed() {
    let (_nodes, port) = nodes(3).await;
    let server = NameServer::start().await;
    server.addresses("chat.test", &[ip(1), ip(2)]);
    let balancer = Balancer::start(&discovering(
        &format!("dns = \"chat.test:{port}\""),
        &server,
    ));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2"]).await;
    let mut live = greeted(address).await;
    while live.1 != "n1" {
        live = greeted(address).await;
    }
    server.addresses("chat.test", &[ip(2), ip(3)]);
    until_served_by(address, &["n2", "n3"]).await;
    echoed(
        &mut live.0,
        b"a connection to an address that is gone from DNS goes on",
    )
    .await;
}

#[tokio::test]
async fn errors_and_empty_answers_keep_the_last_good_set() {
    let (_nodes, port) = nodes(2).await;
    let server = NameServer::start().await;
    server.addresses("chat.test", &[ip(1), ip(2)]);
    let balancer = Balancer::start(&discovering(
        &format!("dns = \"chat.test:{port}\""),
        &server,
    ));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2"]).await;
    for reply in [
        Reply::Error(2),
        Reply::Error(3),
        Reply::Records(Vec::new()),
        Reply::Silence,
    ] {
        server.set("chat.test", A, reply);
        server.asked(4).await;
        until_served_by(address, &["n1", "n2"]).await;
    }
    server.addresses("chat.test", &[ip(2)]);
    until_served_by(address, &["n2"]).await;
}

#[tokio::test]
async fn a_name_that_resolves_later_begins_to_serve_then() {
    let (_nodes, port) = nodes(1).await;
    let server = NameServer::start().await;
    let balancer = Balancer::start(&discovering(
        &format!("dns = \"chat.test:{port}\""),
        &server,
    ));
    let address = balancer.address("main").await;
    server.asked(2).await;
    assert_eq!(
        crate::clients::refused(address).await,
        (vec![], crate::clients::Ending::Rst)
    );
    server.addresses("chat.test", &[ip(1)]);
    until_served_by(address, &["n1"]).await;
}

#[tokio::test]
async fn services_give_ports_weights_and_backups() {
    let n1 = Node::echo("n1").await;
    let n2 = Node::echo("n2").await;
    let spare = Node::echo("spare").await;
    let server = NameServer::start().await;
    for name in ["one.test", "two.test", "spare.test"] {
        server.addresses(name, &[Ipv4Addr::LOCALHOST]);
    }
    server.set(
        "_ws._tcp.chat.test",
        SRV,
        Reply::Records(vec![
            service(10, 1, n1.address.port(), "one.test"),
            service(10, 3, n2.address.port(), "two.test"),
            service(20, 1, spare.address.port(), "spare.test"),
        ]),
    );
    let balancer = Balancer::start(&discovering(
        "srv = \"_ws._tcp.chat.test\", max_shrink = \"100%\"",
        &server,
    ));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2"]).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(greeted(address).await);
    }
    let second = held.iter().filter(|(_, name)| name == "n2").count();
    assert!(
        (29..=31).contains(&second),
        "{second} of 40 for a weight of 3 beside 1"
    );
    server.set(
        "_ws._tcp.chat.test",
        SRV,
        Reply::Records(vec![service(10, 1, spare.address.port(), "spare.test")]),
    );
    until_served_by(address, &["spare"]).await;
}

#[tokio::test]
async fn static_and_discovered_backends_live_side_by_side() {
    let (_nodes, port) = nodes(1).await;
    let fixed = Node::echo("fixed").await;
    let server = NameServer::start().await;
    server.addresses("chat.test", &[ip(1)]);
    let config = discovering(&format!("dns = \"chat.test:{port}\""), &server)
        + &format!(
            "backend = [{}]\n",
            crate::settings::backend("fixed", fixed.address)
        );
    let balancer = Balancer::start(&config);
    until_served_by(balancer.address("main").await, &["fixed", "n1"]).await;
}

#[tokio::test]
async fn a_backend_may_be_a_host_name() {
    let node = Node::echo("n1").await;
    let backends = [crate::settings::backend(
        "n1",
        format!("localhost:{}", node.address.port()),
    )];
    let config = listener("main", "tcp", "nodes") + &crate::settings::pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    until_served_by(balancer.address("main").await, &["n1"]).await;
}

#[tokio::test]
async fn a_reload_with_another_name_follows_it() {
    let (_nodes, port) = nodes(2).await;
    let server = NameServer::start().await;
    server.addresses("old.test", &[ip(1)]);
    server.addresses("new.test", &[ip(2)]);
    let balancer = Balancer::start(&discovering(&format!("dns = \"old.test:{port}\""), &server));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1"]).await;
    let (mut live, _) = greeted(address).await;
    balancer
        .reload(&discovering(&format!("dns = \"new.test:{port}\""), &server))
        .await;
    until_served_by(address, &["n2"]).await;
    echoed(&mut live, b"still here").await;
}
