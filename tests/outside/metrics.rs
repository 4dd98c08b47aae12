//! The metrics page: both of its formats by the parsers of Prometheus, where these are installed, and its histograms.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt as _;

use crate::certificates::{Certificate, client};
use crate::clients::{ask, connect, echoed, greeted, http, read_line, tls, websocket};
use crate::harness::{Answer, Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, backend_with, listener, listener_with, pool, simple};
use crate::upgrade_live::{AT_ONCE, alone, upgraded};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

async fn page(balancer: &Balancer, accept: &str) -> Answer {
    let host = balancer.address("admin").await;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    balancer.raw(request.as_bytes()).await
}

/// Waits until a metric has a value; a session counts when it has ended.
async fn becomes(balancer: &Balancer, parts: &[&str], value: f64) {
    let reached = async {
        while balancer.metric(parts).await != value {
            a_moment().await;
        }
    };
    within(&format!("{parts:?} to be {value}"), reached).await;
}

/// Gives `input` to a program and returns its output, unless it ends with an error.
fn piped(program: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a parser");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("write the page");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{arguments:?}: {said:?}");
    said.concat()
}

/// Python that has a package.
pub fn python_with(package: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/python/bin/python");
    let known = [own, PathBuf::from("/usr/bin/python3")];
    let found = known.into_iter().find(|program| {
        let import = Command::new(program)
            .args(["-c", &format!("import {package}")])
            .stderr(Stdio::null())
            .status();
        import.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: Python has no {package}");
    }
    found
}

const PARSE: &str = "
import sys
if sys.argv[1] == 'open':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
else:
    from prometheus_client.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    print(family.type, family.name, len(family.samples))
";

#[tokio::test]
async fn both_formats_are_clean_to_the_parsers_of_prometheus() {
    let (raw, web) = (Node::echo("n1").await, Node::web("n2").await);
    let config = listener("raw", "tcp", "raw")
        + &listener("web", "websocket", "web")
        + &pool("raw", "", &[backend("n1", raw.address)])
        + &pool("web", "", &[backend("n2", web.address)]);
    let balancer = Balancer::start(&config);
    let web = balancer.address("web").await;
    let (mut stream, _) = greeted(balancer.address("raw").await).await;
    echoed(&mut stream, b"some").await;
    http(
        web,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let open = page(&balancer, OPEN_METRICS).await;
    assert!(
        open.head
            .contains("application/openmetrics-text; version=1.0.0")
    );
    assert!(open.body.ends_with("\n# EOF\n"), "{}", open.body);
    assert!(
        open.body
            .contains("# UNIT evenkeel_pool_connect_seconds seconds")
    );
    let classic = page(&balancer, "*/*").await;
    assert!(classic.head.contains("text/plain; version=0.0.4"));
    assert!(!classic.body.contains("# EOF") && !classic.body.contains("# UNIT"));
    assert!(
        classic
            .body
            .contains("# TYPE evenkeel_reloads_total counter")
    );
    if let Some(python) = python_with("prometheus_client") {
        for (format, page) in [("open", &open.body), ("classic", &classic.body)] {
            let families = piped(&python, &["-c", PARSE, format], page);
            assert!(
                families.contains("histogram evenkeel_pool_connect_seconds 38"),
                "{families}"
            );
            assert!(
                families.contains("counter evenkeel_reloads 2"),
                "{families}"
            );
            assert!(families.lines().count() > 70, "{families}");
        }
    }
    let promtool = Path::new("/usr/bin/promtool");
    if promtool.exists() {
        let said = piped(promtool, &["check", "metrics"], &classic.body);
        assert_eq!(said, "", "{said}");
    } else {
        eprintln!("SKIPPED: promtool is not installed");
    }
}

#[tokio::test]
async fn histograms_have_every_step_of_a_tcp_connection() {
    let node = Node::echo("n1").await;
    let folder = Launch::new();
    let certificate = Certificate::write(folder.folder.path(), "a", &["a.example"]);
    let config = listener_with(
        "main",
        "tcp",
        "nodes",
        &format!("tls = {{ certificates = [{}] }}", certificate.toml()),
    ) + &pool(
        "nodes",
        "check = { type = \"tcp\", interval = \"1h\" }",
        &[backend("n1", node.address)],
    );
    let balancer = folder.start(&config);
    let address = balancer.address("main").await;
    let mut stream = tls(address, "a.example", &client(&[&certificate]))
        .await
        .expect("tls");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    echoed(&mut stream, b"some").await;
    stream.shutdown().await.expect("shutdown");
    drop(stream);
    becomes(&balancer, &["listener_session_seconds_count"], 1.0).await;
    for name in [
        "listener_handshake",
        "listener_setup",
        "listener_session",
        "pool_connect",
        "pool_first_byte",
        "pool_check",
    ] {
        becomes(&balancer, &[&format!("evenkeel_{name}_seconds_count")], 1.0).await;
        let sum = balancer
            .metric(&[&format!("evenkeel_{name}_seconds_sum")])
            .await;
        assert!(sum > 0.0 && sum < 60.0, "{name}: {sum}");
    }
    let of_backend = balancer.metric(&["pool_connect_seconds_sum"]).await;
    assert!(balancer.metric(&["listener_setup_seconds_sum"]).await > of_backend);
    assert_eq!(
        balancer.metric(&["pool_queue_wait_seconds_count"]).await,
        0.0
    );
}

/// The client speaks first: its wait is no part of the backend's.
#[tokio::test]
async fn a_first_byte_is_waited_for_from_the_first_byte_of_the_client() {
    let node = Node::scripted(|stream, _| crate::nodes::echo(stream)).await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    node.reached(1).await;
    becomes(&balancer, &["listener_setup_seconds_count"], 1.0).await;
    assert_eq!(
        balancer.metric(&["pool_first_byte_seconds_count"]).await,
        0.0
    );
    echoed(&mut stream, b"some").await;
    drop(stream);
    becomes(&balancer, &["listener_session_seconds_count"], 1.0).await;
    assert_eq!(
        balancer.metric(&["pool_first_byte_seconds_count"]).await,
        1.0
    );
}

#[tokio::test]
async fn responses_count_by_class_those_of_the_backend_apart() {
    let node = Node::web("n1").await;
    let backends = [backend_with("n1", node.address, "max_connections = 1")];
    let config = listener("main", "websocket", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(http(address, request).await.status, 200);
    let mut socket = websocket(address, "/").await;
    ask(&mut socket, "who").await;
    // The place is taken.
    assert_eq!(http(address, request).await.status, 503);
    for (class, of_listener, of_backend) in [
        ("1xx", 1.0, 1.0),
        ("2xx", 1.0, 1.0),
        ("4xx", 0.0, 0.0),
        ("5xx", 1.0, 0.0),
    ] {
        let class = format!("class=\"{class}\"");
        for (name, count) in [("listener", of_listener), ("backend", of_backend)] {
            let name = format!("{name}_responses_total");
            assert_eq!(
                balancer.metric(&[&name, &class]).await,
                count,
                "{name} {class}"
            );
        }
    }
    assert_eq!(
        balancer.metric(&["pool_first_byte_seconds_count"]).await,
        2.0
    );
    // The WebSocket, whose place was the last one.
    assert_eq!(
        balancer.metric(&["listener_setup_seconds_count"]).await,
        1.0
    );
}

#[tokio::test]
async fn a_wait_in_the_queue_is_in_its_histogram() {
    let node = Node::echo("n1").await;
    let backends = [backend_with("n1", node.address, "max_connections = 1")];
    let keys = "max_queue = 10\nqueue_timeout = \"5m\"";
    let config = listener("main", "tcp", "nodes") + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (first, _) = greeted(address).await;
    let mut second = connect(address).await;
    becomes(&balancer, &["pool_queued_connections"], 1.0).await;
    assert_eq!(
        balancer.metric(&["pool_queue_wait_seconds_count"]).await,
        0.0
    );
    drop(first);
    read_line(&mut second).await.expect("a greeting");
    assert_eq!(
        balancer.metric(&["pool_queue_wait_seconds_count"]).await,
        1.0
    );
}

#[tokio::test]
async fn histograms_go_on_in_the_process_after_an_upgrade() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(AT_ONCE.to_owned() + &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let (ended, _) = greeted(address).await;
    drop(ended);
    becomes(&balancer, &["listener_session_seconds_count"], 1.0).await;
    let names = ["listener_setup_seconds", "pool_connect_seconds"];
    let mut before = Vec::new();
    let (lives, _) = greeted(address).await;
    for name in names {
        before.push(balancer.metric(&[&format!("{name}_sum")]).await);
    }
    upgraded(&balancer).await;
    for (name, before) in names.into_iter().zip(before) {
        assert_eq!(
            balancer.metric(&[&format!("{name}_count")]).await,
            2.0,
            "{name}"
        );
        assert_eq!(
            balancer.metric(&[&format!("{name}_sum")]).await,
            before,
            "{name}"
        );
    }
    assert_eq!(
        balancer.metric(&["listener_session_seconds_count"]).await,
        1.0
    );
    drop(lives);
    alone(&balancer).await;
    becomes(&balancer, &["listener_session_seconds_count"], 2.0).await;
}
