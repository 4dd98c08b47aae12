//! The closing of everything a worker has, one entry after the other, evenly over a time: clients that are all cut in one
//! moment all come back in one moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frames::CloseFrame;
use super::table::SessionKey;

pub(super) struct Closing {
    queue: VecDeque<(Instant, SessionKey)>,
    until: Instant,
    goodbye: Arc<CloseFrame>,
}

impl Closing {
    pub fn new(
        mut keys: Vec<SessionKey>,
        spread: Duration,
        goodbye: Arc<CloseFrame>,
        now: Instant,
    ) -> Self {
        fastrand::shuffle(&mut keys);
        let count = keys.len().max(1) as f64;
        let at = |place: u32| now + spread.mul_f64(f64::from(place) / count);
        Self {
            queue: (0u32..).map(at).zip(keys).collect(),
            until: now + spread,
            goodbye,
        }
    }

    /// One that came later: closed when all others are.
    pub fn add(&mut self, key: SessionKey) {
        self.queue.push_back((self.until, key));
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    /// The next one that is due now.
    pub fn due(&mut self, now: Instant) -> Option<(SessionKey, Arc<CloseFrame>)> {
        self.next().filter(|at| *at <= now)?;
        let (_, key) = self.queue.pop_front()?;
        Some((key, Arc::clone(&self.goodbye)))
    }
}
