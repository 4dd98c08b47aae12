//! A limit on repeated log lines: an event that happens a thousand times a second is logged once in
//! a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one through per `spacing`. Shared by threads; may be a `static`.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    spacing: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    pub(crate) const fn new(spacing: Duration) -> Self {
        Self {
            spacing,
            last: Mutex::new(None),
        }
    }

    /// True at most once per spacing.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= self.spacing);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_and_the_next_after_the_spacing() {
        let pace = LogThrottle::new(Duration::from_secs(10));
        let start = Instant::now();
        let due = |seconds| pace.is_due(start + Duration::from_secs(seconds));
        assert_eq!(
            [due(0), due(1), due(9), due(10), due(19), due(20)],
            [true, false, false, true, false, true]
        );
    }
}
