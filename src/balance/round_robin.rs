//! Smooth weighted round robin, as in nginx: in every turn each node gains its weight, the richest
//! is picked and pays the sum of all. With weights 5, 1, 1 the order is a a b a c a a, not a a a a
//! a b c. Deterministic.
//!
//! Nodes of one weight gain alike, so they are kept in one order, and a turn adds to a number that
//! they share. A turn costs by the count of different weights, not of nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::node::{Class, Node};

#[derive(Debug)]
pub(super) struct RoundRobin {
    nodes: Vec<Turn>,
    groups: BTreeMap<(Class, u32), Group>,
}

/// The place of one node in the round.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// The group that it gains with; `None` while it cannot be picked.
    group: Option<(Class, u32)>,
    /// Gains that are not spent yet, without those of the group.
    gained: i64,
}

/// Nodes of one class and weight that can be picked.
#[derive(Debug, Default)]
struct Group {
    /// Gains that all of them have in common.
    common: i64,
    /// The richest first, and of equals the first node.
    order: BTreeSet<(Reverse<i64>, usize)>,
}

impl RoundRobin {
    /// Continues from the gains of the nodes that stayed (0 for new ones), so that a change of
    /// membership does not restart the round.
    pub(super) fn carried(gained: impl IntoIterator<Item = i64>) -> Self {
        let turns = gained.into_iter().map(|gained| Turn {
            group: None,
            gained,
        });
        RoundRobin {
            nodes: turns.collect(),
            groups: BTreeMap::new(),
        }
    }

    /// Gains by index.
    pub(super) fn gained(&self) -> Vec<i64> {
        let gained = |turn: &Turn| turn.gained + self.common(turn.group);
        self.nodes.iter().map(gained).collect()
    }

    pub(super) fn set(&mut self, index: usize, node: Node) {
        let group = (node.weight > 0).then_some((node.class, node.weight));
        let Some(turn) = self.nodes.get(index).copied() else {
            return;
        };
        if turn.group == group {
            return;
        }
        let gained = turn.gained + self.common(turn.group);
        if let Some(left) = turn.group {
            self.leave(left, (Reverse(turn.gained), index));
        }
        if let Some(joined) = group {
            self.groups.entry(joined).or_default();
        }
        let gained = gained - self.common(group);
        self.join(index, Turn { group, gained });
    }

    pub(super) fn is_empty(&self, classes: &[Class]) -> bool {
        let mut groups = self.groups.keys();
        !groups.any(|(class, _)| classes.contains(class))
    }

    pub(super) fn pick(&mut self, classes: &[Class]) -> Option<usize> {
        let (mut total, mut richest) = (0, None);
        let groups = self.groups.iter_mut();
        for (key, group) in groups.filter(|((class, _), _)| classes.contains(class)) {
            let weight = i64::from(key.1);
            total += weight * i64::try_from(group.order.len()).unwrap_or(i64::MAX);
            group.common += weight;
            if let Some((Reverse(gained), index)) = group.order.first() {
                let first = (Reverse(gained + group.common), *index);
                richest = Some(richest.map_or(first, |other| first.min(other)));
            }
        }
        let (_, index) = richest?;
        let turn = *self.nodes.get(index)?;
        if let Some(group) = turn.group.and_then(|key| self.groups.get_mut(&key)) {
            group.order.remove(&(Reverse(turn.gained), index));
        }
        let gained = turn.gained - total;
        self.join(index, Turn { gained, ..turn });
        Some(index)
    }

    fn join(&mut self, index: usize, turn: Turn) {
        if let Some(group) = turn.group.and_then(|key| self.groups.get_mut(&key)) {
            group.order.insert((Reverse(turn.gained), index));
        }
        if let Some(place) = self.nodes.get_mut(index) {
            *place = turn;
        }
    }

    fn leave(&mut self, key: (Class, u32), entry: (Reverse<i64>, usize)) {
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        group.order.remove(&entry);
        if group.order.is_empty() {
            self.groups.remove(&key);
        }
    }

    fn common(&self, group: Option<(Class, u32)>) -> i64 {
        let group = group.and_then(|key| self.groups.get(&key));
        group.map_or(0, |group| group.common)
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::node::testing::{Table, any};
    use crate::balance::{Nodes, Picker};
    use proptest::prelude::*;

    fn picker(nodes: &Table) -> Picker {
        Picker::round_robin(nodes, None)
    }

    fn order(picker: &Picker, nodes: &Table, picks: usize) -> Vec<usize> {
        let taken = (0..picks).filter_map(|_| picker.take(nodes, &any(0), Some));
        taken.collect()
    }

    #[test]
    fn a_heavy_node_is_spread_over_the_round() {
        let nodes = Table::of(&[5, 1, 1]);
        let picker = picker(&nodes);
        assert_eq!(order(&picker, &nodes, 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&picker, &nodes, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_change_of_membership_does_not_begin_the_round_anew() {
        let nodes = Table::of(&[1, 1, 1]);
        let before = picker(&nodes);
        assert_eq!(order(&before, &nodes, 2), [0, 1]);
        let after = Picker::round_robin(&nodes, Some((&before, &|index| Some(index))));
        assert_eq!(order(&after, &nodes, 2), [2, 0]);
    }

    /// Scan over all nodes: the judge.
    struct Plain(Vec<i64>);

    impl Plain {
        fn pick(&mut self, nodes: &Table, without: &[usize]) -> Option<usize> {
            let (mut total, mut best) = (0, None::<usize>);
            for index in 0..nodes.count() {
                let weight = i64::from(nodes.0[index].weight);
                if weight == 0 || without.contains(&index) {
                    continue;
                }
                total += weight;
                self.0[index] += weight;
                if best.is_none_or(|best| self.0[index] > self.0[best]) {
                    best = Some(index);
                }
            }
            self.0[best?] -= total;
            best
        }
    }

    proptest! {
        #[test]
        fn one_round_gives_every_node_exactly_its_weight(weights in prop::collection::vec(0u32..20, 1..10)) {
            let nodes = Table::of(&weights);
            let picker = picker(&nodes);
            let round: u32 = weights.iter().sum();
            for _ in 0..2 {
                let mut picked = vec![0; weights.len()];
                for index in order(&picker, &nodes, round as usize) {
                    picked[index] += 1;
                }
                prop_assert_eq!(&picked, &weights);
            }
        }

        /// A node that came and went must not have saved up a run of its own: none has in a scan.
        #[test]
        fn the_order_is_that_of_a_scan(
            weights in prop::collection::vec(0u32..20, 1..12),
            turns in prop::collection::vec((0usize..12, 0u32..20, prop::collection::vec(0usize..12, 0..3)), 1..200),
        ) {
            let mut nodes = Table::of(&weights);
            let (picker, mut plain) = (picker(&nodes), Plain(vec![0; weights.len()]));
            for (changed, weight, without) in turns {
                if let Some(node) = nodes.0.get_mut(changed) {
                    node.weight = weight;
                    picker.update(&nodes, changed);
                }
                let request = crate::balance::Pick { without: &without, ..any(0) };
                let picked = picker.take(&nodes, &request, Some);
                prop_assert_eq!(picked, plain.pick(&nodes, &without));
                prop_assert_eq!(&picker.gained(), &plain.0);
            }
        }

        #[test]
        fn what_is_saved_up_stays_below_one_round(
            weights in prop::collection::vec(1u32..20, 2..8),
            closed in prop::collection::vec(0usize..8, 0..200),
        ) {
            let nodes = Table::of(&weights);
            let picker = picker(&nodes);
            let round = i64::from(weights.iter().sum::<u32>());
            for closed in closed {
                let without = [closed % weights.len()];
                picker.take(&nodes, &crate::balance::Pick { without: &without, ..any(0) }, Some);
                prop_assert!(picker.gained().iter().all(|gain| gain.abs() <= 2 * round));
            }
        }
    }
}
