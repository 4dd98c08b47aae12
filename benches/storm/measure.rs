//! CPU time of a process and of the machine, its load, and what its kernel dropped.

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

/// Connections that the kernel dropped because an accept queue was full; they come again after a second.
pub fn dropped() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = lines.next().zip(lines.next()).context("TcpExt")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "ListenOverflows");
    Ok(found.context("ListenOverflows")?.1.parse()?)
}

pub fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
