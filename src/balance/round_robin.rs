//! Smooth weighted round robin, as in nginx: in every turn each node gains its weight, the richest
//! is picked and pays the sum of all. With weights 5, 1, 1 the order is a a b a c a a, not a a a a
//! a b c. Deterministic.

use std::sync::{Mutex, PoisonError};

use super::Nodes;

/// Gains of every node that are not spent yet, by index.
#[derive(Debug)]
pub struct RoundRobin {
    gained: Mutex<Vec<i64>>,
}

impl RoundRobin {
    /// A round of `count` nodes that start even.
    pub fn new(count: usize) -> Self {
        RoundRobin::carried(vec![0; count])
    }

    /// Continues from the gains of the nodes that stayed (0 for new ones), so that a change of
    /// membership does not restart the round.
    pub fn carried(gained: Vec<i64>) -> Self {
        RoundRobin {
            gained: Mutex::new(gained),
        }
    }

    /// Gains by index.
    pub fn gained(&self) -> Vec<i64> {
        self.lock().clone()
    }

    pub(super) fn pick(&self, nodes: &impl Nodes) -> Option<usize> {
        let mut gained = self.lock();
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, gain) in gained.iter_mut().enumerate().take(nodes.count()) {
            let weight = i64::from(nodes.weight(index));
            if weight == 0 {
                continue;
            }
            total += weight;
            *gain += weight;
            if best.is_none_or(|(_, most)| *gain > most) {
                best = Some((index, *gain));
            }
        }
        let (index, _) = best?;
        if let Some(gain) = gained.get_mut(index) {
            *gain -= total;
        }
        Some(index)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<i64>> {
        self.gained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Table;
    use proptest::prelude::*;

    fn order(turns: &RoundRobin, nodes: &Table, picks: usize) -> Vec<usize> {
        (0..picks).filter_map(|_| turns.pick(nodes)).collect()
    }

    #[test]
    fn a_heavy_node_is_spread_over_the_round() {
        let turns = RoundRobin::new(3);
        let nodes = Table::of(&[5, 1, 1]);
        assert_eq!(order(&turns, &nodes, 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&turns, &nodes, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_change_of_membership_does_not_begin_the_round_anew() {
        let turns = RoundRobin::new(3);
        assert_eq!(order(&turns, &Table::of(&[1, 1, 1]), 2), [0, 1]);
        let turns = RoundRobin::carried(turns.gained());
        assert_eq!(order(&turns, &Table::of(&[1, 1, 1]), 2), [2, 0]);
    }

    proptest! {
        #[test]
        fn one_round_gives_every_node_exactly_its_weight(weights in prop::collection::vec(0u32..20, 1..10)) {
            let nodes = Table::of(&weights);
            let turns = RoundRobin::new(weights.len());
            let round: u32 = weights.iter().sum();
            for _ in 0..2 {
                let mut picked = vec![0; weights.len()];
                for index in order(&turns, &nodes, round as usize) {
                    picked[index] += 1;
                }
                prop_assert_eq!(&picked, &weights);
            }
        }

        /// A node that came and went must not have saved up a run of its own.
        #[test]
        fn what_is_saved_up_stays_below_one_round(
            weights in prop::collection::vec(1u32..20, 2..8),
            closed in prop::collection::vec(0usize..8, 0..200),
        ) {
            let turns = RoundRobin::new(weights.len());
            let round = i64::from(weights.iter().sum::<u32>());
            for closed in closed {
                let mut nodes = Table::of(&weights);
                let closed = closed % weights.len();
                nodes.weights[closed] = 0;
                turns.pick(&nodes);
                prop_assert!(turns.gained().iter().all(|gain| gain.abs() <= 2 * round));
            }
        }
    }
}
