//! The life of the process: signals, the gentle stop, and what the access log says of each connection.

use std::time::Instant;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::certificates::{Certificate, client};
use crate::clients::{
    connect, echoed, greeted, http, http_on, read_line, read_to_ending, tls, websocket,
};
use crate::harness::{Balancer, Event, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool, simple};

fn stopping(hard_stop_after: &str, config: &str) -> String {
    format!(
        "[global]\nlog_format = \"json\"\nwatch = false\nhard_stop_after = \"{hard_stop_after}\"\n\n{config}"
    )
}

#[tokio::test]
async fn sigterm_stops_accepting_and_ends_with_the_last_connection() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&stopping("10m", &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    assert_eq!(balancer.get("/readyz").await.status, 200);
    balancer.signal("TERM");
    within("the listener to close", async {
        while TcpStream::connect(address).await.is_ok() {
            crate::harness::a_moment().await;
        }
    })
    .await;
    assert_eq!(balancer.get("/readyz").await.status, 503);
    assert_eq!(balancer.get("/healthz").await.status, 200);
    echoed(&mut live, b"still here").await;
    drop(live);
    // Long before the ten minutes: nothing is left.
    assert_eq!(balancer.exit().await.code(), Some(0));
}

const DELAYED: &str =
    "[global]\nlog_format = \"json\"\nwatch = false\nhard_stop_after = \"10m\"\nshutdown_delay = ";

/// Waits until the log says that the stop is announced.
async fn announced(balancer: &Balancer) {
    let is_it = |event: &Event| event.message().starts_with("about to stop");
    let event = balancer.event("the announcement", 0, is_it).await;
    assert_eq!(event.field("shutdown_delay"), Some("10m"));
}

#[tokio::test]
async fn during_the_shutdown_delay_it_is_not_ready_and_serves_who_comes() {
    let node = Node::echo("n1").await;
    let config = format!("{DELAYED}\"10m\"\n\n{}", simple("tcp", "", &[&node]));
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    assert_eq!(balancer.get("/readyz").await.status, 200);
    balancer.signal("TERM");
    announced(&balancer).await;
    let readiness = balancer.get("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.body.starts_with("about to stop"),
        "{}",
        readiness.body
    );
    assert_eq!(balancer.get("/healthz").await.status, 200);
    assert!(balancer.metric(&["evenkeel_ready"]).await < 0.5);
    let (mut live, _) = greeted(address).await;
    echoed(&mut live, b"hello").await;
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["process"]["about_to_stop"], true, "{status}");
    let admin = balancer.address("admin").await.to_string();
    let (code, table, _) = balancer.command(&["status", "--admin", &admin]).await;
    assert_eq!(code, 0);
    assert!(
        table.contains("about to stop and still accepting"),
        "{table}"
    );
    // A reload does not make it ready again.
    balancer.reload(&config).await;
    assert_eq!(balancer.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn a_second_signal_skips_the_shutdown_delay_and_a_third_stops_at_once() {
    let node = Node::echo("n1").await;
    let config = format!("{DELAYED}\"10m\"\n\n{}", simple("tcp", "", &[&node]));
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    balancer.signal("TERM");
    announced(&balancer).await;
    greeted(address).await;
    balancer.signal("TERM");
    let is_stopping = |event: &Event| event.message().starts_with("stopping");
    balancer.event("the stop", 0, is_stopping).await;
    assert!(TcpStream::connect(address).await.is_err());
    echoed(&mut live, b"still here").await;
    balancer.signal("TERM");
    balancer.exit().await;
}

#[tokio::test]
async fn the_stop_begins_when_the_shutdown_delay_is_over() {
    let node = Node::echo("n1").await;
    let config = format!("{DELAYED}\"1s\"\n\n{}", simple("tcp", "", &[&node]));
    let balancer = Balancer::start(&config);
    balancer.address("admin").await;
    let began = Instant::now();
    balancer.signal("TERM");
    assert_eq!(balancer.exit().await.code(), Some(0));
    assert!(began.elapsed().as_secs_f64() >= 1.0);
}

// The last look into the kernel's queue ended with the task's budget of 128 accepts, and the close reset the rest.
#[tokio::test]
async fn what_the_kernel_has_queued_at_sigterm_is_served() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&stopping("10m", &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    // Nobody accepts while the process stands, and it wakes up with the signal.
    balancer.halt().await;
    let mut queued = Vec::new();
    for _ in 0..300 {
        queued.push(connect(address).await);
    }
    balancer.signal("TERM");
    balancer.signal("CONT");
    for (i, stream) in queued.iter_mut().enumerate() {
        let greeting = read_line(stream).await;
        assert_eq!(
            greeting.unwrap_or_else(|error| format!("connection {i}: {error}")),
            "n1"
        );
    }
}

#[tokio::test]
async fn without_connections_sigterm_and_sigint_end_at_once() {
    let node = Node::echo("n1").await;
    for signal in ["TERM", "INT"] {
        let balancer = Balancer::start(&stopping("10m", &simple("tcp", "", &[&node])));
        balancer.address("main").await;
        balancer.address("admin").await;
        balancer.signal(signal);
        assert_eq!(balancer.exit().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn what_is_left_is_closed_spread_over_the_second_half() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&stopping("4s", &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let mut clients = tokio::task::JoinSet::new();
    let began = Instant::now();
    for _ in 0..40 {
        let (mut stream, _) = greeted(address).await;
        clients.spawn(async move {
            read_to_ending(&mut stream).await;
            Instant::now()
        });
    }
    let began = began.max(Instant::now());
    balancer.signal("TERM");
    let mut ends = Vec::new();
    while let Some(end) = clients.join_next().await {
        ends.push(end.expect("a client").duration_since(began).as_secs_f64());
    }
    ends.sort_by(f64::total_cmp);
    assert_eq!(balancer.exit().await.code(), Some(0));
    assert!(
        ends[0] > 1.8,
        "the first was closed after {} s, in the first half",
        ends[0]
    );
    // Evenly: none is closed before its time, and the last quarter has its share.
    let late = ends.iter().filter(|end| **end > 3.0).count();
    assert!(
        late >= 10,
        "{late} of 40 in the second half of it: {ends:?}"
    );
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let node = Node::echo("n1").await;
    for second in ["TERM", "INT"] {
        let balancer = Balancer::start(&stopping("10m", &simple("tcp", "", &[&node])));
        let address = balancer.address("main").await;
        let (mut live, _) = greeted(address).await;
        balancer.signal("TERM");
        within("the listener to close", async {
            while TcpStream::connect(address).await.is_ok() {
                crate::harness::a_moment().await;
            }
        })
        .await;
        echoed(&mut live, b"still here").await;
        balancer.signal(second);
        balancer.exit().await;
    }
}

#[tokio::test]
async fn sighup_reloads() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&simple("tcp", "", &[&n1]));
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    balancer.write(&simple("tcp", "", &[&n1, &n2]));
    balancer.signal("HUP");
    within("the reload", async {
        while crate::harness::find_backend(
            &balancer.get("/api/v1/pools").await.json(),
            "nodes",
            "n2",
        )
        .is_none()
        {}
    })
    .await;
    let names = [greeted(address).await.1, greeted(address).await.1];
    assert!(names.contains(&"n2".to_owned()), "{names:?}");
    echoed(&mut live, b"still here").await;
}

fn logged(output: &str, more: &str, config: &str) -> String {
    format!("[access_log]\noutput = \"{output}\"\n{more}\n\n{config}")
}

#[tokio::test]
async fn each_connection_gets_one_line_with_all_that_is_known() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&logged("stdout", "", &config));
    let mut stream = tls(
        balancer.address("main").await,
        "a.example",
        &client(&[&certificate]),
    )
    .await
    .expect("TLS");
    read_line(&mut stream).await.expect("a greeting");
    echoed(&mut stream, &[7; 1000]).await;
    let source = stream.get_ref().0.local_addr().expect("an address");
    drop(stream);
    let line = balancer
        .access("the line", |line| line["event"] == "end")
        .await;
    assert_eq!(line["listener"], "main", "{line}");
    assert!(
        line["client"]
            .as_str()
            .is_some_and(|client| client.starts_with(&source.ip().to_string())),
        "{line}"
    );
    assert_eq!(line["sni"], "a.example", "{line}");
    assert_eq!(
        (&line["pool"], &line["backend"], &line["tries"]),
        (&"nodes".into(), &"n1".into(), &1.into()),
        "{line}"
    );
    assert_eq!(line["bytes_from_client"], 1000, "{line}");
    assert_eq!(line["bytes_from_backend"], 1003, "{line}");
    for field in ["time", "id", "connect_ms", "duration_ms"] {
        assert!(!line[field].is_null(), "{field} is missing in {line}");
    }
    assert_eq!(
        (&line["end"]["side"], &line["end"]["phase"]),
        (&"client".into(), &"relay".into()),
        "{line}"
    );
}

#[tokio::test]
async fn ends_name_their_side_and_how() {
    let node = Node::scripted(|mut stream, number| async move {
        let mut byte = [0];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
        if number == 0 {
            crate::clients::reset(stream);
        }
    })
    .await;
    let balancer = Balancer::start(&logged("stdout", "", &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    for how in ["rst", "fin"] {
        let mut stream = connect(address).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"x")
            .await
            .expect("write");
        read_to_ending(&mut stream).await;
        drop(stream);
        let line = balancer.access(how, |line| line["end"]["how"] == how).await;
        assert_eq!(line["end"]["side"], "backend", "{line}");
    }
    let stream = connect(address).await;
    node.reached(3).await;
    crate::clients::reset(stream);
    let line = balancer
        .access("a client's RST", |line| line["end"]["side"] == "client")
        .await;
    assert_eq!(line["end"]["how"], "rst", "{line}");
}

#[tokio::test]
async fn a_websocket_line_names_host_and_path_and_never_the_query() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&logged("stdout", "", &simple("websocket", "", &[&node])));
    let address = balancer.address("main").await;
    let socket = websocket(address, "/chat?token=secret").await;
    drop(socket);
    let line = balancer
        .access("the session", |line| line["path"] == "/chat")
        .await;
    assert!(
        line["host"]
            .as_str()
            .is_some_and(|host| host.starts_with("127.0.0.1")),
        "{line}"
    );
    assert_eq!(line["status"], 101, "{line}");
    http(
        address,
        "GET /poll?token=secret HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    let line = balancer
        .access("the request", |line| line["path"] == "/poll")
        .await;
    assert_eq!(
        (&line["method"], &line["status"], &line["host"]),
        (&"GET".into(), &200.into(), &"chat.example".into())
    );
    assert!(!balancer.stdout.all().join("").contains("secret"));
}

#[tokio::test]
async fn open_and_interval_lines_make_a_long_connection_visible() {
    let node = Node::echo("n1").await;
    let more = "log_at = [\"open\", \"interval\", \"end\"]\ninterval = \"1s\"";
    let balancer = Balancer::start(&logged("stdout", more, &simple("tcp", "", &[&node])));
    let (mut stream, _) = greeted(balancer.address("main").await).await;
    let open = balancer
        .access("the open line", |line| line["event"] == "open")
        .await;
    echoed(&mut stream, &[1; 50]).await;
    let interval = balancer
        .access("an interval line", |line| {
            line["event"] == "interval" && line["bytes_from_client"] == 50
        })
        .await;
    drop(stream);
    let end = balancer
        .access("the end line", |line| line["event"] == "end")
        .await;
    assert!(
        open["id"] == interval["id"] && interval["id"] == end["id"],
        "{open} {interval} {end}"
    );
}

#[tokio::test]
async fn text_lines_and_control_bytes_cannot_forge_a_line() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&logged(
        "stdout",
        "format = \"text\"",
        &simple("websocket", "", &[&node]),
    ));
    let address = balancer.address("main").await;
    http(
        address,
        "GET /a%0aend=forged\x7f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    http(
        address,
        "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let line = balancer
        .stdout
        .wait("the line", 0, |line| {
            line.contains("/plain").then(|| line.to_owned())
        })
        .await;
    assert!(
        line.contains("listener=main") && line.contains("status=200"),
        "{line}"
    );
    for line in balancer.stdout.all() {
        assert!(
            !line.bytes().any(|byte| byte < 0x20 || byte == 0x7f),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn sigusr1_reopens_the_access_log() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let (log, moved) = (launch.path("access.log"), launch.path("access.log.1"));
    let balancer = launch.start(&logged(
        &log.display().to_string(),
        "",
        &simple("tcp", "", &[&node]),
    ));
    let address = balancer.address("main").await;
    let lines = |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .count()
    };
    let one = async |wanted: &std::path::Path, count: usize| {
        within("a line in the file", async {
            while lines(wanted) < count {
                crate::harness::a_moment().await;
            }
        })
        .await;
    };
    drop(greeted(address).await);
    one(&log, 1).await;
    std::fs::rename(&log, &moved).expect("rotate");
    drop(greeted(address).await);
    one(&moved, 2).await;
    balancer.signal("USR1");
    within("the new file", async {
        while !log.exists() {
            crate::harness::a_moment().await;
        }
    })
    .await;
    drop(greeted(address).await);
    one(&log, 1).await;
    assert_eq!(lines(&moved), 2);
}

#[tokio::test]
async fn a_stop_writes_the_lines_of_what_it_closed() {
    let node = Node::echo("n1").await;
    let config = stopping("1s", &logged("stdout", "", &simple("tcp", "", &[&node])));
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(greeted(address).await);
    }
    balancer.signal("TERM");
    balancer.exit().await;
    for (stream, _) in &mut held {
        assert_eq!(
            read_to_ending(stream).await.0,
            b"",
            "a stop invents no bytes"
        );
    }
    // The pipe may hold lines that the reading thread has not yet given out.
    within("ten lines", async {
        while balancer.stdout.position() < 10 {
            crate::harness::a_moment().await;
        }
    })
    .await;
    let ends: Vec<Value> = balancer
        .stdout
        .all()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(ends.len(), 10, "{ends:?}");
    assert!(
        ends.iter()
            .all(|line| line["end"]["side"] == "evenkeel" && line["end"]["how"] == "stop"),
        "{ends:?}"
    );
}

// What came while the process stopped was given to a backend, to be cut seconds later.
#[tokio::test]
async fn what_a_websocket_listener_takes_while_it_stops_is_told_to_come_again() {
    let node = Node::web("n1").await;
    let keys = "retry_after = { min = \"20s\", max = \"30s\" }";
    let balancer = Balancer::start(&stopping("10m", &simple("websocket", keys, &[&node])));
    let address = balancer.address("main").await;
    balancer.halt().await;
    let mut upgrade = connect(address).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    balancer.signal("TERM");
    balancer.signal("CONT");
    // The log tells it when the listeners have stopped.
    let is_stopping = |event: &Event| event.message().starts_with("stopping");
    balancer.event("the stop", 0, is_stopping).await;
    let answer = http_on(&mut upgrade, &request).await;
    assert_eq!(answer.status, 503, "{}", answer.head);
    let lower = answer.head.to_lowercase();
    let seconds = lower.split("retry-after: ").nth(1).unwrap();
    let seconds: u64 = seconds.lines().next().unwrap().parse().unwrap();
    assert!((20..=30).contains(&seconds), "{}", answer.head);
    assert!(lower.contains("connection: close"), "{}", answer.head);
    assert_eq!(node.accepted(), 0);
}
