//! Log lines of state changes, a bounded number of them: a backend that flaps must not fill the
//! disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::states::BackendState;

/// Lines per backend and `WINDOW`: three full flaps are enough to see.
const MAX_LINES: u32 = 6;
const WINDOW: Duration = Duration::from_secs(60);

/// A change of one backend, to be logged once no lock is held.
#[derive(Debug)]
pub(super) struct Transition {
    pub(super) pool: Arc<str>,
    pub(super) backend: Arc<str>,
    /// The state before; `unchecked` where that was a guess.
    pub(super) from: &'static str,
    pub(super) to: BackendState,
    pub(super) reason: String,
    /// Changes before this one that got no line.
    pub(super) suppressed: u32,
}

impl Transition {
    pub(super) fn log(&self) {
        let Transition {
            pool,
            backend,
            from,
            to,
            reason,
            ..
        } = self;
        let suppressed = (self.suppressed > 0).then_some(self.suppressed);
        match to {
            BackendState::Down | BackendState::Ejected | BackendState::Unresolved => {
                tracing::warn!(%pool, %backend, from, %to, reason, suppressed, "backend changed its state");
            }
            BackendState::Up | BackendState::Drain | BackendState::Maint => {
                tracing::info!(%pool, %backend, from, %to, reason, suppressed, "backend changed its state");
            }
        }
    }
}

/// The log lines that a backend has had in the present window.
#[derive(Debug, Default)]
pub(super) struct TransitionLogLimit {
    began: Option<Instant>,
    written: u32,
    suppressed: u32,
}

impl TransitionLogLimit {
    /// Allows a line for a change at `now`, and returns how many changes before it got none.
    /// `None`: no line.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u32> {
        let fresh = |began| now.saturating_duration_since(began) >= WINDOW;
        if self.began.is_none_or(fresh) {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written >= MAX_LINES {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// When the changes without a line must be summed up, so that the last line is true again.
    pub(super) fn summary_due_at(&self) -> Option<Instant> {
        let began = self.began.filter(|_| self.suppressed > 0)?;
        began.checked_add(WINDOW)
    }

    /// The number of changes without a line, once a summary is due.
    pub(super) fn take_summary(&mut self, now: Instant) -> Option<u32> {
        let due = self.summary_due_at().is_some_and(|at| at <= now);
        if due { self.allow(now) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_backend_is_logged_a_few_times_and_then_counted() {
        let (mut lines, start) = (TransitionLogLimit::default(), Instant::now());
        let logged = (0..100).filter(|_| lines.allow(start).is_some()).count();
        assert_eq!(logged, MAX_LINES as usize);
        let later = start + WINDOW;
        assert_eq!(lines.summary_due_at(), Some(later));
        assert_eq!(lines.take_summary(start), None);
        assert_eq!(lines.take_summary(later), Some(100 - MAX_LINES));
        assert_eq!(lines.summary_due_at(), None);
    }

    #[test]
    fn rare_changes_are_all_logged() {
        let (mut lines, start) = (TransitionLogLimit::default(), Instant::now());
        let logged = (0..20).filter(|n| lines.allow(start + WINDOW * *n) == Some(0));
        assert_eq!(logged.count(), 20);
    }
}
