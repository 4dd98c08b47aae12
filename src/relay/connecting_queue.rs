//! Connects under way, in the order in which they began. Each is looked at after the same time, so
//! that the head of the row is due first: no connect has a timer, and a worker with a large table
//! finds them without a sweep.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::clock::{Tick, Ticks};
use super::table::SessionKey;
use crate::net::OVERDUE_AFTER;

/// Two looks are at least this far apart.
const SPACING: Duration = Duration::from_millis(50);
/// Room that an empty row keeps: a storm's is given back.
const KEPT: usize = 1024;

/// The row of one worker. Most of those in it are connected, or gone, when their time comes.
#[derive(Debug, Default)]
pub(super) struct ConnectingQueue {
    row: VecDeque<(Tick, SessionKey)>,
    next: Option<Instant>,
}

impl ConnectingQueue {
    /// A connect begins.
    pub fn push(&mut self, key: SessionKey, tick: Tick, now: Instant) {
        self.row.push_back((tick, key));
        self.next.get_or_insert(now + OVERDUE_AFTER);
    }

    /// When the worker must look here again.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Those that are due.
    pub fn take_due(&mut self, tick: Tick, now: Instant) -> Vec<SessionKey> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let wait = Ticks::from(OVERDUE_AFTER);
        let is_due = |begun: &Tick| wait.left(tick.since(*begun)).is_zero();
        let count = self.row.partition_point(|(begun, _)| is_due(begun));
        let due = self.row.drain(..count).map(|(_, key)| key).collect();
        let left = |(begun, _): &(Tick, SessionKey)| wait.left(tick.since(*begun)).max(SPACING);
        self.next = self.row.front().map(|first| now + left(first));
        if self.row.is_empty() {
            self.row.shrink_to(KEPT);
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
    fn each_is_due_once_after_its_time_and_an_empty_row_wakes_nobody() {
        let start = Instant::now();
        let clock = Clock::new(start);
        let mut opening = ConnectingQueue::default();
        let push = |opening: &mut ConnectingQueue, index, millis| {
            let now = start + Duration::from_millis(millis);
            opening.push(key(index), clock.tick(now), now);
        };
        let take = |opening: &mut ConnectingQueue, after: Duration| {
            let now = start + after;
            opening.take_due(clock.tick(now), now)
        };
        assert_eq!(opening.due(), None);
        push(&mut opening, 1, 0);
        push(&mut opening, 2, 10);
        push(&mut opening, 3, 700);
        assert_eq!(opening.due(), Some(start + OVERDUE_AFTER));
        assert_eq!(take(&mut opening, OVERDUE_AFTER / 2), []);
        assert_eq!(take(&mut opening, OVERDUE_AFTER), [key(1)]);
        assert_eq!(opening.due(), Some(start + OVERDUE_AFTER + SPACING));
        assert_eq!(take(&mut opening, OVERDUE_AFTER + SPACING), [key(2)]);
        assert_eq!(take(&mut opening, 2 * OVERDUE_AFTER), [key(3)]);
        assert_eq!(opening.due(), None);
    }
}
