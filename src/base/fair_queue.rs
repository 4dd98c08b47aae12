//! A bounded queue in which sources take turns, and urgent items go first.
//!
//! Each lane serves its sources round robin, whatever the length of their own queues: a source with
//! a thousand waiting delays one with a single one by one turn of each source. After
//! `MAX_URGENT_RUN` urgent turns the other lane gets one, so neither starves. No clock, no waiting:
//! that is the caller's.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Turns of the urgent lane before the other one gets one.
pub(crate) const MAX_URGENT_RUN: u32 = 7;

/// Names a waiting item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueTicket<S> {
    source: S,
    urgent: bool,
    number: u64,
}

#[derive(Debug)]
pub(crate) struct FairQueue<S, T> {
    urgent: SourceQueue<S, T>,
    other: SourceQueue<S, T>,
    /// Urgent turns since the last other one.
    urgent_run: u32,
    /// Waiting items of one source in one lane.
    max_per_source: usize,
    next_number: u64,
}

#[derive(Debug)]
struct SourceQueue<S, T> {
    /// Sources in `order`, each exactly once, with or without waiting items.
    sources: HashMap<S, VecDeque<(u64, T)>>,
    order: VecDeque<S>,
    waiting: usize,
}

impl<S: Hash + Eq + Copy, T> FairQueue<S, T> {
    pub(crate) fn new(max_per_source: usize) -> Self {
        Self {
            urgent: SourceQueue::new(),
            other: SourceQueue::new(),
            urgent_run: 0,
            max_per_source,
            next_number: 0,
        }
    }

    /// Adds an item behind those of its source.
    ///
    /// # Errors
    /// The item, if its source has too many waiting.
    pub(crate) fn push(&mut self, source: S, urgent: bool, item: T) -> Result<QueueTicket<S>, T> {
        let number = self.next_number;
        let max = self.max_per_source;
        self.lane(urgent).push(source, number, item, max)?;
        self.next_number += 1;
        Ok(QueueTicket {
            source,
            urgent,
            number,
        })
    }

    /// Takes the item whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let urgent = match (self.urgent.waiting, self.other.waiting) {
            (0, _) => false,
            (_, 0) => true,
            _ => self.urgent_run < MAX_URGENT_RUN,
        };
        self.urgent_run = if urgent { self.urgent_run + 1 } else { 0 };
        self.lane(urgent).pop()
    }

    /// Removes a waiting item; `None` when it was popped already.
    pub(crate) fn remove(&mut self, ticket: &QueueTicket<S>) -> Option<T> {
        let QueueTicket {
            source,
            urgent,
            number,
        } = ticket;
        let found = self.lane(*urgent).remove(source, *number);
        // It may have been demoted.
        found.or_else(|| self.other.remove(source, *number))
    }

    /// Moves a source's urgent items to the other lane, in order of arrival. That lane may then
    /// have twice the source's limit.
    pub(crate) fn demote(&mut self, source: S) {
        let moved = self.urgent.take(&source);
        self.other.merge(source, moved);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.urgent.waiting + self.other.waiting
    }

    fn lane(&mut self, urgent: bool) -> &mut SourceQueue<S, T> {
        if urgent {
            &mut self.urgent
        } else {
            &mut self.other
        }
    }
}

impl<S: Hash + Eq + Copy, T> SourceQueue<S, T> {
    fn new() -> Self {
        Self {
            sources: HashMap::new(),
            order: VecDeque::new(),
            waiting: 0,
        }
    }

    fn push(&mut self, source: S, number: u64, item: T, max: usize) -> Result<(), T> {
        let queue = self.queue_of(source);
        if queue.len() >= max {
            return Err(item);
        }
        queue.push_back((number, item));
        self.waiting += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        while let Some(source) = self.order.pop_front() {
            let Some(queue) = self.sources.get_mut(&source) else {
                continue;
            };
            let item = queue.pop_front();
            if queue.is_empty() {
                drop(self.sources.remove(&source))
            } else {
                self.order.push_back(source)
            }
            if let Some((_, item)) = item {
                self.waiting -= 1;
                return Some(item);
            }
        }
        None
    }

    /// The queue of a source, which gets a turn with it.
    fn queue_of(&mut self, source: S) -> &mut VecDeque<(u64, T)> {
        self.sources.entry(source).or_insert_with(|| {
            self.order.push_back(source);
            VecDeque::new()
        })
    }

    /// Takes all items of a source.
    fn take(&mut self, source: &S) -> VecDeque<(u64, T)> {
        let queue = self.sources.get_mut(source);
        let taken = queue.map(std::mem::take).unwrap_or_default();
        self.waiting -= taken.len();
        self.forget_empty();
        taken
    }

    fn merge(&mut self, source: S, items: VecDeque<(u64, T)>) {
        if items.is_empty() {
            return;
        }
        self.waiting += items.len();
        let queue = self.queue_of(source);
        queue.extend(items);
        // Two sorted runs, which is quick.
        queue.make_contiguous().sort_by_key(|(number, _)| *number);
    }

    fn remove(&mut self, source: &S, number: u64) -> Option<T> {
        let queue = self.sources.get_mut(source)?;
        // Numbers rise along the queue.
        let index = queue.binary_search_by_key(&number, |(number, _)| *number);
        let (_, item) = queue.remove(index.ok()?)?;
        self.waiting -= 1;
        self.forget_empty();
        Some(item)
    }

    /// Drops empty sources once there are many. An empty source keeps its turn until then, so that
    /// leaving and coming back gains none.
    fn forget_empty(&mut self) {
        if self.order.len() <= 2 * self.waiting + 64 {
            return;
        }
        self.sources.retain(|_, queue| !queue.is_empty());
        let sources = &self.sources;
        self.order.retain(|source| sources.contains_key(source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sources_take_turns_whatever_the_length_of_their_queues() {
        let mut turns = FairQueue::new(100);
        for item in 0..5 {
            turns.push('a', false, ('a', item)).unwrap();
        }
        turns.push('b', false, ('b', 0)).unwrap();
        turns.push('c', false, ('c', 0)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        let expected = [
            ('a', 0),
            ('b', 0),
            ('c', 0),
            ('a', 1),
            ('a', 2),
            ('a', 3),
            ('a', 4),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn the_urgent_go_first_and_leave_a_turn_in_eight() {
        let mut turns = FairQueue::new(100);
        for item in 0..3 {
            turns.push(1, false, format!("other {item}")).unwrap();
        }
        for item in 0..20 {
            turns.push(2, true, format!("urgent {item}")).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        let others: Vec<_> = (0..order.len())
            .filter(|&at| order[at].starts_with("other"))
            .collect();
        assert_eq!(others, [7, 15, 22]);
    }

    #[test]
    fn a_source_has_a_bound_and_others_do_not_feel_it() {
        let mut turns = FairQueue::new(2);
        assert!(turns.push(1, false, 10).is_ok());
        assert!(turns.push(1, false, 11).is_ok());
        assert_eq!(turns.push(1, false, 12), Err(12));
        assert!(turns.push(2, false, 20).is_ok());
        assert_eq!(turns.waiting(), 3);
    }

    #[test]
    fn who_leaves_and_comes_back_gains_no_turn() {
        let mut turns = FairQueue::new(10);
        turns.push(1, false, 10).unwrap();
        turns.push(2, false, 20).unwrap();
        let left = turns.push(3, false, 30).unwrap();
        assert_eq!(turns.remove(&left), Some(30));
        assert_eq!(turns.remove(&left), None);
        turns.push(3, false, 31).unwrap();
        turns.push(3, false, 32).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [10, 20, 31, 32]);
    }

    #[test]
    fn a_demoted_source_waits_with_the_others_and_in_its_order() {
        let mut turns = FairQueue::new(10);
        turns.push(1, true, 10).unwrap();
        turns.push(1, false, 11).unwrap();
        let left = turns.push(1, true, 12).unwrap();
        turns.push(2, false, 20).unwrap();
        turns.push(3, true, 30).unwrap();
        turns.demote(1);
        assert_eq!(turns.waiting(), 5);
        assert_eq!(turns.remove(&left), Some(12));
        assert_eq!(turns.remove(&left), None);
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [30, 10, 20, 11]);
    }

    #[test]
    fn sources_that_only_came_and_left_do_not_pile_up() {
        let mut turns = FairQueue::new(10);
        for source in 0..10_000 {
            let ticket = turns.push(source, false, ()).unwrap();
            turns.remove(&ticket);
        }
        assert!(turns.other.order.len() <= 65 && turns.other.sources.len() <= 65);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Push(u8, bool),
        Pop,
        Remove(usize),
        Demote(u8),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0u8..6, any::<bool>()).prop_map(|(source, urgent)| Act::Push(source, urgent)),
            2 => Just(Act::Pop),
            1 => any::<usize>().prop_map(Act::Remove),
            1 => (0u8..6).prop_map(Act::Demote),
        ];
        prop::collection::vec(act, 0..400)
    }

    proptest! {
        /// Against a model: nothing is lost or served twice, every source stays in order and within
        /// its bound.
        #[test]
        fn nothing_is_lost_and_each_source_keeps_its_order(acts in acts()) {
            const MAX: usize = 5;
            let mut turns = FairQueue::new(MAX);
            // In the order in which they came; the lane is the one in which they wait.
            let mut waiting: Vec<(QueueTicket<u8>, (u8, bool, u32))> = Vec::new();
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Push(source, urgent) => {
                        let item = (source, urgent, number as u32);
                        let mine = waiting.iter().filter(|(_, one)| (one.0, one.1) == (source, urgent)).count();
                        match turns.push(source, urgent, item) {
                            Ok(ticket) => { prop_assert!(mine < MAX); waiting.push((ticket, item)); }
                            // Only what was demoted goes beyond.
                            Err(_) => prop_assert!(mine >= MAX),
                        }
                    }
                    Act::Pop => {
                        let popped = turns.pop();
                        prop_assert_eq!(popped.is_none(), waiting.is_empty());
                        if let Some(item) = popped {
                            let at = waiting.iter().position(|(_, one)| one.2 == item.2).expect("it waited");
                            let (_, one) = waiting.remove(at);
                            let earlier = waiting.iter().take(at);
                            prop_assert_eq!(earlier.filter(|(_, other)| (other.0, other.1) == (one.0, one.1)).count(), 0);
                        }
                    }
                    Act::Demote(source) => {
                        turns.demote(source);
                        for (_, one) in waiting.iter_mut().filter(|(_, one)| one.0 == source) {
                            one.1 = false;
                        }
                    }
                    Act::Remove(which) if !waiting.is_empty() => {
                        let (ticket, item) = waiting.remove(which % waiting.len());
                        prop_assert_eq!(turns.remove(&ticket).map(|found| found.2), Some(item.2));
                    }
                    Act::Remove(_) => {}
                }
                prop_assert_eq!(turns.waiting(), waiting.len());
            }
        }

        /// Whoever waits is served before any source of its lane had two turns more, and the lanes
        /// share as they should.
        #[test]
        fn nobody_starves(flood in 1u8..20, urgent_flood: bool, urgent: bool) {
            let mut turns = FairQueue::new(1_000);
            for round in 0..200 {
                for source in 0..flood {
                    turns.push(source, urgent_flood, (source, round)).unwrap();
                }
            }
            turns.push(99, urgent, (99, 0)).unwrap();
            let served = (0..).find(|_| turns.pop().is_some_and(|item| item.0 == 99)).unwrap();
            let limit = match (urgent, urgent_flood) {
                (true, false) => 1,
                (false, true) => MAX_URGENT_RUN + 1,
                _ => u32::from(flood) + 1,
            };
            prop_assert!(served < limit, "{} of {}", served, limit);
        }
    }
}
