//! Nodes that do not answer a connect, or not each one: a network that drops packets, a full accept
//! queue. A filter on the listening socket drops the SYNs, which takes neither root nor a namespace.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use socket2::{SockFilter, SockRef};
use tokio::io::AsyncWriteExt as _;

use crate::clients::{connect, echoed, greeted, node_of, read_line, websocket};
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::{Node, echo};
use crate::settings::{backend, backend_with, listener, pool};

/// A connect that goes on for so long ends no test.
const PATIENT: &str = "connect_timeout = \"10m\"";

/// An echo node that takes no SYN, or loses some.
struct Silent {
    listener: TcpListener,
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Silent {
    /// Loses so many SYNs of a thousand.
    fn losing(permille: u32) -> Silent {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("for tokio");
        let silent = Silent {
            listener: listener.try_clone().expect("a second descriptor"),
            address,
            accepted: Arc::default(),
        };
        silent.lose(permille);
        let accepted = silent.accepted.clone();
        let listener = tokio::net::TcpListener::from_std(listener).expect("for tokio");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if stream.write_all(b"silent\n").await.is_ok() {
                        echo(stream).await;
                    }
                });
            }
        });
        silent
    }

    fn lose(&self, permille: u32) {
        const LOAD_BYTE: u16 = 0x30;
        const LOAD_WORD: u16 = 0x20;
        const IF_BIT: u16 = 0x45;
        const IF_ABOVE: u16 = 0x25;
        const RETURN: u16 = 0x06;
        const RANDOM: u32 = 0xffff_f000 + 56;
        const SYN: u32 = 2;
        let highest_lost = u64::from(u32::MAX) * u64::from(permille) / 1000;
        // Of the TCP header: its flags. Then a random number.
        let filter = [
            SockFilter::new(LOAD_BYTE, 0, 0, 13),
            SockFilter::new(IF_BIT, 0, 3, SYN),
            SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
            SockFilter::new(IF_ABOVE, 1, 0, highest_lost as u32),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        let socket = SockRef::from(&self.listener);
        socket.attach_filter(&filter).expect("attach a filter");
    }

    fn speaks(&self) {
        let socket = SockRef::from(&self.listener);
        socket.detach_filter().expect("detach the filter");
    }

    /// Connects to it whose SYN has no answer yet.
    fn unanswered(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        let port = format!(":{:04X}", self.address.port());
        let is_one = |line: &&str| {
            let mut words = line.split_whitespace().skip(2);
            let to = words.next().is_some_and(|remote| remote.ends_with(&port));
            to && words.next() == Some("02")
        };
        table.lines().filter(is_one).count()
    }

    async fn unanswered_until(&self, wanted: impl Fn(usize) -> bool) {
        let asked = async {
            while !wanted(self.unanswered()) {
                a_moment().await;
            }
        };
        within("connects that wait", asked).await;
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn count(backend: &Value, name: &str) -> u64 {
    backend[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {backend}"))
}

#[tokio::test]
async fn clients_of_a_silent_node_are_served_elsewhere_and_it_is_ejected() {
    for keys in ["", "send_proxy = \"v1\""] {
        let (silent, good) = (Silent::losing(1000), Node::scripted(skipping_header).await);
        let backends = [backend("n1", silent.address), backend("n2", good.address)];
        let keys = format!("{PATIENT}\n{keys}");
        let config = listener("main", "tcp", "nodes") + &pool("nodes", &keys, &backends);
        let balancer = Balancer::start(&config);
        let address = balancer.address("main").await;
        // More than eject it, and each is at one of the two.
        let served = join_all((0..12).map(|_| async move {
            let mut stream = connect(address).await;
            stream.write_all(b"PROXY\r\n").await.expect("write");
            read_line(&mut stream).await.expect("a greeting")
        }));
        let names = within("everybody to be served", served).await;
        assert!(names.iter().all(|name| name == "n2"), "{names:?}");
        let ejected = |event: &crate::harness::Event| event.field("to") == Some("ejected");
        balancer.event("the ejection", 0, ejected).await;
        // Who was sent elsewhere left nothing behind: the next one to come is the first.
        silent.unanswered_until(|count| count == 0).await;
        silent.speaks();
        let (_direct, name) = greeted(silent.address).await;
        assert_eq!((&*name, silent.accepted()), ("silent", 1));
    }
}

/// Greets behind the first line: the client's, or a PROXY header.
async fn skipping_header(mut stream: tokio::net::TcpStream, _: usize) {
    if read_line(&mut stream).await.is_ok() && stream.write_all(b"n2\n").await.is_ok() {
        echo(stream).await;
    }
}

#[tokio::test]
async fn websockets_of_a_silent_node_are_served_elsewhere() {
    let (silent, good) = (Silent::losing(1000), Node::web("n2").await);
    let backends = [backend("n1", silent.address), backend("n2", good.address)];
    let config = listener("main", "websocket", "nodes") + &pool("nodes", PATIENT, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let served = join_all((0..8).map(|_| async move {
        let mut socket = websocket(address, "/").await;
        node_of(&mut socket).await
    }));
    let names = within("everybody to be served", served).await;
    assert!(names.iter().all(|name| name == "n2"), "{names:?}");
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(count(&seen, "live"), 0);
}

/// The second SYN goes out so long after the first.
const SECOND_SYN: Duration = Duration::from_secs(1);

/// Clients whose connects to one of two nodes are answered with the second SYN. `None`: the machine was
/// too slow for that, which says nothing of the balancer.
async fn served_by_the_second_syn() -> Option<Value> {
    let (silent, other) = (Silent::losing(1000), Node::echo("n2").await);
    let backends = [backend("n1", silent.address), backend("n2", other.address)];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", PATIENT, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let begun = Instant::now();
    let served = tokio::spawn(join_all((0..12).map(|_| greeted(address))));
    let all_wait = |count| count == 6 || begun.elapsed() >= SECOND_SYN;
    silent.unanswered_until(all_wait).await;
    silent.speaks();
    let is_in_time = begun.elapsed() < SECOND_SYN;
    let served = within("everybody to be served", served)
        .await
        .expect("a task");
    let by_it = served.iter().filter(|(_, name)| name == "silent").count();
    assert!(!is_in_time || by_it == 6, "{by_it} of 6 have waited");
    let seen = balancer.backend("nodes", "n1").await;
    is_in_time.then_some(seen)
}

#[tokio::test]
async fn a_node_that_answers_the_second_syn_is_not_ejected() {
    let seen = loop {
        if let Some(seen) = served_by_the_second_syn().await {
            break seen;
        }
    };
    let counted = count(&seen, "connect_failures") + count(&seen, "ejections");
    assert_eq!((&seen["state"], counted), (&"up".into(), 0));
}

#[tokio::test]
async fn lost_syns_eject_nobody() {
    let (lossy, worse) = (Silent::losing(10), Silent::losing(50));
    let backends = [backend("n1", lossy.address), backend("n2", worse.address)];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", PATIENT, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    // In rows: at times few connects are under way that could speak for a node.
    let rows = join_all((0..20).map(|_| async move {
        for _ in 0..40 {
            let (mut stream, _) = greeted(address).await;
            echoed(&mut stream, b"x").await;
        }
    }));
    rows.await;
    for name in ["n1", "n2"] {
        let seen = balancer.backend("nodes", name).await;
        assert_eq!(count(&seen, "ejections"), 0, "{seen}");
    }
}

#[tokio::test]
async fn where_no_other_node_has_room_a_connect_goes_on() {
    let (silent, other) = (Silent::losing(1000), Node::echo("n2").await);
    let full = backend_with("n2", other.address, "max_connections = 1");
    let backends = [backend("n1", silent.address), full];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", PATIENT, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let waiting = tokio::spawn(join_all((0..4).map(|_| greeted(address))));
    // It is held against the node all the same.
    let ejected = |event: &crate::harness::Event| event.field("to") == Some("ejected");
    balancer.event("the ejection", 0, ejected).await;
    assert_eq!(silent.unanswered(), 3);
    silent.speaks();
    let served = within("everybody to be served", waiting)
        .await
        .expect("a task");
    let names: Vec<&str> = served.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "silent").count(), 3);
}

/// Its record once told of a panic.
#[tokio::test]
async fn a_websocket_that_waits_for_a_connect_at_a_stop_is_recorded_as_stopped() {
    let silent = Silent::losing(1000);
    let config = format!(
        "[global]\nlog_format = \"json\"\nwatch = false\nhard_stop_after = \"1s\"\n\n[access_log]\noutput = \"stdout\"\n\n{}{}",
        listener("main", "websocket", "nodes"),
        pool("nodes", PATIENT, &[backend("n1", silent.address)])
    );
    let balancer = Balancer::start(&config);
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(UPGRADE).await.expect("write");
    silent.unanswered_until(|count| count > 0).await;
    balancer.signal("TERM");
    let line = balancer.access("the request's line", |_| true).await;
    let end = &line["end"];
    assert_eq!(
        (&end["side"], &end["how"]),
        (&"evenkeel".into(), &"stop".into()),
        "{line}"
    );
}

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
