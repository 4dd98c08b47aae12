//! What a process group has used, from /proc: its CPU time, its memory; and how busy the whole machine was.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Ticks per second of /proc/stat: USER_HZ is 100 on every architecture that Linux has for servers.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of every thread of a group, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Threads(HashMap<u32, u64>);

impl Threads {
    pub fn of(group: i32) -> Self {
        let tasks = members(group)
            .into_iter()
            .flat_map(|process| numbered(&process.join("task")));
        Self(
            tasks
                .filter_map(|task| Some((id(&task)?, on_cpu(&task)?)))
                .collect(),
        )
    }

    /// Seconds that the group's threads have run since `before`. Of a thread that has ended since, nothing is known.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        let spent =
            |(id, now): (&u32, &u64)| now.saturating_sub(before.0.get(id).copied().unwrap_or(0));
        self.0.iter().map(spent).sum::<u64>() as f64 / 1e9
    }
}

/// How often threads of a group have slept and been woken, all told.
pub fn wake_ups(group: i32) -> u64 {
    let tasks = members(group)
        .into_iter()
        .flat_map(|process| numbered(&process.join("task")));
    let count = |task: PathBuf| {
        let status = fs::read_to_string(task.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.filter_map(count).sum()
}

/// Memory of a group in bytes: private pages, and its share of shared ones.
pub fn proportional_bytes(group: i32) -> u64 {
    let kilobytes = |process: PathBuf| {
        let rollup = fs::read_to_string(process.join("smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    members(group)
        .into_iter()
        .filter_map(kilobytes)
        .sum::<u64>()
        * 1024
}

/// Seconds that all cores together have been busy since the machine started, steal included.
pub fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all: Vec<u64> = (stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1))
    .filter_map(|field| field.parse().ok())
    .collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].map(|at| all.get(at).copied().unwrap_or(0));
    busy.iter().sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// The processes of a group.
fn members(group: i32) -> Vec<PathBuf> {
    let is_member = |process: &PathBuf| group_of(process) == Some(group);
    numbered(&PathBuf::from("/proc"))
        .filter(is_member)
        .collect()
}

/// Field 5 of `stat`; the second, the name, may have spaces and stands in parentheses.
fn group_of(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(2)?.parse().ok()
}

fn numbered(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| id(path).is_some())
}

fn id(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

fn on_cpu(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
