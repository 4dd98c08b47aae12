//! Active checks of every kind: what brings a backend down, what brings it up, and that the next pick sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::clients::greeted;
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::{Node, read_request, switching};
use crate::settings::{backend, backend_with, listener, pool};

const PACE: &str = "interval = \"100ms\", timeout = \"500ms\", rise = 2, fall = 2";

/// A node that speaks the check's protocol, well or badly, as the switch says; other connections get its greeting.
async fn switched(good: Arc<AtomicBool>, speak: fn(bool, String) -> String) -> Node {
    Node::scripted(move |mut stream, _| {
        let good = good.clone();
        async move {
            let mut buffer = Vec::new();
            let Some(request) = read_request(&mut stream, &mut buffer).await else {
                return;
            };
            let key = request
                .header("sec-websocket-key")
                .unwrap_or_default()
                .to_owned();
            let answer = speak(good.load(Ordering::SeqCst), key);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

/// The backend goes down and up again as the switch is turned, with a reason that says something.
async fn follows_the_switch(check: &str, speak: fn(bool, String) -> String, reason: &str) {
    let good = Arc::new(AtomicBool::new(true));
    let node = switched(good.clone(), speak).await;
    let other = Node::echo("other").await;
    let config = listener("main", "tcp", "other")
        + &pool("other", "", &[backend("n1", other.address)])
        + &pool(
            "nodes",
            &format!("check = {{ {check}, {PACE} }}"),
            &[backend("n1", node.address)],
        )
        + &listener("second", "tcp", "nodes");
    let balancer = Balancer::start(&config);
    let ok = balancer
        .backend_until("nodes", "n1", |seen| seen["checks_ok"].as_u64() >= Some(2))
        .await;
    assert_eq!(ok["state"], "up", "{ok}");
    good.store(false, Ordering::SeqCst);
    let down = balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    assert!(
        down["reason"]
            .as_str()
            .is_some_and(|seen| seen.contains(reason)),
        "{down}"
    );
    assert!(down["checks_failed"].as_u64() >= Some(2), "{down}");
    good.store(true, Ordering::SeqCst);
    let up = balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "up")
        .await;
    assert!(up["state_changes"].as_u64() >= Some(2), "{up}");
    assert_eq!(balancer.backend("other", "n1").await["state"], "up");
}

#[tokio::test]
async fn http_follows_the_status() {
    follows_the_switch(
        "type = \"http\", path = \"/health\"",
        |good, _| {
            let status = if good {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        },
        "503",
    )
    .await;
}

#[tokio::test]
async fn websocket_verifies_the_accept() {
    follows_the_switch(
        "type = \"websocket\", path = \"/socket\"",
        |good, key| {
            if good {
                switching(&key)
            } else {
                switching("dGhlIHNhbXBsZSBub25jZQ==")
            }
        },
        "ccept",
    )
    .await;
}

#[tokio::test]
async fn tcp_follows_the_port() {
    let node = Node::echo("n1").await;
    let address = node.address;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            &format!("check = {{ type = \"tcp\", {PACE} }}"),
            &[backend("n1", address)],
        );
    let balancer = Balancer::start(&config);
    balancer
        .backend_until("nodes", "n1", |seen| seen["checks_ok"].as_u64() >= Some(2))
        .await;
    node.kill().await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    let _node = Node::echo_at(address, "n1").await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "up")
        .await;
    assert_eq!(greeted(balancer.address("main").await).await.1, "n1");
}

#[tokio::test]
async fn expect_sends_and_reads_bytes_or_a_pattern() {
    let good = Arc::new(AtomicBool::new(true));
    let switch = good.clone();
    let node = Node::scripted(move |mut stream, _| {
        let good = switch.clone();
        async move {
            let mut asked = [0; 6];
            if stream.read_exact(&mut asked).await.is_ok() && &asked == b"PING\r\n" {
                let answer = if good.load(Ordering::SeqCst) {
                    "+PONG 42\r\n"
                } else {
                    "-ERR loading\r\n"
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let check = |expect: &str| {
        format!("check = {{ type = \"expect\", send = \"PING\\r\\n\", {expect}, {PACE} }}")
    };
    let config = listener("main", "tcp", "bytes")
        + &pool(
            "bytes",
            &check("expect = \"+PONG\""),
            &[backend("n1", node.address)],
        )
        + &pool(
            "pattern",
            &check("expect_regex = \"PONG \\\\d+\""),
            &[backend("n1", node.address)],
        )
        + &listener("second", "tcp", "pattern");
    let balancer = Balancer::start(&config);
    for pool in ["bytes", "pattern"] {
        let seen = balancer
            .backend_until(pool, "n1", |seen| seen["checks_ok"].as_u64() >= Some(2))
            .await;
        assert_eq!(seen["state"], "up", "{seen}");
    }
    good.store(false, Ordering::SeqCst);
    for pool in ["bytes", "pattern"] {
        balancer
            .backend_until(pool, "n1", |seen| seen["state"] == "down")
            .await;
    }
}

#[tokio::test]
async fn a_ping_is_answered_by_a_living_application() {
    let alive = Node::web("n1").await;
    // Says 101 and then nothing: a frozen application behind a living kernel.
    let frozen = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let Some(request) = read_request(&mut stream, &mut buffer).await else {
            return;
        };
        let _ = stream
            .write_all(
                switching(request.header("sec-websocket-key").unwrap_or_default()).as_bytes(),
            )
            .await;
        let _ = stream.read_to_end(&mut buffer).await;
    })
    .await;
    let check = format!("check = {{ type = \"websocket\", ping = true, {PACE} }}");
    let config = listener("main", "websocket", "nodes")
        + &pool(
            "nodes",
            &check,
            &[backend("n1", alive.address), backend("n2", frozen.address)],
        );
    let balancer = Balancer::start(&config);
    balancer
        .backend_until("nodes", "n2", |seen| seen["state"] == "down")
        .await;
    let seen = balancer
        .backend_until("nodes", "n1", |seen| seen["checks_ok"].as_u64() >= Some(2))
        .await;
    assert_eq!(seen["state"], "up", "{seen}");
    for _ in 0..4 {
        let mut socket = crate::clients::websocket(balancer.address("main").await, "/").await;
        assert_eq!(crate::clients::node_of(&mut socket).await, "n1");
        let _ = socket.close(None).await;
        while socket.next().await.is_some() {}
    }
}

#[tokio::test]
async fn a_silent_backend_fails_its_check_by_timeout() {
    let seen = crate::nodes::Seen::default();
    let node = seen.node().await;
    let check = "check = { type = \"http\", interval = \"100ms\", timeout = \"200ms\", fall = 2 }";
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", check, &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let down = balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    assert!(
        down["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("200ms")),
        "{down}"
    );
    let told = |event: &crate::harness::Event| event.message() == "backend changed its state";
    let told = balancer.event("the change", 0, told).await;
    assert_eq!(told.field("from"), Some("unchecked"));
    assert_eq!(told.field("to"), Some("down"));
    assert_eq!(told.number("suppressed"), None);
}

#[tokio::test]
async fn another_port_may_be_checked() {
    let node = Node::echo("n1").await;
    let health = Node::scripted(|stream, _| async move { drop(stream) }).await;
    let port = health.address.port();
    let check = format!("check = {{ type = \"tcp\", port = {port}, {PACE} }}");
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", &check, &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    health.reached(3).await;
    assert_eq!(node.accepted(), 0, "the backend's own port was checked");
    health.kill().await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    let _node = node;
}

#[tokio::test]
async fn a_backend_that_starts_down_waits_for_its_first_checks() {
    let node = Node::echo("n1").await;
    let other = Node::echo("n2").await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let backends = [
        backend_with("n1", node.address, "init_state = \"down\""),
        backend_with("gone", gone, "init_state = \"down\""),
        backend("n2", other.address),
    ];
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            &format!("check = {{ type = \"tcp\", {PACE} }}"),
            &backends,
        );
    let balancer = Balancer::start(&config);
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "up")
        .await;
    let seen = balancer.backend("nodes", "gone").await;
    assert_eq!(seen["state"], "down", "{seen}");
    assert_eq!(seen["connections"], 0, "{seen}");
}

#[tokio::test]
async fn repeated_connect_failures_eject_without_a_check() {
    let node = Node::echo("n1").await;
    let also = Node::echo("n2").await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let keys = "outlier = { connect_failures = 3, window = \"1h\", base_ejection_time = \"1h\" }";
    let backends = [
        backend("n1", node.address),
        backend("gone", gone),
        backend("n2", also.address),
    ];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", keys, &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for _ in 0..12 {
        assert!(greeted(address).await.1.starts_with('n'));
    }
    let seen = balancer.backend("nodes", "gone").await;
    assert_eq!(seen["state"], "ejected", "{seen}");
    assert_eq!(
        seen["connect_failures"], 3,
        "an ejected backend is not tried: {seen}"
    );
}

/// One that was down for 12 s stayed out for another 16 s. Counts show it, no clock: no ejection lasts longer than a
/// second, and the first connection that probes the backend after its return stays there.
#[tokio::test]
async fn a_backend_that_was_down_for_long_serves_from_its_first_probe() {
    let (n1, n2) = (Node::echo("n1").await, Node::echo("n2").await);
    let gone = n1.address;
    n1.kill().await;
    let backends = [backend("n1", gone), backend("n2", n2.address)];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let probed_in_vain = async {
        loop {
            assert_eq!(greeted(address).await.1, "n2");
            let seen = balancer.backend("nodes", "n1").await;
            let longest = seen["reason"].as_str().unwrap().contains("out for 1s");
            if longest && seen["ejections"].as_u64() >= Some(5) {
                return seen;
            }
            a_moment().await;
        }
    };
    let before = within("five ejections", probed_in_vain).await;
    let _back = Node::echo_at(gone, "n1").await;
    let served = async {
        while greeted(address).await.1 != "n1" {
            a_moment().await;
        }
    };
    within("the backend that is back", served).await;
    let after = balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "up")
        .await;
    assert_eq!(after["connect_failures"], before["connect_failures"]);
    let names = [greeted(address).await.1, greeted(address).await.1];
    assert!(names.contains(&"n1".to_owned()), "{names:?}");
}

#[tokio::test]
async fn the_last_backend_is_never_ejected() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &[backend("n1", gone)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for _ in 0..6 {
        crate::clients::refused(address).await;
    }
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "up");
    let _back = Node::echo_at(gone, "n1").await;
    assert_eq!(greeted(address).await.1, "n1");
}

#[tokio::test]
async fn a_check_may_ask_at_another_address() {
    let node = Node::echo("n1").await;
    let sidecar = Node::echo("health").await;
    let check = format!(
        "check = {{ type = \"tcp\", address = \"{}\", {PACE} }}",
        sidecar.address
    );
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", &check, &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    sidecar.reached(2).await;
    assert_eq!(node.accepted(), 0, "the check went to the backend itself");
    sidecar.kill().await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
}

#[tokio::test]
async fn a_backend_that_is_down_is_asked_at_its_own_interval() {
    let node = Node::echo("n1").await;
    let address = node.address;
    let check = "check = { type = \"tcp\", interval = \"1h\", down_interval = \"100ms\", timeout = \"500ms\", rise = 2, fall = 1 }";
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            check,
            &[backend_with("n1", address, "init_state = \"down\"")],
        );
    let balancer = Balancer::start(&config);
    // With the interval of an hour the second check would come too late for this wait.
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "up")
        .await;
}

#[tokio::test]
async fn a_new_backend_gets_little_until_its_slow_start_is_over() {
    let (old, new) = (Node::echo("old").await, Node::echo("new").await);
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "balance = \"round_robin\"\nslow_start = \"1h\"",
            &[backend("old", old.address)],
        );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    greeted(address).await;
    balancer
        .reload(&config.replace(
            &backend("old", old.address),
            &format!(
                "{},\n  {}",
                backend("old", old.address),
                backend("new", new.address)
            ),
        ))
        .await;
    let mut picks = Vec::new();
    for _ in 0..40 {
        picks.push(greeted(address).await.1);
    }
    let fresh = picks.iter().filter(|name| *name == "new").count();
    assert!(fresh < 10, "{fresh} of 40 for a backend that has just come");
}

/// The check's own pace must not matter: with these numbers the second check comes in an hour, and `fall` asks for nine.
const SLOW: &str =
    "check = { type = \"tcp\", interval = \"1h\", timeout = \"5s\", rise = 9, fall = 9 }";

#[tokio::test]
async fn the_first_check_decides_at_start_after_maintenance_and_for_an_added_backend() {
    let (dead, alive) = (Node::echo("dead").await, Node::echo("alive").await);
    let address = dead.address;
    dead.kill().await;
    let with =
        |backends: &[String]| listener("main", "tcp", "nodes") + &pool("nodes", SLOW, backends);
    let first = backend("n1", address);
    let balancer = Balancer::start(&with(std::slice::from_ref(&first)));
    let down = balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    assert!(
        down["reason"].as_str().unwrap().contains("refused"),
        "{down}"
    );
    // One success brings up a backend that never was: soon after the first failure it is asked again.
    let node = Node::echo_at(address, "n1").await;
    let both = [first, backend("n2", alive.address)];
    balancer.reload(&with(&both)).await;
    balancer
        .backend_until("nodes", "n2", |seen| seen["check"] == "up")
        .await;
    // Only after maintenance it is asked again in this hour.
    let operate = |word: &str| format!("/api/v1/pools/nodes/backends/n1/{word}");
    balancer.post(&operate("maint"), "{}").await;
    balancer.post(&operate("ready"), "{}").await;
    balancer
        .backend_until("nodes", "n1", |seen| {
            seen["state"] == "up" && seen["check"] == "up"
        })
        .await;
    balancer.post(&operate("maint"), "{}").await;
    node.kill().await;
    balancer.post(&operate("ready"), "{}").await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["state"] == "down")
        .await;
    // A reload carries the verdict, and an added dead backend is out after one check.
    let added = [both[0].clone(), both[1].clone(), backend("n3", address)];
    balancer.reload(&with(&added)).await;
    assert_eq!(balancer.backend("nodes", "n1").await["check"], "down");
    balancer
        .backend_until("nodes", "n3", |seen| seen["state"] == "down")
        .await;
    assert_eq!(greeted(balancer.address("main").await).await.1, "alive");
}

/// A node that takes the check's connection and says nothing.
#[tokio::test]
async fn until_its_first_check_is_done_a_backend_is_unchecked() {
    let silent = Node::scripted(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let check =
        "check = { type = \"expect\", expect = \"hello\", interval = \"1h\", timeout = \"1h\" }";
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", check, &[backend("n1", silent.address)]);
    let balancer = Balancer::start(&config);
    silent.reached(1).await;
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(
        (&seen["state"], &seen["check"]),
        (&"up".into(), &"unchecked".into())
    );
    let admin = balancer.address("admin").await.to_string();
    let (_, status, error) = balancer.command(&["status", "--admin", &admin]).await;
    assert!(status.contains("unchecked"), "{status}{error}");
}

/// Checks that are wrong about every backend at once: the sessions work.
#[tokio::test]
async fn when_all_are_down_they_are_tried_or_not_as_the_pool_says() {
    let (n1, n2) = (Node::echo("n1").await, Node::echo("n2").await);
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let check = format!("check = {{ type = \"tcp\", interval = \"1h\", address = \"{gone}\" }}");
    let backends = [backend("n1", n1.address), backend("n2", n2.address)];
    let with = |key: &str| {
        listener("main", "tcp", "nodes") + &pool("nodes", &format!("{check}\n{key}"), &backends)
    };
    let balancer = Balancer::start(&with(""));
    let address = balancer.address("main").await;
    for name in ["n1", "n2"] {
        balancer
            .backend_until("nodes", name, |seen| seen["state"] == "down")
            .await;
    }
    crate::clients::refused(address).await;
    balancer.reload(&with("when_all_down = \"try\"")).await;
    let names = [greeted(address).await.1, greeted(address).await.1];
    assert!(names.contains(&"n1".to_owned()) && names.contains(&"n2".to_owned()));
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "down");
    // The operator's word is no guess.
    let maint = "/api/v1/pools/nodes/backends/n1/maint";
    assert_eq!(balancer.post(maint, "{}").await.status, 200);
    for _ in 0..3 {
        assert_eq!(greeted(address).await.1, "n2");
    }
    balancer.reload(&with("when_all_down = \"refuse\"")).await;
    crate::clients::refused(address).await;
}
