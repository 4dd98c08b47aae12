//! A set of keys that expire after a time; where there are too many, the oldest is dropped. No
//! clock: `now` is the caller's, since an epoch of its own.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct ExpiringSet<K> {
    lasts: Duration,
    max: usize,
    until: HashMap<K, Duration>,
    /// Keys in order of insertion, which is the order of expiry.
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Copy> ExpiringSet<K> {
    pub(crate) fn new(lasts: Duration, max: usize) -> Self {
        Self {
            lasts,
            max,
            until: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Adds a key; one that is in the set keeps its time.
    pub(crate) fn insert(&mut self, key: K, now: Duration) {
        if self.contains(&key, now) {
            return;
        }
        while self.order.len() >= self.max || self.is_over(now) {
            let Some(first) = self.order.pop_front() else {
                return;
            };
            self.until.remove(&first);
        }
        self.until.insert(key, now.saturating_add(self.lasts));
        self.order.push_back(key);
    }

    pub(crate) fn contains(&self, key: &K, now: Duration) -> bool {
        self.until.get(key).is_some_and(|until| *until > now)
    }

    /// Whether the oldest key has expired.
    fn is_over(&self, now: Duration) -> bool {
        let first = self.order.front();
        first.is_some_and(|first| !self.contains(first, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_is_remembered_for_the_while_it_was_given() {
        let mut lately = ExpiringSet::new(at(10), 100);
        lately.insert('a', at(5));
        lately.insert('a', at(14));
        assert!(lately.contains(&'a', at(14)) && !lately.contains(&'b', at(14)));
        assert!(!lately.contains(&'a', at(15)));
        lately.insert('a', at(20));
        assert!(lately.contains(&'a', at(29)) && !lately.contains(&'a', at(30)));
    }

    #[test]
    fn the_oldest_makes_room_and_what_is_over_takes_none() {
        let mut lately = ExpiringSet::new(at(10), 3);
        for key in 1..=4 {
            lately.insert(key, at(key));
        }
        let kept = |lately: &ExpiringSet<u64>, now| {
            (1..=9)
                .filter(|key| lately.contains(key, now))
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&lately, at(5)), [2, 3, 4]);
        lately.insert(9, at(100));
        assert_eq!((lately.order.len(), lately.until.len()), (1, 1));
        for key in 0..10_000 {
            lately.insert(key, at(100));
            assert!(lately.order.len() <= 3 && lately.until.len() == lately.order.len());
        }
    }
}
