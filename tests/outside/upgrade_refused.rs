//! Upgrades that are refused or fail on the way: the process that serves serves on, and says why.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use crate::clients::{echoed, greeted};
use crate::harness::{Answer, Balancer, Event, Launch, a_moment, complete, within};
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

/// Until the new process serves, the files of unix sockets are the old one's.
#[tokio::test]
async fn a_refused_upgrade_leaves_the_unix_sockets_where_they_are() {
    let node = Node::echo("n1").await;
    let mut linked = Linked::start(&config(&node)).await;
    let paths = ["main.sock", "metrics.sock"].map(|name| linked.balancer.path(name));
    let [main, metrics] = &paths;
    let bind = format!("unix:{}", main.display());
    let with = config(&node)
        + &listener("file", "tcp", "nodes").replace("127.0.0.1:0", &bind)
        + &format!("[metrics]\nbind = \"unix:{}\"\n", metrics.display());
    linked.balancer.reload(&with).await;
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address").to_string();
    let further = listener("further", "tcp", "nodes").replace("127.0.0.1:0", &address);
    linked.balancer.write(&(with.clone() + &further));
    let reasons = linked.refused().await;
    assert!(reasons.contains("address in use"), "{reasons}");
    for path in &paths {
        UnixStream::connect(path).await.expect("it is there");
    }
    // The last of all that can fail.
    linked.balancer.write(&with);
    let address = linked.balancer.address("main").await;
    let mut live = Vec::new();
    for _ in 0..60 {
        live.push(greeted(address).await.0);
    }
    linked.replace(&format!("#!/bin/sh\nulimit -n 90\nexec {BINARY} \"$@\"\n"));
    let reasons = linked.refused().await;
    assert!(reasons.contains("connections at once"), "{reasons}");
    for path in &paths {
        UnixStream::connect(path).await.expect("it is there");
    }
    linked.restore();
    drop(live);
    upgraded(&linked.balancer).await;
    for path in &paths {
        UnixStream::connect(path).await.expect("it is there");
    }
}

/// A stop does not wait for a binary that hangs.
#[tokio::test]
async fn a_stop_ends_the_process_that_is_being_started() {
    let node = Node::echo("n1").await;
    let linked = Linked::start(&config(&node)).await;
    linked.replace("#!/bin/sh\nexec sleep 600\n");
    linked.balancer.signal("USR2");
    let begun = |event: &Event| event.message() == "upgrade: starting the new process";
    linked.balancer.event("the begin", 0, begun).await;
    linked.balancer.signal("TERM");
    drop(linked.live);
    linked.balancer.exit().await;
    let log = linked.balancer.log.all().join("\n");
    assert!(log.contains("signal: 9"), "{log}");
    assert!(!log.contains("took more than"), "{log}");
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

/// The test in place of the old process.
struct OldProcess {
    link: OwnedFd,
    child: Child,
    _folder: TempDir,
}

impl OldProcess {
    fn start(config: &str) -> OldProcess {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, complete(config)).expect("write the configuration");
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (link, other) = pair.expect("a pair of sockets");
        let child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(file)
            .env("EVENKEEL_UPGRADE", std::process::id().to_string())
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the new process");
        OldProcess {
            link,
            child,
            _folder: folder,
        }
    }

    fn say(&self, message: &str, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        let bytes = [IoSlice::new(message.as_bytes())];
        sendmsg(&self.link, &bytes, &mut control, SendFlags::NOSIGNAL).expect("send");
    }

    fn say_hello(&self) {
        self.say(
            "{\"message\":\"hello\",\"magic\":\"evenkeel-upgrade\",\"oldest_format\":1,\"newest_format\":1}",
            &[],
        );
    }

    fn hand_over(&self, sockets: usize) {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut state = File::from(memfd_create("state", flags).expect("a file"));
        state.write_all(b"{}").expect("write");
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&state, seals).expect("seal");
        let message = format!("{{\"message\":\"process\",\"sockets\":{sockets},\"live\":0}}");
        self.say(&message, &[state.as_fd()]);
    }

    async fn hear(&self) -> String {
        let link = self.link.try_clone().expect("another descriptor");
        let reading = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 65536];
            let read = rustix::io::read(&link, &mut buffer).expect("read");
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        within("a message of the new process", reading)
            .await
            .expect("no panic")
    }
}

impl Drop for OldProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The old process may be killed at any message: before all is built the new one ends, too.
#[tokio::test]
async fn a_new_process_whose_old_one_dies_before_it_has_built_all_ends() {
    let node = Node::echo("n1").await;
    for stage in 0..4 {
        let mut old = OldProcess::start(&config(&node));
        if stage > 0 {
            old.say_hello();
            assert!(old.hear().await.contains("evenkeel-upgrade"));
        }
        if stage > 1 {
            old.hand_over(1);
        }
        if stage > 2 {
            old.say("{\"message\":\"lead\"}", &[]);
        }
        // Its end of the pair is all that the new one knows of it.
        let (dead, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
        old.link = dead.into();
        let ended = async {
            loop {
                if let Some(status) = old.child.try_wait().expect("wait") {
                    return status;
                }
                a_moment().await;
            }
        };
        let status = within("the new process to end", ended).await;
        assert_eq!(status.code(), Some(1), "stage {stage}");
    }
}

#[tokio::test]
async fn a_new_process_that_has_built_all_serves_if_the_old_one_dies() {
    let node = Node::echo("n1").await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket to hand over");
    let address = socket.local_addr().expect("its address");
    let mut old = OldProcess::start(&config(&node));
    old.say_hello();
    old.hear().await;
    old.hand_over(1);
    let names = format!(
        "{{\"message\":\"sockets\",\"sockets\":[{{\"configured\":\"127.0.0.1:0\",\"local\":\"{address}\",\"is_inherited\":false}}]}}"
    );
    old.say(&names, &[socket.as_fd()]);
    let built = old.hear().await;
    assert!(built.contains("\"built\""), "{built}");
    // Queued in the socket; nobody accepts yet.
    let mut early = crate::clients::connect(address).await;
    let (dead, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
    old.link = dead.into();
    drop(socket);
    assert_eq!(crate::clients::read_line(&mut early).await.unwrap(), "n1");
    greeted(address).await;
}
