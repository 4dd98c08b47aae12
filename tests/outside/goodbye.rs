//! Connections that are ended at a pace, told why, and kept alive: drains with a pace, jobs, stops, pings, bounds.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::clients::{Socket, ask, echoed, greeted, node_of, read_to_ending, websocket};
use crate::harness::{Balancer, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool, simple};

/// Sockets on the node of that name, and those on others.
async fn on(balancer: &Balancer, count: usize, name: &str) -> (Vec<Socket>, Vec<Socket>) {
    let address = balancer.address("main").await;
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut socket = websocket(address, "/").await;
        match node_of(&mut socket).await == name {
            true => wanted.push(socket),
            false => others.push(socket),
        }
    }
    (wanted, others)
}

/// Reads to the end; what the Close said, and when.
async fn end_of(mut socket: Socket) -> (Option<(u16, String)>, Instant) {
    let mut said = None;
    let reading = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(CloseFrame { code, reason })) = message {
                said = Some((code.into(), reason.to_string()));
            }
        }
    };
    within("the end of a websocket", reading).await;
    (said, Instant::now())
}

async fn jobs(balancer: &Balancer) -> Vec<Value> {
    let jobs = balancer.get("/api/v1/jobs").await.json();
    jobs["jobs"].as_array().cloned().unwrap_or_default()
}

async fn job_until(balancer: &Balancer, wanted: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            if let Some(job) = jobs(balancer).await.pop().filter(&wanted) {
                return job;
            }
        }
    };
    within("the job", looking).await
}

fn drain(node: &str) -> String {
    format!("/api/v1/pools/nodes/backends/{node}/drain")
}

#[tokio::test]
async fn a_drain_at_a_rate_tells_everyone_and_leaves_the_others_alone() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = Balancer::start(&simple("websocket", "", &[&n1, &n2]));
    let (leaving, mut staying) = on(&balancer, 40, "n1").await;
    let count = leaving.len();
    let body = json!({ "rate": "10/s", "close": { "code": 1001, "reason": "deploy" } });
    let began = Instant::now();
    let answer = balancer.post(&drain("n1"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["job"]["pace"], "10/s", "{}", answer.body);
    let ends = join_all(leaving.into_iter().map(end_of)).await;
    assert!(
        ends.iter()
            .all(|(said, _)| *said == Some((1001, "deploy".to_owned()))),
        "{ends:?}"
    );
    // Twenty at ten a second: nobody is early, and they are spread.
    let last = ends.iter().map(|(_, at)| *at).max().unwrap();
    let least = Duration::from_secs_f64(count as f64 / 10.0 * 0.8);
    assert!(last - began >= least, "{:?}", last - began);
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(
        (job["ended"].as_u64(), job["left"].as_u64()),
        (Some(count as u64), Some(0))
    );
    for socket in &mut staying {
        assert_eq!(node_of(socket).await, "n2");
    }
    let ends = balancer
        .metric(&["evenkeel_listener_ends_total", "how=\"stop\""])
        .await;
    assert_eq!(ends as usize, count);
}

#[tokio::test]
async fn the_pool_says_how_its_drains_are_and_a_deadline_is_kept() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let keys = "drain = { deadline = \"2s\", close = { code = 1013 } }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&n1, &n2]));
    let (leaving, _staying) = on(&balancer, 20, "n1").await;
    let began = Instant::now();
    let admin = balancer.address("admin").await.to_string();
    let command = ["drain", "nodes/n1", "--admin", &admin, "--wait", "30s"];
    let (done, ends) = tokio::join!(
        balancer.command(&command),
        // Their answers are waited for.
        join_all(leaving.into_iter().map(end_of)),
    );
    assert_eq!(done.0, 0, "{}{}", done.1, done.2);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1700), "{took:?}");
    for (said, _) in ends {
        assert_eq!(said, Some((1013, String::new())));
    }
}

#[tokio::test]
async fn ready_aborts_a_drain_and_a_reload_does_not() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let config = simple("websocket", "", &[&n1, &n2]);
    let balancer = Balancer::start(&config);
    let (mut leaving, _staying) = on(&balancer, 20, "n1").await;
    let body = json!({ "rate": "1/s" }).to_string();
    balancer.post(&drain("n1"), &body).await;
    // Asking again, as a script does that waits, does not begin anew.
    balancer.post(&drain("n1"), "{}").await;
    assert_eq!(jobs(&balancer).await.len(), 1);
    job_until(&balancer, |job| job["ended"].as_u64() > Some(0)).await;
    balancer
        .reload(&config.replace("nodes\"\n", "nodes\"\nbacklog = 99\n"))
        .await;
    job_until(&balancer, |job| job["ended"].as_u64() > Some(1)).await;
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["jobs"][0]["target"], "nodes/n1", "{status}");
    balancer
        .post("/api/v1/pools/nodes/backends/n1/ready", "{}")
        .await;
    let job = job_until(&balancer, |job| job["phase"] == "aborted").await;
    let ended = job["ended"].as_u64().unwrap() as usize;
    let mut alive = 0;
    for socket in &mut leaving {
        if let Some(Ok(_)) = socket.next_answer("still there?").await {
            alive += 1;
        }
    }
    assert_eq!(alive, leaving.len() - ended, "{job}");
}

/// Whether it still answers.
trait Answers {
    async fn next_answer(&mut self, text: &str) -> Option<Result<Message, ()>>;
}

impl Answers for Socket {
    async fn next_answer(&mut self, text: &str) -> Option<Result<Message, ()>> {
        use futures_util::SinkExt;
        self.send(Message::text(text)).await.ok()?;
        let answer = within("an answer", self.next()).await?;
        match answer {
            Ok(message) if message.is_text() => Some(Ok(message)),
            _ => None,
        }
    }
}

#[tokio::test]
async fn raw_connections_of_a_paced_drain_end_with_a_fin() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let (mut stream, _) = greeted(balancer.address("main").await).await;
    echoed(&mut stream, b"before").await;
    let body = json!({ "rate": "100/s" }).to_string();
    balancer.post(&drain("n1"), &body).await;
    let (rest, end) = read_to_ending(&mut stream).await;
    assert_eq!((rest, format!("{end:?}")), (vec![], "Fin".to_owned()));
}

/// It said that none was left, before it had looked, and that it would be over at once.
#[tokio::test]
async fn the_first_answer_of_a_job_has_counted() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = Balancer::start(&simple("websocket", "", &[&n1, &n2]));
    let (first, _second) = on(&balancer, 30, "n1").await;
    let count = first.len() as u64;
    let filter = json!({ "backend": "n1" });
    for (pace, seconds) in [
        (json!({ "filter": filter, "deadline": "10m" }), 600),
        (
            json!({ "filter": filter, "deadline": "10m", "after": "1m" }),
            660,
        ),
        (
            json!({ "filter": filter, "rate": "1/m", "after": "1m" }),
            60 * (count + 1),
        ),
    ] {
        let path = "/api/v1/connections/close";
        let job = balancer.post(path, &pace.to_string()).await.json();
        assert_eq!(job["left"].as_u64(), Some(count), "{job}");
        let left = job["left_seconds"].as_u64().expect("an ETA");
        assert!((seconds - 30..=seconds).contains(&left), "{job}");
        let id = job["id"].as_u64().expect("an id");
        balancer
            .post(&format!("/api/v1/jobs/{id}/abort"), "{}")
            .await;
    }
    let admin = balancer.address("admin").await.to_string();
    let words = ["drain", "nodes/n1", "--deadline", "10m", "--admin", &admin];
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains(&format!("{count} left, about ")), "{out}");
    assert!(!out.contains("about 0s"), "{out}");
}

/// `ready` came between the last Close and the last answer to it, and the job was called aborted.
#[tokio::test]
async fn a_job_that_told_everyone_stays_done() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    // They do not read, so nobody answers the Close.
    let (silent, _) = on(&balancer, 5, "n1").await;
    let body = json!({ "rate": "100/s" }).to_string();
    balancer.post(&drain("n1"), &body).await;
    job_until(&balancer, |job| job["ended"] == 5).await;
    let ready = "/api/v1/pools/nodes/backends/n1/ready";
    assert_eq!(balancer.post(ready, "{}").await.status, 200);
    let job = job_until(&balancer, |job| job["phase"] != "ending").await;
    let seen = (&job["phase"], &job["ended"], &job["left"]);
    assert_eq!(seen, (&json!("done"), &json!(5), &json!(0)), "{job}");
    drop(silent);
    // One that did not is aborted, and says what it left.
    let (_kept, _) = on(&balancer, 5, "n1").await;
    let body = json!({ "rate": "1/h" }).to_string();
    balancer.post(&drain("n1"), &body).await;
    assert_eq!(balancer.post(ready, "{}").await.status, 200);
    let job = job_until(&balancer, |job| job["id"] == 2 && job["phase"] == "aborted").await;
    assert_ne!(job["left"], 0, "{job}");
}

#[tokio::test]
async fn what_a_filter_finds_is_ended_and_nothing_by_accident() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let balancer = Balancer::start(&simple("websocket", "", &[&n1, &n2]));
    let (mut first, mut second) = on(&balancer, 10, "n1").await;
    let admin = balancer.address("admin").await.to_string();
    let close = async |words: &[&str]| {
        let words = [&["close", "--admin", &admin], words].concat();
        balancer.command(&words).await
    };
    assert_eq!(close(&[]).await.0, 2);
    assert_eq!(close(&["--backend", "n1", "--all"]).await.0, 2);
    for body in [
        "{}",
        "{\"filter\": {}}",
        "{\"filter\": {\"pool\": \"nodes\"}, \"all\": true}",
        // A name that is not known was left out where it had no value.
        "{\"filter\": {\"pool\": \"nodes\", \"backnd\": null}}",
    ] {
        let answer = balancer.post("/api/v1/connections/close", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
    }
    for socket in first.iter_mut().chain(&mut second) {
        ask(socket, "still there").await;
    }
    let (code, out, error) = close(&["--backend", "n1", "--rate", "100/s", "--code", "4000"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("job 1 on backend=n1: "), "{out}");
    for (said, _) in join_all(first.into_iter().map(end_of)).await {
        assert_eq!(said, Some((4000, String::new())));
    }
    job_until(&balancer, |job| job["phase"] == "done").await;
    for socket in &mut second {
        ask(socket, "still there").await;
    }
    let (code, out, _) = balancer.command(&["jobs", "--admin", &admin]).await;
    assert_eq!(code, 0);
    assert!(out.contains("backend=n1") && out.contains("done"), "{out}");
}

#[tokio::test]
async fn bad_paces_are_refused_with_what_is_allowed() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for (body, said) in [
        (json!({ "rate": "fast" }), "as in"),
        (json!({ "rate": 5 }), "expected a string"),
        (json!({ "deadline": "never" }), "as in"),
        (json!({ "close": { "code": 1006 } }), "3000 to 4999"),
        (json!({ "close": { "reason": "x".repeat(124) } }), "123"),
        (json!({ "keep": true, "rate": "1/s" }), "keep"),
        (json!({ "speed": "1/s" }), "unknown field"),
    ] {
        let answer = balancer.post(&drain("n1"), &body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(answer.body.contains(said), "{body}: {}", answer.body);
    }
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "up");
}

#[tokio::test]
async fn a_stop_tells_websockets_that_it_goes_away() {
    let node = Node::web("n1").await;
    let global = "[global]\nhard_stop_after = \"2s\"\nlog_format = \"json\"\n\n";
    let balancer = Balancer::start(&format!("{global}{}", simple("websocket", "", &[&node])));
    let (sockets, _) = on(&balancer, 5, "n1").await;
    balancer.signal("TERM");
    for (said, _) in join_all(sockets.into_iter().map(end_of)).await {
        assert_eq!(said, Some((1001, String::new())));
    }
    assert!(balancer.exit().await.success());
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_ping_is_dead() {
    let node = Node::web("n1").await;
    let ping = "ping = { interval = \"1s\", timeout = \"1s\", to = [\"client\"] }";
    let balancer = Balancer::start(&simple("websocket", ping, &[&node]));
    let address = balancer.address("main").await;
    // Nobody reads from this one, so that nobody answers.
    let mut silent = websocket(address, "/").await;
    node_of(&mut silent).await;
    let mut living = websocket(address, "/").await;
    node_of(&mut living).await;
    let gone = async {
        while balancer
            .metric(&["evenkeel_listener_ends_total", "client", "timeout"])
            .await
            < 1.0
        {
            // Reading is what answers.
            ask(&mut living, "alive").await;
        }
    };
    within("the end of the silent client", gone).await;
    ask(&mut living, "alive").await;
    drop(silent);
}

#[tokio::test]
async fn a_frame_beyond_the_bound_ends_the_session_with_1009() {
    let node = Node::web("n1").await;
    let bounds = "frames = { max_frame = \"1KiB\" }";
    let config = listener_with("main", "websocket", "nodes", bounds)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut socket = websocket(balancer.address("main").await, "/").await;
    ask(&mut socket, &"x".repeat(1024)).await;
    use futures_util::SinkExt;
    socket.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(end_of(socket).await.0.map(|(code, _)| code), Some(1009));
}
