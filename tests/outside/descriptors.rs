//! The budget of file descriptors: known at start, kept with a reserve, and a pause that costs nothing and ends at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::TcpStream;

use crate::clients::{connect, echoed, greeted, http_on, read_line};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};

/// A plain listener `raw`, whose connections are accepted on a relay thread, and `web`, on the set-up plane.
async fn start(launch: Launch) -> (Balancer, [Node; 2]) {
    let nodes = [Node::echo("n1").await, Node::web("n1").await];
    let text = listener("raw", "tcp", "raw")
        + &listener("web", "websocket", "web")
        + &pool("raw", "", &[backend("n1", nodes[0].address)])
        + &pool("web", "", &[backend("n1", nodes[1].address)]);
    (launch.start(&text), nodes)
}

/// The processor time of all threads of a process.
fn processor_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let spent = tasks.map(|task| {
        let path = task.expect("a thread").path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        first.parse::<u64>().unwrap_or(0)
    });
    Duration::from_nanos(spent.sum())
}

/// Lowest of three: others run on this machine.
async fn cpu_while_paused(pid: u32) -> f64 {
    let mut lowest = f64::MAX;
    for _ in 0..3 {
        let (began, before) = (Instant::now(), processor_time(pid));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = processor_time(pid) - before;
        lowest = lowest.min(spent.as_secs_f64() / began.elapsed().as_secs_f64());
    }
    lowest
}

fn open_descriptors(pid: u32) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd"));
    folder.expect("a process").count()
}

/// Connections until one is not greeted for a while; those that were, and the one that waits.
async fn until_paused(address: SocketAddr) -> (Vec<TcpStream>, TcpStream) {
    let mut served = Vec::new();
    loop {
        let mut stream = connect(address).await;
        match tokio::time::timeout(Duration::from_millis(500), read_line(&mut stream)).await {
            Ok(line) => {
                assert_eq!(line.expect("a greeting, not an end"), "n1");
                served.push(stream);
            }
            Err(_) => return (served, stream),
        }
    }
}

#[tokio::test]
async fn the_budget_is_logged_at_start_and_the_reserve_is_kept() {
    let (balancer, _nodes) = start(Launch::new().after("ulimit -n 120")).await;
    let told = balancer
        .log
        .wait("the budget", 0, |line| {
            line.contains("connection budget").then(|| line.to_owned())
        })
        .await;
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let number = |name: &str| told[name].as_u64().expect("a number") as usize;
    assert_eq!((number("descriptors"), number("reserve")), (120, 30));
    let (served, _waiting) = until_paused(balancer.address("raw").await).await;
    assert_eq!(served.len(), number("max_connections"));
    let open = open_descriptors(balancer.pid());
    assert!(
        open <= 120 - 30 + 8,
        "{open}: of the reserve only listeners and their like are used"
    );
}

#[tokio::test]
async fn at_the_limit_it_pauses_without_work_and_goes_on_at_once() {
    let (balancer, _nodes) = start(Launch::new().after("ulimit -n 120")).await;
    let (mut served, mut waiting) = until_paused(balancer.address("raw").await).await;
    let cpu = cpu_while_paused(balancer.pid()).await;
    assert!(cpu < 0.02, "{:.1} % of a core", cpu * 100.0);
    assert_eq!(balancer.get("/api/v1/status").await.status, 200);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let left = served.pop().expect("one that is served");
        let began = Instant::now();
        drop(left);
        assert_eq!(read_line(&mut waiting).await.expect("a greeting"), "n1");
        waits.push(began.elapsed());
        served.insert(
            0,
            std::mem::replace(&mut waiting, connect(balancer.address("raw").await).await),
        );
    }
    waits.sort();
    assert!(waits[2] < Duration::from_millis(100), "{waits:?}");
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
    let cpu = cpu_while_paused(pid).await;
    assert!(cpu < 0.02, "{:.1} % of a core", cpu * 100.0);
    let began = Instant::now();
    limit_descriptors(pid, Some(1_000));
    let served = within("to be served", greet(&mut waiting)).await;
    let took = began.elapsed();
    assert!(served);
    assert!(
        took < Duration::from_millis(250),
        "{took:?} after descriptors were free"
    );
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
