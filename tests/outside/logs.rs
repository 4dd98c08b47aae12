//! The two logs under strain: a reader that stands still stops nothing, and neither floods nor
//! padding decide what is written.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clients::{connect, http, read_answer, read_exactly, read_to_ending};
use crate::harness::{Balancer, Event, Launch, a_moment, complete, raw_request, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

fn logged(keys: &str, config: &str) -> String {
    format!("[access_log]\noutput = \"stdout\"\n{keys}\n\n{config}")
}

fn config(protocol: &str, keys: &str, node: &Node) -> String {
    listener_with("main", protocol, "nodes", keys)
        + &pool("nodes", "", &[backend("n1", node.address)])
}

const DENIED: &str = "deny = [\"127.0.0.0/8\"]";

/// So many connections that are turned away; the reset may overtake the connect.
async fn turned_away(address: SocketAddr, count: usize) {
    join_all((0..count).map(|_| async {
        match TcpStream::connect(address).await {
            Ok(mut stream) => drop(read_to_ending(&mut stream).await),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }))
    .await;
}

/// A balancer whose outputs are read by nobody, but for the first lines of its log.
struct Unread {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    main: SocketAddr,
    admin: SocketAddr,
    _launch: Launch,
}

impl Unread {
    fn start(config: &str) -> Unread {
        let launch = Launch::new();
        let file = launch.path("balancer.toml");
        std::fs::write(&file, complete(config)).expect("write the configuration");
        let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["run", "--config", &file.display().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the balancer");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut address = |name: &str| -> SocketAddr {
            loop {
                let mut line = String::new();
                assert!(log.read_line(&mut line).expect("its log") > 0, "it ended");
                let event = Event::parse(&line).expect("JSON");
                if event.field("listener") == Some(name) && event.message() == "listening" {
                    return event.field("address").expect("it").parse().expect("one");
                }
            }
        };
        let (main, admin) = (address("main"), address("admin"));
        Unread {
            child,
            log: Some(log),
            main,
            admin,
            _launch: launch,
        }
    }

    async fn get(&self, path: &str) -> String {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        let answer = raw_request(self.admin, request.as_bytes()).await;
        assert_eq!(answer.status, 200);
        answer.body
    }

    async fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").await;
        let line = page.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.expect("it").parse().expect("a number")
    }

    /// Asks it to stop and waits for its end.
    async fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let ended = async {
            while self.child.try_wait().expect("wait for it").is_none() {
                a_moment().await;
            }
        };
        within("the balancer to end", ended).await;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With the pipe of the log full, each thread stood still at its next line.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nobody_and_its_losses_are_told() {
    let node = Node::echo("n1").await;
    let mut balancer = Unread::start(&config("tcp", DENIED, &node));
    // Each is worth a line at the level of debugging.
    while balancer.metric("evenkeel_log_dropped_lines_total").await == 0.0 {
        turned_away(balancer.main, 250).await;
    }
    assert_eq!(balancer.get("/healthz").await.trim(), "ok");
    let log = balancer.log.take().expect("its log");
    let told = tokio::task::spawn_blocking(move || {
        let mut lines = log.lines().map_while(Result::ok);
        lines.any(|line| line.contains("log lines were dropped"))
    });
    // Whoever reads again gets on; the next line tells of the loss.
    let nudged = async {
        while !told.is_finished() {
            turned_away(balancer.main, 1).await;
        }
        told.await.expect("no panic")
    };
    assert!(within("the loss to be told", nudged).await);
    balancer.stop().await;
}

/// A stop had no end: its first word stood still in the full pipe of the log.
#[tokio::test]
async fn a_stop_ends_with_both_outputs_stuck() {
    let node = Node::echo("n1").await;
    let text = logged("", &config("tcp", "", &node));
    node.kill().await;
    let mut balancer = Unread::start(&text);
    // Each is worth a line of either log: no backend is there.
    while balancer.metric("evenkeel_log_dropped_lines_total").await == 0.0 {
        turned_away(balancer.main, 250).await;
    }
    balancer.stop().await;
}

#[tokio::test]
async fn a_long_host_leaves_the_path_its_room() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&logged("", &config("websocket", "", &node)));
    let address = balancer.address("main").await;
    let host = format!("{}.example", "a".repeat(50));
    let host = [host.as_str(); 4].join(".");
    let request =
        format!("GET /admin/delete?x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    http(address, &request).await;
    let line = balancer
        .access("its line", |line| line["host"].is_string())
        .await;
    assert_eq!(line["path"], "/admin/delete");
    assert_eq!(line["host"].as_str().map(str::len), Some(128));
}

/// A flood of connections that were turned away was written to the last one.
#[tokio::test]
async fn lines_of_what_is_turned_away_are_paced_and_those_left_out_are_told() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&logged("", &config("tcp", DENIED, &node)));
    let address = balancer.address("main").await;
    let begun = std::time::Instant::now();
    turned_away(address, 1_000).await;
    let mut sent = 1_000;
    let written = || {
        let lines = balancer.stdout.all();
        let lines = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let skipped = |line: &Value| line["skipped"].as_u64().unwrap_or(0);
        lines.fold((0, 0), |(count, left), line| {
            (count + 1, left + skipped(&line))
        })
    };
    // The next second tells of those that the last one left out.
    let all = async {
        while {
            let (lines, skipped) = written();
            lines + skipped < sent
        } {
            turned_away(address, 1).await;
            sent += 1;
        }
    };
    within("all to be told of", all).await;
    let (lines, skipped) = written();
    assert_eq!(lines + skipped, sent);
    let seconds = begun.elapsed().as_secs() + 2;
    assert!(lines <= 100 * seconds, "{lines} lines in {seconds} s");
}

/// A probe that connects and leaves, then a client that is served, on each kind of listener.
#[tokio::test]
async fn connections_without_a_byte_are_left_out_if_asked() {
    let node = Node::web("n1").await;
    for (protocol, keys) in [
        ("tcp", ""),
        ("websocket", ""),
        ("tcp", "tls = { passthrough = true }"),
        (
            "websocket",
            "accept_proxy = true\ntrusted = [\"127.0.0.1\"]",
        ),
    ] {
        for (log, expected) in [("", 2), ("log_null = false", 1)] {
            let balancer = Balancer::start(&logged(log, &config(protocol, keys, &node)));
            let address = balancer.address("main").await;
            drop(connect(address).await);
            let proxy = if keys.contains("proxy") {
                "PROXY UNKNOWN\r\n"
            } else {
                ""
            };
            let request = format!("{proxy}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let mut stream = connect(address).await;
            stream.write_all(request.as_bytes()).await.expect("write");
            match keys.contains("passthrough") {
                // It is no ClientHello, which is said and refused.
                true => drop(read_to_ending(&mut stream).await),
                false => drop(read_answer(&mut stream).await),
            }
            drop(stream);
            let both = async {
                while balancer.metric(&["evenkeel_listener_ends_total"]).await < 2.0 {
                    a_moment().await;
                }
            };
            within("both to end", both).await;
            balancer.signal("TERM");
            balancer.exit().await;
            let lines = balancer.stdout.all();
            assert_eq!(lines.len(), expected, "{protocol} {keys} {log}: {lines:?}");
        }
    }
}

/// Makes standard error what systemd says it is in a unit: the journal's stream.
const JOURNAL: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)";

fn in_text(node: &Node) -> String {
    "[global]\nwatch = false\n\n".to_owned() + &config("tcp", "", node)
}

async fn line_with(balancer: &Balancer, part: &str) -> String {
    let wanted = |line: &str| line.contains(part).then(|| line.to_owned());
    balancer.log.wait(part, 0, wanted).await
}

#[tokio::test]
async fn lines_for_the_journal_have_their_priority_and_no_second_time() {
    let node = Node::echo("n1").await;
    let balancer = Launch::new().after(JOURNAL).start(&in_text(&node));
    let line = line_with(&balancer, "listening listener=\"main\"").await;
    assert!(line.starts_with("<6>INFO listening"), "{line}");
    std::fs::write(&balancer.config, "[").expect("write the configuration");
    balancer.signal("HUP");
    let line = line_with(&balancer, "the present configuration goes on").await;
    assert!(line.starts_with("<3>ERROR reload refused"), "{line}");
    let lines = balancer.log.all();
    let has_priority = |line: &String| line.starts_with('<') && line.as_bytes()[2] == b'>';
    assert!(lines.iter().all(has_priority), "{lines:#?}");
}

#[tokio::test]
async fn errors_of_the_start_have_their_priority_in_the_journal() {
    let balancer = Launch::new()
        .after(JOURNAL)
        .start("[[listener]]\nname = 7\n");
    assert_eq!(balancer.exit().await.code(), Some(1));
    let lines = balancer.log.all();
    assert!(lines.len() > 2, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line.starts_with("<3>")),
        "{lines:#?}"
    );
}

/// A log that was led elsewhere has the variable of its unit all the same.
#[tokio::test]
async fn lines_that_do_not_go_to_the_journal_have_their_time() {
    let node = Node::echo("n1").await;
    let launch = Launch::new().after("export JOURNAL_STREAM=1:2");
    let balancer = launch.start(&in_text(&node));
    let line = line_with(&balancer, "listening listener=\"main\"").await;
    assert!(
        line.starts_with("20") && line.contains("Z  INFO listening"),
        "{line}"
    );
}

#[tokio::test]
async fn json_lines_are_the_same_in_the_journal() {
    let node = Node::echo("n1").await;
    let balancer = Launch::new()
        .after(JOURNAL)
        .start(&config("tcp", "", &node));
    let is_it = |event: &Event| event.message() == "listening";
    let event = balancer.event("the listener", 0, is_it).await;
    assert_eq!(event.level(), "INFO");
    assert!(balancer.log.all().iter().all(|line| line.starts_with('{')));
}

/// Exchanges that the end of the process cut off wrote their lines after the last flush.
#[tokio::test]
async fn downloads_that_the_end_cuts_off_have_their_lines() {
    const DOWNLOADS: usize = 8;
    let node = Node::scripted(|mut stream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfirst";
        let _ = stream.write_all(head).await;
        std::future::pending::<()>().await;
    })
    .await;
    let balancer = Balancer::start(&logged("", &config("websocket", "", &node)));
    let address = balancer.address("main").await;
    let download = || async {
        let mut stream = connect(address).await;
        let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.expect("ask");
        let mut seen = Vec::new();
        while !seen.ends_with(b"first") {
            seen.extend(read_exactly(&mut stream, 1).await);
        }
        stream
    };
    let _downloads = join_all((0..DOWNLOADS).map(|_| download())).await;
    balancer.signal("TERM");
    let is_stopping = |event: &Event| event.message().starts_with("stopping");
    balancer.event("the stop", 0, is_stopping).await;
    balancer.signal("TERM");
    balancer.exit().await;
    let lines = balancer.stdout.all();
    let ends = lines.iter().filter(|line| line.contains("\"/large\""));
    assert_eq!(ends.count(), DOWNLOADS, "{lines:#?}");
}
