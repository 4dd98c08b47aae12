//! Facts of the system about this process, for `/metrics` and `status`. All are optional: `/proc`
//! may be hidden. Reading them takes microseconds, so nothing is cached.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Counts the open file descriptors.
pub(super) fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the folder's size is the answer; before, its entries are counted.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        Some(size)
    } else {
        crate::net::fds::open_count()
    }
}

/// Returns the limit of file descriptors, the soft one.
pub(super) fn max_fds() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

pub(super) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Returns the user and system time of all threads.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command name, in parentheses, may hold spaces; fields are counted behind it, from the
    // third.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |field: usize| {
        fields
            .split_whitespace()
            .nth(field - 3)?
            .parse::<u64>()
            .ok()
    };
    let (user, system) = (ticks(14)?, ticks(15)?);
    #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
    let seconds = (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_descriptors_and_time() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(open_fds().is_some_and(|open| open >= 3));
        assert!(max_fds().is_some_and(|limit| limit > 3));
        assert!(cpu_seconds().is_some());
    }
}
