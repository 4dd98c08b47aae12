//! What becomes of live sessions as their backends go down and come back: drained after the grace, closed, kept where the guard
//! says so, and returned from backups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::clients::{
    Ending, Socket, ask, connect, node_of, read_answer, read_to_ending, websocket,
};
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::{Node, read_request, speak, switching};
use crate::settings::{backend, backend_with, listener, pool};

const CHECK: &str =
    "check = { type = \"http\", interval = \"100ms\", timeout = \"2s\", rise = 2, fall = 2 }";

/// A web node whose checks pass or fail as the switch says, and whose sessions go on either way.
struct Patient {
    node: Node,
    is_well: Arc<AtomicBool>,
}

impl Patient {
    async fn new(name: &'static str) -> Patient {
        let is_well = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&is_well);
        let node = Node::scripted(move |stream, _| serve(stream, name, Arc::clone(&asked))).await;
        Patient { node, is_well }
    }

    fn falls_ill(&self) {
        self.is_well.store(false, Ordering::SeqCst);
    }

    fn is_well_again(&self) {
        self.is_well.store(true, Ordering::SeqCst);
    }
}

async fn serve(mut stream: TcpStream, name: &'static str, is_well: Arc<AtomicBool>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        if let Some(key) = request.header("sec-websocket-key") {
            if stream.write_all(switching(key).as_bytes()).await.is_ok() {
                speak(stream, buffer, name).await;
            }
            return;
        }
        let status = match is_well.load(Ordering::SeqCst) {
            true => "200 OK",
            false => "503 Service Unavailable",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One listener, one pool of these patients.
fn config(keys: &str, patients: &[(&str, &Patient)]) -> String {
    let backends: Vec<String> = patients
        .iter()
        .map(|(name, patient)| backend(name, patient.node.address))
        .collect();
    let keys = format!("{CHECK}\n{keys}");
    listener("main", "websocket", "nodes") + &pool("nodes", &keys, &backends)
}

/// So many sessions, each with the name of its node.
async fn sessions(balancer: &Balancer, count: usize) -> Vec<(String, Socket)> {
    let address = balancer.address("main").await;
    let mut sessions = Vec::new();
    for _ in 0..count {
        let mut socket = websocket(address, "/").await;
        sessions.push((node_of(&mut socket).await, socket));
    }
    sessions
}

fn split(sessions: Vec<(String, Socket)>, name: &str) -> (Vec<Socket>, Vec<Socket>) {
    let (of, others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|(on, _)| on == name);
    let sockets = |sessions: Vec<(String, Socket)>| sessions.into_iter().map(|(_, one)| one);
    (sockets(of).collect(), sockets(others).collect())
}

/// Reads to the end; the code of the Close, and when.
async fn end_of(mut socket: Socket) -> (Option<u16>, Instant) {
    let mut code = None;
    let reading = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                code = Some(frame.code.into());
            }
        }
    };
    within("the end of a session", reading).await;
    (code, Instant::now())
}

async fn all_answer(sockets: &mut [Socket]) {
    for socket in sockets {
        ask(socket, "still there").await;
    }
}

/// How many answer.
async fn alive(sockets: Vec<Socket>) -> usize {
    use futures_util::SinkExt as _;
    let mut count = 0;
    for mut socket in sockets {
        let _ = socket.send(Message::text("still there?")).await;
        while let Some(Ok(message)) = within("an answer", socket.next()).await {
            if message.is_text() {
                count += 1;
                break;
            }
        }
    }
    count
}

async fn state(balancer: &Balancer, node: &str, state: &str) {
    balancer
        .backend_until("nodes", node, |seen| seen["state"] == state)
        .await;
}

async fn job_until(balancer: &Balancer, wanted: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let jobs = balancer.get("/api/v1/jobs").await.json();
            let jobs = jobs["jobs"].as_array().cloned().unwrap_or_default();
            if let Some(job) = jobs.into_iter().rev().find(&wanted) {
                return job;
            }
            a_moment().await;
        }
    };
    within("the job", looking).await
}

async fn job_count(balancer: &Balancer) -> usize {
    let jobs = balancer.get("/api/v1/jobs").await.json();
    jobs["jobs"].as_array().map_or(0, Vec::len)
}

async fn panic_of(balancer: &Balancer) -> Value {
    balancer.get("/api/v1/pools/nodes").await.json()["panic"].clone()
}

async fn panics(balancer: &Balancer) {
    let event = balancer
        .event("panic mode", 0, |event| event.message() == "panic mode")
        .await;
    assert_eq!(event.level(), "WARN");
    assert_eq!(event.field("pool"), Some("nodes"));
}

#[tokio::test]
async fn a_backend_that_stays_down_is_drained_at_the_pace_after_its_grace() {
    let (n1, n2) = (Patient::new("n1").await, Patient::new("n2").await);
    let keys = "failover = { on_down = \"drain\", grace = \"1s\", max_close_rate = \"100%\" }\n\
                drain = { rate = \"10/s\", close = { reason = \"node down\" } }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2)]));
    let (leaving, mut staying) = split(sessions(&balancer, 40).await, "n1");
    assert_eq!((leaving.len(), staying.len()), (20, 20));
    n1.falls_ill();
    let began = Instant::now();
    let ends = join_all(leaving.into_iter().map(end_of)).await;
    assert!(ends.iter().all(|(code, _)| *code == Some(1012)), "{ends:?}");
    let first = ends.iter().map(|(_, at)| *at).min().unwrap();
    let last = ends.iter().map(|(_, at)| *at).max().unwrap();
    assert!(
        first - began >= Duration::from_secs(1),
        "{:?}",
        first - began
    );
    // Twenty at ten a second.
    assert!(
        last - began >= Duration::from_millis(2500),
        "{:?}",
        last - began
    );
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    let expected = json!(["health", "nodes/n1", "10/s", 20]);
    assert_eq!(
        json!([job["by"], job["target"], job["pace"], job["ended"]]),
        expected
    );
    all_answer(&mut staying).await;
    assert_eq!(
        balancer
            .metric(&["evenkeel_pool_failover_ended_connections_total"])
            .await,
        20.0
    );
    assert_eq!(balancer.metric(&["evenkeel_pool_panic{"]).await, 0.0);
}

#[tokio::test]
async fn sessions_of_a_backend_that_is_down_are_kept_by_default() {
    let (n1, n2) = (Patient::new("n1").await, Patient::new("n2").await);
    // The other pool shows that the time has passed.
    let (o1, o2) = (Patient::new("o1").await, Patient::new("o2").await);
    let other = pool(
        "other",
        &format!(
            "{CHECK}\nfailover = {{ on_down = \"close\", grace = \"1s\", max_close_rate = \"100%\" }}"
        ),
        &[
            backend("o1", o1.node.address),
            backend("o2", o2.node.address),
        ],
    ) + &listener("other", "websocket", "other");
    let balancer = Balancer::start(&(config("", &[("n1", &n1), ("n2", &n2)]) + &other));
    let (mut kept, _) = split(sessions(&balancer, 4).await, "n1");
    let address = balancer.address("other").await;
    let mut ended = Vec::new();
    for _ in 0..2 {
        let mut socket = websocket(address, "/").await;
        if node_of(&mut socket).await == "o1" {
            ended.push(socket);
        }
    }
    n1.falls_ill();
    state(&balancer, "n1", "down").await;
    o1.falls_ill();
    assert_eq!(ended.len(), 1);
    assert_eq!(end_of(ended.remove(0)).await.0, Some(1012));
    all_answer(&mut kept).await;
}

#[tokio::test]
async fn back_within_the_grace_nobody_is_touched() {
    let (n1, n2, n3) = (
        Patient::new("n1").await,
        Patient::new("n2").await,
        Patient::new("n3").await,
    );
    let keys = "failover = { on_down = \"close\", grace = \"8s\", max_close_rate = \"100%\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2), ("n3", &n3)]));
    let (mut touched, others) = split(sessions(&balancer, 12).await, "n1");
    n1.falls_ill();
    // A second or more of the eight.
    balancer
        .backend_until("nodes", "n1", |seen| {
            seen["checks_failed"].as_u64() >= Some(10)
        })
        .await;
    n1.is_well_again();
    state(&balancer, "n1", "up").await;
    // n2 falls ill later: when it is drained, the grace of n1 is over, too.
    n2.falls_ill();
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(
        (&job["target"], &job["ended"]),
        (&json!("nodes/n2"), &json!(4))
    );
    assert_eq!(job_count(&balancer).await, 1);
    all_answer(&mut touched).await;
    assert_eq!(alive(others).await, 4);
}

#[tokio::test]
async fn back_in_the_middle_of_it_the_rest_stays() {
    let (n1, n2) = (Patient::new("n1").await, Patient::new("n2").await);
    let keys = "failover = { on_down = \"drain\", grace = \"0s\", max_close_rate = \"100%\" }\n\
                drain = { rate = \"2/s\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2)]));
    let (leaving, _staying) = split(sessions(&balancer, 60).await, "n1");
    n1.falls_ill();
    job_until(&balancer, |job| job["ended"].as_u64() > Some(0)).await;
    n1.is_well_again();
    let job = job_until(&balancer, |job| job["phase"] == "aborted").await;
    let ended = job["ended"].as_u64().unwrap() as usize;
    assert!(ended < 30, "{job}");
    assert_eq!(alive(leaving).await, 30 - ended, "{job}");
}

#[tokio::test]
async fn with_two_of_three_down_the_guard_keeps_most_and_says_so() {
    let (n1, n2, n3) = (
        Patient::new("n1").await,
        Patient::new("n2").await,
        Patient::new("n3").await,
    );
    let keys = "failover = { on_down = \"close\", grace = \"500ms\", max_close_rate = \"25%\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2), ("n3", &n3)]));
    let sockets: Vec<Socket> = sessions(&balancer, 24)
        .await
        .into_iter()
        .map(|(_, socket)| socket)
        .collect();
    n1.falls_ill();
    n2.falls_ill();
    panics(&balancer).await;
    job_until(&balancer, |job| job["target"] == "nodes/n2").await;
    job_until(&balancer, |job| job["target"] == "nodes/n1").await;
    let why = panic_of(&balancer).await.to_string();
    assert!(why.contains("max_close_rate"), "{why}");
    assert_eq!(
        balancer.metric(&["evenkeel_pool_panic{", "nodes"]).await,
        1.0
    );
    let admin = balancer.address("admin").await.to_string();
    let shown = balancer.command(&["status", "--admin", &admin]).await.1;
    assert!(shown.contains("panic mode: max_close_rate"), "{shown}");
    // A quarter of 24, however long it goes on within the minute.
    assert_eq!(alive(sockets).await, 18);
    assert_eq!(
        balancer
            .metric(&["evenkeel_pool_failover_ended_connections_total"])
            .await,
        6.0
    );
    let from = balancer.log.position();
    n1.is_well_again();
    n2.is_well_again();
    balancer
        .event("the end of it", from, |event| {
            event.message() == "panic mode is over"
        })
        .await;
    assert_eq!(panic_of(&balancer).await, Value::Null);
}

#[tokio::test]
async fn when_all_are_down_nothing_is_closed() {
    let (n1, n2) = (Patient::new("n1").await, Patient::new("n2").await);
    // The other pool shows that the time has passed: it goes down later.
    let (o1, o2) = (Patient::new("o1").await, Patient::new("o2").await);
    let failover = "failover = { on_down = \"close\", grace = \"1s\", max_close_rate = \"100%\" }";
    let other = pool(
        "other",
        &format!("{CHECK}\n{failover}"),
        &[
            backend("o1", o1.node.address),
            backend("o2", o2.node.address),
        ],
    ) + &listener("other", "websocket", "other");
    let text = config(failover, &[("n1", &n1), ("n2", &n2)]) + &other;
    let balancer = Balancer::start(&text);
    let mut sockets: Vec<Socket> = sessions(&balancer, 10)
        .await
        .into_iter()
        .map(|(_, socket)| socket)
        .collect();
    let address = balancer.address("other").await;
    let mut clock = websocket(address, "/").await;
    let on = node_of(&mut clock).await;
    n1.falls_ill();
    n2.falls_ill();
    state(&balancer, "n1", "down").await;
    state(&balancer, "n2", "down").await;
    panics(&balancer).await;
    let why = panic_of(&balancer).await.to_string();
    assert!(why.contains("no other backend can be used"), "{why}");
    if on == "o1" { &o1 } else { &o2 }.falls_ill();
    assert_eq!(end_of(clock).await.0, Some(1012));
    all_answer(&mut sockets).await;
    let ended = balancer
        .metric(&["evenkeel_pool_failover_ended_connections_total", "nodes"])
        .await;
    assert_eq!(ended, 0.0);
}

#[tokio::test]
async fn the_operators_ready_keeps_the_sessions_of_a_backend_that_is_down() {
    let (n1, n2, n3) = (
        Patient::new("n1").await,
        Patient::new("n2").await,
        Patient::new("n3").await,
    );
    let keys = "failover = { on_down = \"drain\", grace = \"1s\", max_close_rate = \"100%\" }\n\
                drain = { rate = \"1/s\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2), ("n3", &n3)]));
    let (kept, others) = split(sessions(&balancer, 24).await, "n1");
    let ready = "/api/v1/pools/nodes/backends/n1/ready";
    n1.falls_ill();
    job_until(&balancer, |job| job["ended"].as_u64() > Some(0)).await;
    assert_eq!(balancer.post(ready, "{}").await.status, 200);
    let job = job_until(&balancer, |job| job["phase"] == "aborted").await;
    let ended = job["ended"].as_u64().unwrap() as usize;
    // The grace of n2 is over later than one that would begin anew for n1.
    n2.falls_ill();
    job_until(&balancer, |job| {
        job["target"] == "nodes/n2" && job["ended"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(alive(kept).await, 8 - ended);
    assert_eq!(job_count(&balancer).await, 2);
    // A drain of the operator's takes the place of ours.
    let drain = "/api/v1/pools/nodes/backends/n2/drain";
    let answer = balancer.post(drain, "{}").await;
    assert_eq!(answer.json()["job"]["by"], "operator", "{}", answer.body);
    let answer = balancer.post(drain, "{\"rate\": \"100/s\"}").await;
    assert_eq!(answer.json()["job"]["pace"], "100/s", "{}", answer.body);
    job_until(&balancer, |job| {
        job["by"] == "operator" && job["phase"] == "done"
    })
    .await;
    assert_eq!(alive(others).await, 8);
}

#[tokio::test]
async fn ready_within_the_grace_keeps_them_too() {
    let (n1, n2, n3) = (
        Patient::new("n1").await,
        Patient::new("n2").await,
        Patient::new("n3").await,
    );
    let keys = "failover = { on_down = \"close\", grace = \"6s\", max_close_rate = \"100%\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2), ("n3", &n3)]));
    let (mut kept, others) = split(sessions(&balancer, 12).await, "n1");
    n1.falls_ill();
    state(&balancer, "n1", "down").await;
    let ready = "/api/v1/pools/nodes/backends/n1/ready";
    assert_eq!(balancer.post(ready, "{}").await.status, 200);
    n2.falls_ill();
    job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(alive(others).await, 4);
    all_answer(&mut kept).await;
    assert_eq!(job_count(&balancer).await, 1);
}

#[tokio::test]
async fn the_operators_maint_ends_what_health_began() {
    let (n1, n2) = (Patient::new("n1").await, Patient::new("n2").await);
    let keys = "failover = { on_down = \"drain\", grace = \"0s\", max_close_rate = \"100%\" }\n\
                drain = { rate = \"2/s\" }";
    let balancer = Balancer::start(&config(keys, &[("n1", &n1), ("n2", &n2)]));
    let (leaving, _staying) = split(sessions(&balancer, 40).await, "n1");
    n1.falls_ill();
    job_until(&balancer, |job| job["ended"].as_u64() > Some(0)).await;
    let maint = "/api/v1/pools/nodes/backends/n1/maint";
    let answer = balancer.post(maint, "{}").await;
    assert_eq!(answer.json()["job"], Value::Null, "{}", answer.body);
    let job = job_until(&balancer, |job| job["phase"] == "aborted").await;
    let ended = job["ended"].as_u64().unwrap() as usize;
    assert_eq!(alive(leaving).await, 20 - ended);
}

/// A WebSocket and a raw connection.
#[tokio::test]
async fn when_primaries_are_back_the_sessions_of_backups_return_to_them() {
    let (n1, spare) = (Patient::new("n1").await, Patient::new("spare").await);
    let keys = format!(
        "{CHECK}\nfailover = {{ on_up = \"return\", grace = \"1s\", max_close_rate = \"100%\" }}"
    );
    let backends = [
        backend("n1", n1.node.address),
        backend_with("spare", spare.node.address, "backup = true"),
    ];
    let text = listener("main", "websocket", "nodes")
        + &listener("raw", "tcp", "nodes")
        + &pool("nodes", &keys, &backends);
    let balancer = Balancer::start(&text);
    let (primary, _) = split(sessions(&balancer, 2).await, "n1");
    n1.falls_ill();
    state(&balancer, "n1", "down").await;
    let (leaving, others) = split(sessions(&balancer, 10).await, "spare");
    assert!(others.is_empty());
    let mut raw = connect(balancer.address("raw").await).await;
    raw.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_answer(&mut raw).await.status, 200);
    let began = Instant::now();
    n1.is_well_again();
    let (ends, raw) = tokio::join!(
        join_all(leaving.into_iter().map(end_of)),
        read_to_ending(&mut raw)
    );
    for (code, at) in ends {
        assert_eq!(code, Some(1012));
        assert!(at - began >= Duration::from_secs(1), "{:?}", at - began);
    }
    assert_eq!(raw, (Vec::new(), Ending::Fin));
    for (node, _socket) in sessions(&balancer, 4).await {
        assert_eq!(node, "n1");
    }
    // Those of the primary were kept while it was down, and after.
    assert_eq!(alive(primary).await, 2);
}
