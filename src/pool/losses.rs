//! Sessions that a backend ends without a Close. A single one is deliberate, as a server kicks a
//! client; many at once are the loss of a part of the backend, as when one of its worker processes
//! dies. A refused connect is another sign of a loss.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Fewer ends are no burst, however few sessions there are: a client may have a page open in two
/// tabs.
const BURST_LEAST: u64 = 3;
/// Nor are less than this percentage of the backend's sessions: a busy server kicks some all the
/// time.
const BURST_PERCENT: u64 = 10;

/// Signs that one backend has lost sessions.
#[derive(Debug)]
pub struct Losses {
    facts: Mutex<LossFacts>,
    /// Sent when a waiting session may be found to be lost.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct LossFacts {
    /// The latest ends within a window; at most as many as make a burst.
    ends: VecDeque<Instant>,
    /// Most sessions that were live at one of them.
    sessions: u64,
    /// Ends up to then belong to a burst.
    burst_until: Option<Instant>,
    /// A connect was refused.
    refused_at: Option<Instant>,
    /// The latest probe.
    probed_at: Option<Instant>,
}

impl Default for Losses {
    fn default() -> Losses {
        Losses {
            facts: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Losses {
    /// Notes that a session ended without a Close, while so many were `live`. Ends within `window`
    /// count together.
    pub fn record_end(&self, live: u64, window: Duration, now: Instant) {
        if self.facts().record_end(live, window, now) {
            self.notify();
        }
    }

    /// Whether an end at that time was a part of a burst.
    pub fn is_burst(&self, ended: Instant) -> bool {
        let until = self.facts().burst_until;
        until.is_some_and(|until| until >= ended)
    }

    /// Notes a refused connect: no process listens there.
    pub fn record_refusal(&self, now: Instant) {
        self.facts().refused_at = Some(now);
        self.notify();
    }

    /// Whether a connect was refused since then.
    pub fn was_refused(&self, since: Instant) -> bool {
        let at = self.facts().refused_at;
        at.is_some_and(|at| at >= since)
    }

    /// Whether to probe by a connect now; at most once per `spacing`.
    pub fn may_probe(&self, spacing: Duration, now: Instant) -> bool {
        let mut facts = self.facts();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < spacing;
        let may = !facts.probed_at.is_some_and(is_recent);
        if may {
            facts.probed_at = Some(now);
        }
        may
    }

    /// Notified when a waiting session should look again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes the waiting sessions: one may be found to be lost.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    fn facts(&self) -> MutexGuard<'_, LossFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LossFacts {
    /// Notes an end; true when a burst begins with it.
    fn record_end(&mut self, live: u64, window: Duration, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > window;
        while self.ends.front().is_some_and(is_old) {
            self.ends.pop_front();
        }
        if self.ends.is_empty() {
            self.sessions = 0;
        }
        self.sessions = self.sessions.max(live);
        self.ends.push_back(now);
        let enough = BURST_LEAST.max((self.sessions * BURST_PERCENT).div_ceil(100));
        if (self.ends.len() as u64) < enough {
            return false;
        }
        self.ends.pop_front();
        let was_burst = self.burst_until.is_some_and(|until| until >= now);
        self.burst_until = now.checked_add(window);
        !was_burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(500);

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn three_ends_are_a_burst_and_two_are_none() {
        let (losses, start) = (Losses::default(), Instant::now());
        for moment in [0, 10] {
            losses.record_end(10, WINDOW, at(start, moment));
        }
        assert!(!losses.is_burst(start));
        losses.record_end(10, WINDOW, at(start, 500));
        assert!(losses.is_burst(start), "it was held until now");
    }

    #[test]
    fn ends_one_after_the_other_are_no_burst() {
        let (losses, start) = (Losses::default(), Instant::now());
        for moment in 0..100 {
            losses.record_end(10, WINDOW, at(start, moment * 300));
            assert!(!losses.is_burst(at(start, moment * 300)), "{moment}");
        }
    }

    #[test]
    fn a_burst_of_a_large_backend_is_a_tenth_of_it() {
        let (losses, start) = (Losses::default(), Instant::now());
        for end in 0..99 {
            losses.record_end(1000 - end, WINDOW, at(start, end));
        }
        assert!(!losses.is_burst(start));
        losses.record_end(901, WINDOW, at(start, 100));
        assert!(losses.is_burst(start));
    }

    /// Sessions that end behind a burst, as the rest of a process goes, belong to it; one that is
    /// kicked later does not.
    #[test]
    fn a_burst_lasts_for_a_window() {
        let (losses, start) = (Losses::default(), Instant::now());
        for _ in 0..3 {
            losses.record_end(3, WINDOW, start);
        }
        assert!(losses.is_burst(at(start, 500)));
        assert!(!losses.is_burst(at(start, 501)));
        losses.record_end(3, WINDOW, at(start, 501));
        assert!(!losses.is_burst(at(start, 501)));
    }

    #[test]
    fn one_probe_serves_all_that_wait() {
        let (losses, start) = (Losses::default(), Instant::now());
        assert!(losses.may_probe(WINDOW, start));
        assert!(!losses.may_probe(WINDOW, at(start, 499)));
        assert!(losses.may_probe(WINDOW, at(start, 500)));
    }

    #[tokio::test]
    async fn waiting_sessions_are_notified_of_a_burst_and_of_a_refusal() {
        let (losses, start) = (Losses::default(), Instant::now());
        let mut changes = losses.changes();
        losses.record_end(1, WINDOW, start);
        assert!(!changes.has_changed().unwrap());
        losses.record_end(1, WINDOW, start);
        losses.record_end(1, WINDOW, start);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!losses.was_refused(start));
        losses.record_refusal(start);
        assert!(changes.has_changed().unwrap() && losses.was_refused(start));
    }
}
