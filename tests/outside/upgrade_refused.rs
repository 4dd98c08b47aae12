//! Upgrades that are refused or fail on the way: the process that serves serves on, and says why.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tokio::net::TcpStream;

use crate::clients::{echoed, greeted};
use crate::harness::{Answer, Balancer, Event, Launch};
use crate::nodes::Node;
use crate::settings::{listener, simple};
use crate::upgrade_live::{LONG, status, upgraded};

const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");

/// A balancer that was started by a link, so that the test can put something else in its place.
struct Linked {
    balancer: Balancer,
    live: TcpStream,
}

impl Linked {
    async fn start(config: &str) -> Linked {
        let launch = Launch::new();
        let program = launch.path("evenkeel");
        symlink(BINARY, &program).expect("a link");
        let balancer = launch.by_path(program).start(config);
        let (live, _) = greeted(balancer.address("main").await).await;
        Linked { balancer, live }
    }

    /// Puts a script in place of the binary.
    fn replace(&self, script: &str) {
        let program = self.balancer.path("evenkeel");
        let next = self.balancer.path("next");
        std::fs::write(&next, script).expect("a script");
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        std::fs::rename(&next, &program).expect("in its place");
    }

    fn restore(&self) {
        let program = self.balancer.path("evenkeel");
        let _ = std::fs::remove_file(&program);
        symlink(BINARY, &program).expect("a link");
    }

    /// Upgrades in vain; gives the reasons.
    async fn refused(&mut self) -> String {
        let answer = self.balancer.post("/api/v1/upgrade", "{}").await;
        self.unchanged(&answer).await;
        answer.json()["errors"].to_string()
    }

    /// Everything is as before, but that the status tells the reason.
    async fn unchanged(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 422, "{}", answer.body);
        echoed(&mut self.live, b"as ever").await;
        let (mut next, _) = greeted(self.balancer.address("main").await).await;
        echoed(&mut next, b"a new one").await;
        let status = status(&self.balancer).await;
        assert_eq!(status["process"]["id"], self.balancer.pid(), "{status}");
        assert_eq!(
            status["upgrade"]["last_error"],
            answer.json()["errors"],
            "{status}"
        );
        let logged = |event: &Event| event.message() == "upgrade refused";
        self.balancer.event("the reason", 0, logged).await;
    }
}

fn config(node: &Node) -> String {
    LONG.to_owned() + &simple("tcp", "", &[node])
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_a_reason_with_every_mistake() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    for (broken, reason) in [
        ("[global]\nworkers = \"x\"\n", "workers"),
        (
            "tls = { certificate = [{ cert = \"no.pem\", key = \"no.key\" }] }",
            "no.pem",
        ),
    ] {
        let text = if broken.starts_with("tls") {
            config(&node).replacen(
                "pool = \"nodes\"",
                &format!("pool = \"nodes\"\n{broken}"),
                1,
            )
        } else {
            broken.to_owned() + &config(&node)
        };
        linked.balancer.write(&text);
        let reasons = linked.refused().await;
        assert!(reasons.contains(reason), "{reasons}");
    }
    linked.balancer.reload(&config(&node)).await;
    assert_ne!(upgraded(&linked.balancer).await, linked.balancer.pid());
    let refused = linked
        .balancer
        .metric(&["evenkeel_upgrades_total", "\"refused\""]);
    assert_eq!(refused.await, 2.0);
}

#[tokio::test]
async fn a_port_of_somebody_else_is_a_reason() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address").to_string();
    let further = listener("further", "tcp", "nodes").replace("127.0.0.1:0", &address);
    linked.balancer.write(&(config(&node) + &further));
    let reasons = linked.refused().await;
    assert!(reasons.contains("address in use"), "{reasons}");
    assert!(reasons.contains("further"), "{reasons}");
}

#[tokio::test]
async fn a_binary_that_is_not_there_ends_or_is_none_is_a_reason() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    std::fs::remove_file(linked.balancer.path("evenkeel")).expect("remove the link");
    let reasons = linked.refused().await;
    assert!(reasons.contains("No such file"), "{reasons}");
    linked.replace("#!/bin/sh\nexit 3\n");
    let reasons = linked.refused().await;
    assert!(reasons.contains("exit status: 3"), "{reasons}");
    linked.replace("no program at all");
    let reasons = linked.refused().await;
    assert!(reasons.contains("start "), "{reasons}");
    linked.restore();
    upgraded(&linked.balancer).await;
}

/// While the new process is waited for, nothing can be changed; and everything can after it.
#[tokio::test]
async fn a_binary_that_hangs_is_ended_and_meanwhile_changes_are_refused() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    linked.replace("#!/bin/sh\nexec sleep 600\n");
    let asked = linked.balancer.post("/api/v1/upgrade", "{}");
    let meanwhile = async {
        let begun = |event: &Event| event.message() == "upgrade: starting the new process";
        linked.balancer.event("the begin", 0, begun).await;
        let reload = linked.balancer.post("/api/v1/reload", "{}").await;
        let drain = "/api/v1/pools/nodes/backends/n1/drain";
        let drain = linked.balancer.post(drain, "{}").await;
        let second = linked.balancer.post("/api/v1/upgrade", "{}").await;
        let read = linked.balancer.get("/api/v1/status").await;
        (reload.status, drain.status, second.status, read.status)
    };
    let (answer, codes) = tokio::join!(asked, meanwhile);
    assert_eq!(codes, (409, 409, 409, 200));
    assert!(answer.body.contains("took more than"), "{}", answer.body);
    linked.unchanged(&answer).await;
    linked.balancer.reload(&config(&node)).await;
}

#[tokio::test]
async fn too_few_descriptors_for_what_is_live_are_a_reason() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    let address = linked.balancer.address("main").await;
    let mut live = Vec::new();
    for _ in 0..60 {
        live.push(greeted(address).await.0);
    }
    linked.replace(&format!("#!/bin/sh\nulimit -n 90\nexec {BINARY} \"$@\"\n"));
    let reasons = linked.refused().await;
    assert!(reasons.contains("connections at once"), "{reasons}");
    for stream in &mut live {
        echoed(stream, b"as ever").await;
    }
}

/// A program in Python in place of the new process, which ends after so many messages.
fn impostor(script: &str) -> String {
    format!(
        "#!/usr/bin/env python3\nimport json, os, socket\nlink = socket.socket(fileno=0)\n\
         def say(**message): link.send(json.dumps(message).encode())\n\
         def hear(): return socket.recv_fds(link, 65536, 64)[0]\n\
         def hello(oldest=1, newest=1):\n    hear()\n    say(message='hello', magic='evenkeel-upgrade', oldest_format=oldest,\n        \
         newest_format=newest, version='9.9.9', pid=os.getpid())\n{script}\nos.kill(os.getpid(), 9)\n"
    )
}

fn has_python() -> bool {
    let found = Path::new("/usr/bin/python3").exists();
    if !found {
        println!("SKIPPED: no python3");
    }
    found
}

#[tokio::test]
async fn a_process_of_another_format_is_a_reason() {
    if !has_python() {
        return;
    }
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    linked.replace(&impostor("hello(7, 9)\nhear()"));
    let reasons = linked.refused().await;
    assert!(
        reasons.contains("no common format: version 9.9.9 speaks 7 to 9"),
        "{reasons}"
    );
}

/// The new process may die at any message: until it serves, nothing has happened.
#[tokio::test]
async fn a_process_that_is_killed_at_any_message_changes_nothing() {
    if !has_python() {
        return;
    }
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    for script in [
        "",
        "hear()",
        "hello()",
        "hello(); hear()",
        "hello(); hear(); hear()",
        "hello(); hear(); hear(); say(message='later')",
        "hello(); hear(); hear(); say(message='built', unused=[])",
        "hello(); hear(); hear(); say(message='built', unused=[]); hear()",
        "hello(); hear(); hear(); say(message='serving')",
        "say(message='built', unused=[])",
        "link.send(b'{')",
    ] {
        linked.replace(&impostor(script));
        linked.refused().await;
    }
    linked.restore();
    upgraded(&linked.balancer).await;
}
