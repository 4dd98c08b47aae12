//! Readers of the logs: the schema of an access-log line, rsyslog with the configuration of `monitoring/logs`, and a human
//! who looks for one connection in both logs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::certificates::{Certificate, client};
use crate::clients::{ask, connect, greeted, http, read_to_ending, refused, tls, websocket};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::metrics::python_with;
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool};

fn monitoring(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("monitoring/logs").join(file)
}

/// Connections of many kinds, good and bad; the lines that they have left.
async fn lines_of_many_kinds() -> (Balancer, Vec<String>) {
    let (raw, web) = (Node::echo("n1").await, Node::web("n2").await);
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let secure = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = "[access_log]\noutput = \"access.log\"\nlog_at = [\"open\", \"end\"]\n\n"
        .to_owned()
        + &listener_with("secure", "tcp", "raw", &secure)
        + &listener("web", "websocket", "web")
        + &listener_with("closed", "tcp", "raw", "deny = [\"127.0.0.0/8\"]")
        + &pool("raw", "", &[backend("n1", raw.address)])
        + &pool("web", "", &[backend("n2", web.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("secure").await;
    let stream = tls(address, "a.example", &client(&[&certificate])).await;
    drop(stream.expect("tls"));
    let mut plain = connect(address).await;
    plain
        .write_all(b"no hello at all, but a line\n")
        .await
        .expect("write");
    read_to_ending(&mut plain).await;
    let web = balancer.address("web").await;
    let paths = ["/", "/%22quoted%22", "/with-a-%7f"];
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\"b\r\nConnection: close\r\n\r\n");
        http(web, &request).await;
    }
    let mut socket = websocket(web, "/chat").await;
    ask(&mut socket, "who").await;
    drop(socket);
    refused(balancer.address("closed").await).await;
    let ends = async {
        loop {
            let text = std::fs::read_to_string(balancer.path("access.log")).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let ends = lines
                .iter()
                .filter(|line| line.contains("\"event\":\"end\""));
            if ends.count() == 7 && text.ends_with('\n') {
                return lines;
            }
            a_moment().await;
        }
    };
    let lines = within("the lines of all connections", ends).await;
    (balancer, lines)
}

const VALIDATE: &str = "
import json, sys, jsonschema
check = jsonschema.Draft202012Validator(json.load(open(sys.argv[1])))
lines = 0
for line in open(sys.argv[2]):
    check.validate(json.loads(line))
    lines += 1
print(lines)
";

#[tokio::test]
async fn every_line_is_as_the_schema_says() {
    let Some(python) = python_with("jsonschema") else {
        return;
    };
    let (balancer, lines) = lines_of_many_kinds().await;
    let output = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(monitoring("access-log.schema.json"))
        .arg(balancer.path("access.log"))
        .output()
        .expect("run Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let checked = String::from_utf8_lossy(&output.stdout);
    assert_eq!(checked.trim(), lines.len().to_string());
}

/// A program that ends with the test.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn rsyslog_takes_every_line_whole_and_finds_the_faults() {
    let program = Path::new("/usr/sbin/rsyslogd");
    if !program.exists() {
        return eprintln!("SKIPPED: rsyslogd is not installed");
    }
    let (balancer, mut lines) = lines_of_many_kinds().await;
    let folder = balancer.path("").display().to_string();
    let text = std::fs::read_to_string(monitoring("rsyslog.conf")).expect("read");
    let text = text.replace("/var/log/evenkeel/", &folder);
    let file = balancer.path("rsyslog.conf");
    std::fs::write(&file, format!("global(workDirectory=\"{folder}\")\n{text}")).expect("write");
    let reader = Command::new(program)
        .args(["-n", "-f"])
        .arg(&file)
        .arg("-i")
        .arg(balancer.path("rsyslog.pid"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _reader = Reader(reader.expect("start rsyslogd"));
    let read = |name: &str| {
        let text = std::fs::read_to_string(balancer.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let faulty = |line: &&String| {
        let line: Value = serde_json::from_str(line).expect("a line");
        line["event"] == "end" && line["end"]["how"] != "fin"
    };
    let faults = lines.iter().filter(faulty).count();
    assert!(faults >= 3, "{lines:?}");
    let read_all = async {
        while read("forwarded.log").len() < lines.len() || read("faults.log").len() < faults {
            a_moment().await;
        }
    };
    within("rsyslog to read the log", read_all).await;
    let mut forwarded = read("forwarded.log");
    forwarded.sort();
    lines.sort();
    assert_eq!(forwarded, lines);
    let faults = read("faults.log");
    let denied = |line: &String| {
        line.contains(" closed id=") && line.contains("end=\"evenkeel accept refused\"")
    };
    assert!(faults.iter().any(denied), "{faults:?}");
}

#[tokio::test]
async fn a_connection_has_the_same_id_in_both_logs() {
    let node = Node::echo("n1").await;
    let dead = "127.0.0.1:1";
    let backends = [backend("n1", dead), backend("n2", node.address)];
    let config = "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener("main", "tcp", "nodes")
        + &listener("web", "websocket", "nodes")
        + &pool("nodes", "retries = 3\nbalance = \"round_robin\"", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for _ in 0..2 {
        drop(greeted(address).await);
    }
    let tried = balancer
        .access("a line of a retry", |line| line["tries"] == 2)
        .await;
    let failed = balancer
        .event("the failed connect", 0, |event| {
            event.message() == "connect failed"
        })
        .await;
    assert_eq!(failed.number("id"), tried["id"].as_u64());
    // A request that no backend gets to see.
    let web = balancer.address("web").await;
    http(web, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    let line = balancer
        .access("a bad request", |line| line["status"] == 400)
        .await;
    let told = balancer
        .event("the refusal", 0, |event| {
            event.message() == "request refused"
        })
        .await;
    assert_eq!(told.number("id"), line["id"].as_u64());
}

#[tokio::test]
async fn a_failed_handshake_has_the_same_id_in_both_logs() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let secure = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener_with("main", "tcp", "nodes", &secure)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    stream
        .write_all(b"\x16\x03\x01\x00\x05no hello")
        .await
        .expect("write");
    read_to_ending(&mut stream).await;
    let line = balancer
        .access("a failed handshake", |line| line["end"]["phase"] == "tls")
        .await;
    let told = balancer
        .event("the refusal", 0, |event| {
            event.message() == "tls handshake failed"
        })
        .await;
    assert_eq!(told.number("id"), line["id"].as_u64());
}
