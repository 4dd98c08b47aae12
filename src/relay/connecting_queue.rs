//! Connects under way, in the order in which they began. Each is looked at after the same time, so
//! that the head of the queue is due first: no connect has a timer, and a worker with a large table
//! finds them without a sweep.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::clock::{Tick, Ticks};
use super::key::SessionKey;
use crate::net::OVERDUE_AFTER;

/// Two looks are at least this far apart.
const SPACING: Duration = Duration::from_millis(50);
/// Room that an empty queue keeps: a storm's is given back.
const KEPT: usize = 1024;

/// Connects of one worker. Most of them are done, or gone, when their time comes.
#[derive(Debug, Default)]
pub(super) struct ConnectingQueue {
    queue: VecDeque<(Tick, SessionKey)>,
    next: Option<Instant>,
}

impl ConnectingQueue {
    /// Adds a connect that begins.
    pub(super) fn push(&mut self, key: SessionKey, tick: Tick, now: Instant) {
        self.queue.push_back((tick, key));
        self.next.get_or_insert(now + OVERDUE_AFTER);
    }

    /// The time at which the worker must look here again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Those that are due.
    pub(super) fn take_due(&mut self, tick: Tick, now: Instant) -> Vec<SessionKey> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let wait = Ticks::from(OVERDUE_AFTER);
        let is_due = |begun: &Tick| wait.left(tick.since(*begun)).is_zero();
        let count = self.queue.partition_point(|(begun, _)| is_due(begun));
        let due = self.queue.drain(..count).map(|(_, key)| key).collect();
        let left = |(begun, _): &(Tick, SessionKey)| wait.left(tick.since(*begun)).max(SPACING);
        self.next = self.queue.front().map(|first| now + left(first));
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;

    fn key(index: u32) -> SessionKey {
        SessionKey {
            index,
            generation: 0,
        }
    }

    #[test]
    fn each_is_due_once_after_its_time_and_an_empty_queue_wakes_nobody() {
        let start = Instant::now();
        let clock = Clock::new(start);
        let mut connecting = ConnectingQueue::default();
        let push = |connecting: &mut ConnectingQueue, index, millis| {
            let now = start + Duration::from_millis(millis);
            connecting.push(key(index), clock.tick(now), now);
        };
        let take = |connecting: &mut ConnectingQueue, after: Duration| {
            let now = start + after;
            connecting.take_due(clock.tick(now), now)
        };
        assert_eq!(connecting.due(), None);
        push(&mut connecting, 1, 0);
        push(&mut connecting, 2, 10);
        push(&mut connecting, 3, 700);
        assert_eq!(connecting.due(), Some(start + OVERDUE_AFTER));
        assert_eq!(take(&mut connecting, OVERDUE_AFTER / 2), []);
        assert_eq!(take(&mut connecting, OVERDUE_AFTER), [key(1)]);
        assert_eq!(connecting.due(), Some(start + OVERDUE_AFTER + SPACING));
        assert_eq!(take(&mut connecting, OVERDUE_AFTER + SPACING), [key(2)]);
        assert_eq!(take(&mut connecting, 2 * OVERDUE_AFTER), [key(3)]);
        assert_eq!(connecting.due(), None);
    }
}
