//! Counts what the threads of a process do: how often they wake, and whether all of them sleep. Neither depends on how fast
//! the machine is.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, a_moment, within};

/// Files of that name, one for each thread.
fn of_all(pid: u32, name: &str) -> impl Iterator<Item = String> {
    let tasks: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .flatten()
        .map(|task| task.path().join(name))
        .collect();
    tasks
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
}

/// Counts how often threads of a process have gone to sleep of themselves.
pub fn sleeps(pid: u32) -> u64 {
    let count = |status: String| {
        let name = "voluntary_ctxt_switches:";
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    of_all(pid, "status").filter_map(count).sum()
}

/// Whether no thread runs or wants to. The state stands behind the name, which is in parentheses.
fn all_sleep(pid: u32) -> bool {
    of_all(pid, "stat").all(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" S"))
    })
}

/// Waits until every thread sleeps, at several looks: one that spins without a sleep is never seen asleep.
pub async fn at_rest(pid: u32) {
    within("every thread to sleep", async {
        for _ in 0..5 {
            while !all_sleep(pid) {
                a_moment().await;
            }
            a_moment().await;
        }
    })
    .await;
}

/// Waits for a span of `watched` in which the threads wake at most `most` times, and sleep behind it.
pub async fn wakes_at_most(pid: u32, most: u64, watched: Duration) {
    let began = Instant::now();
    loop {
        let before = sleeps(pid);
        tokio::time::sleep(watched).await;
        let woken = sleeps(pid).saturating_sub(before);
        if woken <= most {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "woken {woken} times in {watched:?}, not {most}"
        );
    }
    at_rest(pid).await;
}
