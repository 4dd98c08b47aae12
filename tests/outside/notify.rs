//! A service manager hears of the start, of each reload and of the stop: sd_notify(3), on a socket of the test's own.

use tokio::net::UnixDatagram;

use crate::clients::greeted;
use crate::harness::{Balancer, Launch, complete, within};
use crate::nodes::Node;
use crate::settings::simple;

/// The manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// Starts the balancer as a manager would; `more` are further variables, as the shell has them.
    fn start(more: &str, config: &str) -> (Manager, Balancer) {
        let launch = Launch::new();
        let path = launch.path("notify");
        let manager = Manager(UnixDatagram::bind(&path).expect("a socket for the manager"));
        let setup = format!("export NOTIFY_SOCKET={} {more}", path.display());
        (manager, launch.after(&setup).start(config))
    }

    /// The next message, by its lines.
    async fn next(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        let received = within("a message for the manager", self.0.recv(&mut buffer)).await;
        let message = &buffer[..received.expect("a message")];
        let message = std::str::from_utf8(message).expect("text");
        message.lines().map(str::to_owned).collect()
    }

    /// The first message that has this line; those before it may say anything but `never`.
    async fn until(&self, line: &str, never: &str) -> Vec<String> {
        loop {
            let message = self.next().await;
            if message.iter().any(|one| one == line) {
                return message;
            }
            let is_early = message.iter().any(|one| one == never);
            assert!(!is_early, "{never} before {line}: {message:?}");
        }
    }
}

/// What systemd compares with the stamp of the reload that it asked for.
fn monotonic_microseconds() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |number: i64| u128::try_from(number).expect("after the start of the machine");
    part(now.tv_sec) * 1_000_000 + part(now.tv_nsec) / 1_000
}

fn stamp(message: &[String]) -> u128 {
    let mut stamps = message
        .iter()
        .filter_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    stamps.next().expect("a stamp").parse().expect("a number")
}

#[tokio::test]
async fn a_manager_hears_of_the_begin_and_the_end_of_each_reload() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let (manager, balancer) = Manager::start("", &config);
    assert_eq!(manager.next().await, ["READY=1"]);
    assert_eq!(manager.next().await, ["STATUS=0 connections"]);
    for how in ["signal", "endpoint"] {
        let before = monotonic_microseconds();
        if how == "signal" {
            balancer.signal("HUP");
        } else {
            balancer.reload(&config).await;
        }
        let began = manager.until("RELOADING=1", "READY=1").await;
        let (at, now) = (stamp(&began), monotonic_microseconds());
        assert!(before <= at && at <= now, "{how}: {before} {at} {now}");
        manager.until("READY=1", "RELOADING=1").await;
    }
}

#[tokio::test]
async fn a_refused_reload_is_ready_again_and_the_status_says_so() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let (manager, balancer) = Manager::start("", &config);
    balancer.address("admin").await;
    std::fs::write(&balancer.config, "[").expect("write the configuration");
    balancer.signal("HUP");
    manager.until("RELOADING=1", "").await;
    manager.until("READY=1", "RELOADING=1").await;
    let refused = "STATUS=0 connections; the last reload was refused";
    manager.until(refused, "RELOADING=1").await;
    std::fs::write(&balancer.config, complete(&config)).expect("write the configuration");
    balancer.signal("HUP");
    manager.until("RELOADING=1", "READY=1").await;
    manager.until("READY=1", "RELOADING=1").await;
    manager.until("STATUS=0 connections", refused).await;
}

#[tokio::test]
async fn a_manager_hears_of_the_stop_and_is_asked_for_time_until_it_is_over() {
    let node = Node::echo("n1").await;
    let (manager, balancer) = Manager::start("", &simple("tcp", "", &[&node]));
    let (live, _) = greeted(balancer.address("main").await).await;
    balancer.signal("TERM");
    for _ in 0..2 {
        let message = manager.until("STOPPING=1", "RELOADING=1").await;
        assert_eq!(message[0], "STATUS=stopping; 1 connections");
        assert_eq!(message[2], "EXTEND_TIMEOUT_USEC=10000000");
    }
    drop(live);
    balancer.exit().await;
}

#[tokio::test]
async fn a_manager_hears_of_a_stop_while_clients_are_still_accepted() {
    let node = Node::echo("n1").await;
    let global = "[global]\nlog_format = \"json\"\nwatch = false\nshutdown_delay = \"10m\"\n\n";
    let config = global.to_owned() + &simple("tcp", "", &[&node]);
    let (manager, balancer) = Manager::start("", &config);
    balancer.address("admin").await;
    balancer.signal("TERM");
    for _ in 0..2 {
        let message = manager.until("STOPPING=1", "RELOADING=1").await;
        assert_eq!(
            message[0],
            "STATUS=about to stop and still accepting; 0 connections"
        );
        assert_eq!(message[2], "EXTEND_TIMEOUT_USEC=10000000");
    }
}

/// The process had ended before it looked whether there was something to tell.
#[tokio::test]
async fn the_shortest_stop_is_told() {
    let node = Node::echo("n1").await;
    let (manager, balancer) = Manager::start("", &simple("tcp", "", &[&node]));
    balancer.address("admin").await;
    balancer.signal("TERM");
    balancer.exit().await;
    manager.until("STOPPING=1", "RELOADING=1").await;
}

#[tokio::test]
async fn a_watched_process_shows_that_it_lives_and_how_many_connections_it_has() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let (manager, balancer) = Manager::start("WATCHDOG_USEC=200000 WATCHDOG_PID=$$", &config);
    let (_live, _) = greeted(balancer.address("main").await).await;
    let message = manager.until("STATUS=1 connections", "").await;
    assert_eq!(message[1], "WATCHDOG=1");
    // Without a change, too.
    assert_eq!(manager.next().await, message);
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_none_of_ours() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let (manager, _balancer) = Manager::start("WATCHDOG_USEC=200000 WATCHDOG_PID=1", &config);
    assert_eq!(manager.next().await, ["READY=1"]);
    assert_eq!(manager.next().await, ["STATUS=0 connections"]);
}
