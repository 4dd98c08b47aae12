//! A backend that goes away: what was not yet sent anything is served by another, what was gets a RST, and it returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clients::{
    Ending, connect, echoed, greeted, http, read_line, read_to_ending, websocket,
};
use crate::harness::{Balancer, within};
use crate::nodes::{Node, read_request, switching};
use crate::settings::{backend, listener, pool, simple};

const CHECK: &str = "check = { type = \"tcp\", interval = \"100ms\", timeout = \"1s\", rise = 2, fall = 2 }\nretries = 3";

#[tokio::test]
async fn killing_one_of_three_under_traffic_loses_no_new_connection() {
    let n1 = Node::echo("n1").await;
    let n2 = Node::echo("n2").await;
    let n3 = Node::echo("n3").await;
    let balancer = Balancer::start(&simple("tcp", CHECK, &[&n1, &n2, &n3]));
    let address = balancer.address("main").await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut traffic = Vec::new();
    for _ in 0..4 {
        let (stop, served) = (stop.clone(), served.clone());
        traffic.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let mut stream = connect(address).await;
                match read_line(&mut stream).await {
                    Ok(name) => assert!(name.starts_with('n'), "{name}"),
                    Err(error) => panic!("a new connection was lost: {error}"),
                }
                served.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let until = async |count: usize| {
        let from = served.load(Ordering::SeqCst);
        while served.load(Ordering::SeqCst) < from + count {
            crate::harness::a_moment().await;
        }
    };
    until(100).await;
    let address_of_n2 = n2.address;
    let from = balancer.log.position();
    n2.kill().await;
    until(200).await;
    balancer
        .backend_until("nodes", "n2", |seen| {
            seen["state"] == "down" || seen["state"] == "ejected"
        })
        .await;
    until(50).await;
    let n2 = Node::echo_at(address_of_n2, "n2").await;
    balancer
        .backend_until("nodes", "n2", |seen| seen["state"] == "up")
        .await;
    n2.reached(10).await;
    stop.store(true, Ordering::SeqCst);
    for task in traffic {
        task.await.expect("no connection lost");
    }
    let event = balancer
        .event("the change of n2", from, |event| {
            event.field("backend") == Some("n2") && event.field("to").is_some_and(|to| to != "up")
        })
        .await;
    assert!(
        event
            .field("reason")
            .is_some_and(|reason| !reason.is_empty()),
        "{event:?}"
    );
}

/// Names itself to whoever has sent a line.
async fn silent(name: &'static str) -> Node {
    Node::scripted(move |mut stream, _| async move {
        while read_line(&mut stream)
            .await
            .is_ok_and(|line| !line.is_empty())
        {
            let answer = format!("{name}\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn answered(stream: &mut TcpStream) -> String {
    within("a send", stream.write_all(b"hello\n"))
        .await
        .expect("send");
    read_line(stream).await.expect("an answer")
}

/// The nodes' processes are balancers, each before one node: what the kernel does for a killed process is real.
#[tokio::test]
async fn of_a_killed_process_what_was_sent_nothing_is_served_by_another() {
    const EACH: usize = 10;
    let nodes = [silent("n1").await, silent("n2").await, silent("n3").await];
    let processes = nodes
        .each_ref()
        .map(|node| Balancer::start(&simple("tcp", "", &[node])));
    let mut backends = Vec::new();
    for (name, process) in ["n1", "n2", "n3"].iter().zip(&processes) {
        backends.push(backend(name, process.address("main").await));
    }
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut untouched = Vec::new();
    for _ in 0..3 * EACH {
        untouched.push(connect(address).await);
    }
    let mut spoken = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(address).await;
        let name = answered(&mut stream).await;
        spoken.push((name, stream));
    }
    for node in &nodes {
        node.reached(EACH + 1).await;
    }
    let [n1, n2, n3] = &nodes;
    processes[1].signal("KILL");
    // Workers pick side by side, so the sessions that have spoken may stand anywhere in the turns.
    let spoken_to_n2 = spoken.iter().filter(|(name, _)| name == "n2").count();
    let moved = EACH + 1 - spoken_to_n2;
    let others = async {
        while n1.accepted() + n3.accepted() < 2 * (EACH + 1) + moved {
            crate::harness::a_moment().await;
        }
    };
    within("the sessions of n2 at other nodes", others).await;
    for stream in &mut untouched {
        let name = answered(stream).await;
        assert!(name == "n1" || name == "n3", "{name}");
    }
    for (name, stream) in &mut spoken {
        if name == "n2" {
            // Its kernel has said FIN; whatever comes now is answered with a RST.
            let _ = stream.write_all(b"still there?\n").await;
            let (rest, _) = read_to_ending(stream).await;
            assert_eq!(rest, b"", "served by another in mid-session");
        } else {
            assert_eq!(answered(stream).await, *name);
        }
    }
    let accepted = n1.accepted() + n2.accepted() + n3.accepted();
    assert_eq!(accepted, 3 * (EACH + 1) + moved);
}

/// A backend that closes orderly without a word is asked no more, and where it is the only one its word is passed on.
#[tokio::test]
async fn a_fin_before_the_first_byte_leads_to_another_backend_or_goes_on_if_there_is_none() {
    let closing = Node::scripted(|_, _| async {}).await;
    let living = Node::echo("n2").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&closing, &living]));
    let address = balancer.address("main").await;
    for _ in 0..20 {
        let (mut stream, name) = greeted(address).await;
        assert_eq!(name, "n2");
        echoed(&mut stream, b"here").await;
    }
    assert!(closing.accepted() >= 10);
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "up");
    let alone = Balancer::start(&simple("tcp", "", &[&closing]));
    let mut stream = connect(alone.address("main").await).await;
    assert_eq!(read_to_ending(&mut stream).await, (vec![], Ending::Fin));
}

#[tokio::test]
async fn a_raw_connection_with_bytes_sent_gets_a_rst() {
    // A node that dies with unread bytes, as a killed process does: its kernel sends a RST.
    let dying = Node::scripted(|stream, _| async move {
        let _ = stream.peek(&mut [0]).await;
    })
    .await;
    let living = Node::echo("n2").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&dying, &living]));
    let address = balancer.address("main").await;
    let mut first = connect(address).await;
    dying.reached(1).await;
    let (mut second, _) = greeted(address).await;
    first.write_all(b"bytes").await.expect("write");
    assert_eq!(read_to_ending(&mut first).await, (vec![], Ending::Rst));
    assert_eq!(
        dying.accepted() + living.accepted(),
        2,
        "the bytes were sent twice"
    );
    echoed(&mut second, b"the other session goes on").await;
}

#[tokio::test]
async fn an_upgrade_is_sent_again_when_the_backend_closes_before_its_answer() {
    let dying = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        read_request(&mut stream, &mut buffer).await;
    })
    .await;
    let living = Node::web("n2").await;
    let keys = "retry_on = [\"connect\", \"empty_response\"]";
    let balancer = Balancer::start(&simple("websocket", keys, &[&dying, &living]));
    let address = balancer.address("main").await;
    for _ in 0..10 {
        let mut socket = websocket(address, "/").await;
        assert_eq!(crate::clients::node_of(&mut socket).await, "n2");
    }
    assert!(dying.accepted() > 0, "the dying node was never tried");
}

#[tokio::test]
async fn an_upgrade_is_not_sent_again_after_the_first_byte_of_an_answer() {
    let half = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let Some(request) = read_request(&mut stream, &mut buffer).await else {
            return;
        };
        let answer = switching(request.header("sec-websocket-key").expect("a key"));
        let _ = stream.write_all(&answer.as_bytes()[..20]).await;
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&half]));
    let address = balancer.address("main").await;
    let page = http(
        address,
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 502);
    assert_eq!(half.accepted(), 1);
}

#[tokio::test]
async fn a_request_with_a_body_is_not_sent_twice() {
    let dying = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        read_request(&mut stream, &mut buffer).await;
    })
    .await;
    let also = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        read_request(&mut stream, &mut buffer).await;
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&dying, &also]));
    let page = http(
        balancer.address("main").await,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    )
    .await;
    assert_eq!(page.status, 502);
    assert_eq!(dying.accepted() + also.accepted(), 1);
}

#[tokio::test]
async fn a_pool_whose_backends_are_all_down_answers_at_once() {
    let node = Node::web("n1").await;
    let raw = Node::echo("n1").await;
    let config = crate::settings::listener("web", "websocket", "web")
        + &crate::settings::listener("raw", "tcp", "raw")
        + &crate::settings::pool("web", "", &[crate::settings::backend("n1", node.address)])
        + &crate::settings::pool("raw", "", &[crate::settings::backend("n1", raw.address)]);
    let balancer = Balancer::start(&config);
    for pool in ["web", "raw"] {
        balancer
            .post(&format!("/api/v1/pools/{pool}/backends/n1/maint"), "{}")
            .await;
    }
    let page = http(
        balancer.address("web").await,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 503);
    assert!(
        page.head.to_ascii_lowercase().contains("retry-after:"),
        "{}",
        page.head
    );
    assert_eq!(
        crate::clients::refused(balancer.address("raw").await).await,
        (vec![], crate::clients::Ending::Rst)
    );
}
