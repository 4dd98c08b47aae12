//! CPU time of a process and of the machine, and the load.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Of all threads of a process.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split(' ').next().context("schedstat")?;
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Of the whole machine, all cores together.
pub fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal
    let idle = |at: &usize| matches!(at, 3 | 4);
    let busy = ticks.iter().take(8).enumerate();
    let busy: u64 = busy
        .filter(|(at, _)| !idle(at))
        .map(|(_, ticks)| ticks)
        .sum();
    Ok(Duration::from_millis(busy * 10))
}

pub fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
