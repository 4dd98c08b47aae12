//! Limit of access-log lines for connections that end before they are routed. Such connections cost
//! a client next to nothing: without a limit a flood of them decides how much is written. The
//! metrics count all of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines of one listener in a second.
const MAX_PER_SECOND: u32 = 100;

/// Limit of one listener.
#[derive(Debug, Default)]
pub(super) struct EarlyLines(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    second: u64,
    written: u32,
    /// Lines left out since the latest one.
    skipped: u64,
}

impl EarlyLines {
    /// Admits a line at `now`, measured from any fixed moment, and returns how many were left out
    /// before it; `None`: leave this one out.
    pub(super) fn admit(&self, now: Duration) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.second != now.as_secs() {
            window.second = now.as_secs();
            window.written = 0;
        }
        if window.written >= MAX_PER_SECOND {
            window.skipped += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_lines_and_the_next_one_says_how_many_were_left_out() {
        let lines = EarlyLines::default();
        let admitted = |milliseconds| lines.admit(Duration::from_millis(milliseconds));
        let first: Vec<_> = (0..150).map(|at| admitted(7_000 + at)).collect();
        assert!(first[..100].iter().all(|skipped| *skipped == Some(0)));
        assert!(first[100..].iter().all(|skipped| skipped.is_none()));
        assert_eq!(admitted(8_000), Some(50));
        assert_eq!(admitted(8_001), Some(0));
    }
}
