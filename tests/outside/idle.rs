//! A process that has nothing to do does nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::clients::{echoed, greeted};
use crate::harness::Launch;
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};

/// Long beside the periods of what used to look about all the time: 250 ms and 2 s.
const WATCHED: Duration = Duration::from_secs(5);
/// Of all threads together, in that time; there were 50.
const MOST: u64 = 5;

/// How often threads of a process have gone to sleep of themselves.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let count = |task: PathBuf| {
        let status = fs::read_to_string(task.join("status")).ok()?;
        let name = "voluntary_ctxt_switches:";
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.flatten().filter_map(|task| count(task.path())).sum()
}

/// Failover, rebalance and the files of TLS were looked at ten times a second, whoever had asked for it.
#[tokio::test]
async fn a_process_whose_connections_idle_is_left_asleep() {
    let node = Node::echo("n1").await;
    let text = "[global]\nlog_format = \"json\"\nwatch = false\n\n".to_owned()
        + &listener("main", "tcp", "p")
        + &pool("p", "", &[backend("n1", node.address)]);
    let balancer = Launch::new().start(&text);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        let (mut stream, _) = greeted(balancer.address("main").await).await;
        echoed(&mut stream, b"hello").await;
        sessions.push(stream);
    }
    // What a session needs set for a long life is set by the first sweep, threads that helped at the start end after 10 s.
    let mut woken = u64::MAX;
    for _ in 0..6 {
        let before = sleeps(balancer.pid());
        tokio::time::sleep(WATCHED).await;
        woken = sleeps(balancer.pid()).saturating_sub(before);
        if woken <= MOST {
            return;
        }
    }
    panic!("woken {woken} times in {WATCHED:?}");
}
