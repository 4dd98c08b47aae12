//! Weighted least connections: the node that carries least per weight once it has one connection
//! more. Nodes that are equal share by chance: a fixed order would give every first connection of a
//! quiet pool to the same node.

use std::cmp::Ordering;

use super::hash::{below, mix};
use super::{Nodes, less_loaded};

pub(super) fn pick(nodes: &impl Nodes, entropy: u64) -> Option<usize> {
    let mut best: Option<(usize, (u64, u32))> = None;
    let mut equals = 0u64;
    for index in 0..nodes.count() {
        let weight = nodes.weight(index);
        if weight == 0 {
            continue;
        }
        let load = (nodes.live(index), weight);
        let against = best.map_or(Ordering::Less, |(_, best)| less_loaded(load, best));
        equals = match against {
            Ordering::Less => 1,
            Ordering::Equal => equals + 1,
            Ordering::Greater => continue,
        };
        // The n-th of the equals replaces its forerunner once in n times: each has the same chance
        // in the end.
        if below(mix(entropy.wrapping_add(equals)), equals) == 0 {
            best = Some((index, load));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Table;
    use proptest::prelude::*;

    #[test]
    fn equal_nodes_share_by_chance() {
        let nodes = Table::of(&[1; 4]);
        let mut picked = [0u32; 4];
        for entropy in 0..8000u64 {
            picked[pick(&nodes, mix(entropy)).unwrap()] += 1;
        }
        assert!(
            picked.iter().all(|n| (1800..2200).contains(n)),
            "{picked:?}"
        );
    }

    #[test]
    fn a_new_node_is_filled_first() {
        let mut nodes = Table::of(&[1, 1, 1]);
        nodes.live = vec![100, 100, 0];
        for entropy in 0..100u64 {
            assert_eq!(pick(&nodes, entropy), Some(2));
            nodes.live[2] += 1;
        }
        assert_eq!(nodes.live, [100, 100, 100]);
    }

    proptest! {
        /// No node can be above its share by more than the one connection that had to go somewhere.
        #[test]
        fn connections_that_last_follow_the_weights(
            weights in prop::collection::vec(1u32..=256, 1..8),
            connections in 1u64..2000,
            seed in any::<u64>(),
        ) {
            let mut nodes = Table::of(&weights);
            for n in 0..connections {
                let index = pick(&nodes, mix(seed ^ n)).unwrap();
                nodes.live[index] += 1;
            }
            let total = f64::from(weights.iter().sum::<u32>());
            for (live, weight) in nodes.live.iter().zip(&weights) {
                let share = connections as f64 * f64::from(*weight) / total;
                prop_assert!(*live as f64 <= share + weights.len() as f64, "{live} of {share}");
            }
        }

        #[test]
        fn none_that_carries_less_is_passed_over(
            nodes in prop::collection::vec((0u32..10, 0u64..50), 1..10),
            entropy in any::<u64>(),
        ) {
            let (weights, live): (Vec<u32>, Vec<u64>) = nodes.into_iter().unzip();
            let nodes = Table { weights, live };
            if let Some(picked) = pick(&nodes, entropy) {
                let load = |n: usize| (nodes.live[n] + 1) as f64 / f64::from(nodes.weights[n]);
                let usable = (0..nodes.weights.len()).filter(|n| nodes.weights[*n] > 0);
                prop_assert!(usable.clone().all(|n| load(picked) <= load(n)));
            }
        }
    }
}
