//! The end of all sessions of a worker, one after the other, evenly over a time: clients that are
//! all cut in one moment all come back in one moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key::SessionKey;
use super::websocket::close_frame::CloseFrame;

/// Sessions that are still to be ended, and when.
pub(super) struct ClosingQueue {
    queue: VecDeque<(Instant, SessionKey)>,
    until: Instant,
    frame: Arc<CloseFrame>,
}

impl ClosingQueue {
    pub(super) fn new(
        mut keys: Vec<SessionKey>,
        spread: Duration,
        frame: Arc<CloseFrame>,
        now: Instant,
    ) -> Self {
        fastrand::shuffle(&mut keys);
        let count = keys.len().max(1) as f64;
        let at = |number: u32| now + spread.mul_f64(f64::from(number) / count);
        Self {
            queue: (0u32..).map(at).zip(keys).collect(),
            until: now + spread,
            frame,
        }
    }

    /// Adds a session that came later: it is closed when all others are.
    pub(super) fn add(&mut self, key: SessionKey) {
        self.queue.push_back((self.until, key));
    }

    /// The time at which the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// The next one that is due now.
    pub(super) fn due(&mut self, now: Instant) -> Option<(SessionKey, Arc<CloseFrame>)> {
        self.next().filter(|at| *at <= now)?;
        let (_, key) = self.queue.pop_front()?;
        Some((key, Arc::clone(&self.frame)))
    }
}
