//! The budget of file descriptors: known at start, kept with a reserve, and a pause that costs nothing and ends at once.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::TcpStream;

use crate::clients::{connect, echoed, greeted, http_on, read_line};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};
use crate::threads::wakes_at_most;

/// A plain listener `raw`, whose connections are accepted on a relay thread, and `web`, on the set-up plane.
async fn start(launch: Launch) -> (Balancer, [Node; 2]) {
    let nodes = [Node::echo("n1").await, Node::web("n1").await];
    let text = listener("raw", "tcp", "raw")
        + &listener("web", "websocket", "web")
        + &pool("raw", "", &[backend("n1", nodes[0].address)])
        + &pool("web", "", &[backend("n1", nodes[1].address)]);
    (launch.start(&text), nodes)
}

fn open_descriptors(pid: u32) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd"));
    folder.expect("a process").count()
}

/// What the log says of the budget at start.
async fn budget(balancer: &Balancer) -> impl Fn(&str) -> usize {
    let told = balancer
        .log
        .wait("the budget", 0, |line| {
            line.contains("connection budget").then(|| line.to_owned())
        })
        .await;
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    move |name| told[name].as_u64().expect("a number") as usize
}

/// As many connections as there may be, and one that waits.
async fn until_paused(balancer: &Balancer) -> (Vec<TcpStream>, TcpStream) {
    let address = balancer.address("raw").await;
    let mut served = Vec::new();
    for _ in 0..budget(balancer).await("max_connections") {
        let (stream, name) = greeted(address).await;
        assert_eq!(name, "n1");
        served.push(stream);
    }
    let mut waiting = connect(address).await;
    let more = tokio::time::timeout(Duration::from_millis(500), read_line(&mut waiting)).await;
    assert!(more.is_err(), "one above the budget: {more:?}");
    (served, waiting)
}

#[tokio::test]
async fn the_budget_is_logged_at_start_and_the_reserve_is_kept() {
    let (balancer, _nodes) = start(Launch::new().after("ulimit -n 120")).await;
    let number = budget(&balancer).await;
    assert_eq!((number("descriptors"), number("reserve")), (120, 30));
    let (_served, _waiting) = until_paused(&balancer).await;
    let open = open_descriptors(balancer.pid());
    assert!(
        open <= 120 - 30 + 8,
        "{open}: of the reserve only listeners and their like are used"
    );
}

#[tokio::test]
async fn a_small_limit_is_for_connections() {
    let (balancer, _nodes) = start(Launch::new().after("ulimit -n 80")).await;
    let number = budget(&balancer).await;
    assert_eq!((number("descriptors"), number("reserve")), (80, 20));
    let (mut served, _waiting) = until_paused(&balancer).await;
    assert!(served.len() > 5, "{} are served", served.len());
    for stream in &mut served {
        echoed(stream, b"here").await;
    }
    assert_eq!(balancer.get("/api/v1/status").await.status, 200);
}

#[tokio::test]
async fn at_the_limit_it_pauses_without_work_and_goes_on_at_once() {
    let (balancer, _nodes) = start(Launch::new().after("ulimit -n 120")).await;
    let (mut served, mut waiting) = until_paused(&balancer).await;
    // Nothing looks again from time to time: who goes on below was woken by the end of another.
    wakes_at_most(balancer.pid(), 5, Duration::from_secs(2)).await;
    assert_eq!(balancer.get("/api/v1/status").await.status, 200);
    for _ in 0..5 {
        let left = served.pop().expect("one that is served");
        drop(left);
        assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
        served.insert(
            0,
            std::mem::replace(&mut waiting, connect(balancer.address("raw").await).await),
        );
    }
    for stream in &mut served {
        echoed(stream, b"still here").await;
    }
}

/// Lowers the soft limit of the running process to what it has open, or to the former one.
fn limit_descriptors(pid: u32, current: Option<u64>) {
    let limit = Rlimit {
        current,
        maximum: Some(20_000),
    };
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    prlimit(Some(pid), Resource::Nofile, limit).expect("set the limit");
}

/// The kernel refuses descriptors although the budget has room.
async fn shortage(listener: &str, greet: impl AsyncFn(&mut TcpStream) -> bool) {
    let (balancer, _nodes) = start(Launch::new()).await;
    let pid = balancer.pid();
    let address = balancer.address(listener).await;
    let held = greeted(balancer.address("raw").await).await;
    // What the endpoint needs was open before.
    assert_eq!(balancer.get("/readyz").await.status, 200);
    limit_descriptors(pid, Some(1));
    let mut waiting = connect(address).await;
    let from = 0;
    balancer
        .event("the pause", from, |event| {
            event.message() == "accepting pauses"
        })
        .await;
    // It asks again 20 times a second; without a pause it is thousands.
    wakes_at_most(pid, 100, Duration::from_millis(500)).await;
    limit_descriptors(pid, Some(1_000));
    let served = within("to be served", greet(&mut waiting)).await;
    assert!(served);
    drop(held);
}

#[tokio::test]
async fn a_shortage_of_the_kernel_pauses_the_relay_threads() {
    shortage("raw", async |stream| {
        read_line(stream).await.is_ok_and(|line| line == "n1")
    })
    .await;
}

#[tokio::test]
async fn a_shortage_of_the_kernel_pauses_the_set_up_plane() {
    shortage("web", async |stream| {
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        http_on(stream, request).await.status == 200
    })
    .await;
}
