//! A lid on the access-log lines of connections that end before they are routed. They cost their
//! client next to nothing: without it a flood of them decides how much is written. Each is counted
//! in the metrics all the same.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines of one listener in a second.
const MAX_PER_SECOND: u32 = 100;

/// Of one listener.
#[derive(Debug, Default)]
pub struct EarlyLines(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    second: u64,
    written: u32,
    /// Left out since the latest line.
    skipped: u64,
}

impl EarlyLines {
    /// Whether one more is written at `now`, since whatever moment; then how many were left out
    /// before it.
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
