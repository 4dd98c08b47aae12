//! The bound of the process's memory. Near the kernel's limit new connections are refused, so that
//! it does not kill the process and all live connections. There is no watcher: each new connection
//! asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::log_throttle::LogThrottle;
use crate::base::units::{format_size, readable_size};
use crate::config::defaults::MAX_MEMORY_PERCENT;
use crate::net::memory::{anonymous_bytes, group_limit, release_free_pages};

/// Time between two readings of the memory in use; one costs about 50 us.
const SPACING: Duration = Duration::from_millis(50);
/// Time between two orders to give memory back, which cost more.
const GIVE_BACK_SPACING: Duration = Duration::from_millis(500);
/// Between two lines that say that memory is short.
const WARN_SPACING: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct MemoryBound {
    /// 0: none.
    max: AtomicU64,
    is_short: AtomicBool,
    read: LastDone,
    given_back: LastDone,
    log: ShortageLog,
}

impl MemoryBound {
    /// Takes over the bound of the configuration, or else that of the control groups.
    pub(super) fn apply(&self, wanted: Option<u64>) {
        let max = wanted.or_else(group_share).unwrap_or(0);
        let before = self.max.swap(max, Ordering::Relaxed);
        self.is_short.store(false, Ordering::Relaxed);
        self.read.forget();
        if max == 0 {
            self.log.room();
        }
        if max != before {
            let max_memory = format_size(max);
            tracing::info!(max_memory, "memory budget");
        }
    }

    /// The bound in bytes; 0: none.
    pub(super) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Whether the process takes more than it should, as of a moment ago. `now` is the time of any
    /// clock that always goes on.
    pub(super) fn is_short(&self, now: Duration) -> bool {
        let max = self.max();
        if max == 0 {
            return false;
        }
        if self.read.is_due(now, SPACING) {
            let is_short = self.takes_too_much(max, now);
            self.is_short.store(is_short, Ordering::Relaxed);
        }
        self.is_short.load(Ordering::Relaxed)
    }

    fn takes_too_much(&self, max: u64, now: Duration) -> bool {
        let used = || anonymous_bytes().unwrap_or(0);
        let mut bytes = used();
        if bytes >= max && self.given_back.is_due(now, GIVE_BACK_SPACING) {
            release_free_pages();
            bytes = used();
        }
        if bytes >= max {
            self.log.short(bytes, max);
        } else {
            self.log.room();
        }
        bytes >= max
    }
}

/// State of the log: a line once in a while that memory is short, and one that it is so no more.
#[derive(Debug)]
struct ShortageLog {
    throttle: LogThrottle,
    is_short: AtomicBool,
}

impl Default for ShortageLog {
    fn default() -> Self {
        Self {
            throttle: LogThrottle::new(WARN_SPACING),
            is_short: AtomicBool::new(false),
        }
    }
}

impl ShortageLog {
    fn short(&self, used: u64, max: u64) {
        if self.throttle.is_due(Instant::now()) {
            self.is_short.store(true, Ordering::Relaxed);
            let (used, max_memory) = (readable_size(used), format_size(max));
            tracing::warn!(
                limit = "max_memory",
                used,
                max_memory,
                "memory is short: new connections are refused"
            );
        }
    }

    fn room(&self) {
        if self.is_short.swap(false, Ordering::Relaxed) {
            tracing::info!("memory is short no more: new connections are taken");
        }
    }
}

/// The share of the control group's limit. The rest is for what the kernel counts beside it: socket
/// buffers, and files.
fn group_share() -> Option<u64> {
    let limit = group_limit()?;
    Some(limit / 100 * u64::from(MAX_MEMORY_PERCENT))
}

/// Time at which something was done last, in milliseconds and from 1; 0: never.
#[derive(Debug, Default)]
struct LastDone(AtomicU64);

impl LastDone {
    /// True for one caller in each `spacing`.
    fn is_due(&self, now: Duration, spacing: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now).saturating_add(1);
        let last = self.0.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= millis(spacing);
        let taken = || {
            self.0
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
        };
        is_due && taken().is_ok()
    }

    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_due_once_in_its_time() {
        let moment = LastDone::default();
        let at = |millis| moment.is_due(Duration::from_millis(millis), SPACING);
        assert!(at(0) && !at(0) && !at(49) && at(50) && !at(99) && at(1000));
        moment.forget();
        assert!(at(1000));
    }

    #[test]
    fn memory_is_short_above_its_bound_until_the_bound_is_another_one() {
        let (bound, now) = (MemoryBound::default(), Duration::from_secs(1));
        assert!(!bound.is_short(now), "there is no bound");
        bound.apply(Some(1));
        assert!(bound.is_short(now) && bound.is_short(now));
        bound.apply(Some(1 << 50));
        assert!(!bound.is_short(now));
        bound.apply(Some(0));
        assert!(!bound.is_short(now) && bound.max() == 0);
    }
}
