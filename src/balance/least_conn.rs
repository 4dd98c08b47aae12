//! Weighted least connections: the node that carries least per weight once it has one connection
//! more. Nodes that are equal share by chance: a fixed order would give every first connection of a
//! quiet pool to the same node.

use std::cmp::Ordering;

use super::forest::{Forest, Leaf};
use super::hash::{below, mix};
use super::node::{Class, Node};
use super::tree::{Summary, Tree};

/// The least loaded of some nodes, and how many are equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Least {
    load: u64,
    weight: u32,
    /// 0 = no node.
    equals: u32,
}

impl Summary for Least {
    const NONE: Least = Least {
        load: 0,
        weight: 0,
        equals: 0,
    };

    fn is_none(&self) -> bool {
        self.equals == 0
    }

    fn join(left: Least, right: Least) -> Least {
        match left.cmp_load(right) {
            Ordering::Less => left,
            Ordering::Greater => right,
            Ordering::Equal => Least {
                equals: left.equals + right.equals,
                ..left
            },
        }
    }
}

impl Leaf for Least {
    fn of(node: Node) -> Least {
        Least {
            load: node.load,
            weight: node.weight,
            equals: 1,
        }
    }
}

impl Least {
    /// No node is more than any; two of no node are equal.
    fn cmp_load(self, other: Least) -> Ordering {
        match (self.is_none(), other.is_none()) {
            (false, false) => less_loaded((self.load, self.weight), (other.load, other.weight)),
            (left, right) => left.cmp(&right),
        }
    }
}

/// Whether `a`, as (load, weight), is less loaded than `b` once it carries one connection more:
/// exact, without division.
pub(super) fn less_loaded(a: (u64, u32), b: (u64, u32)) -> Ordering {
    if a.1 == b.1 {
        return a.0.cmp(&b.0);
    }
    let left = (u128::from(a.0) + 1) * u128::from(b.1);
    let right = (u128::from(b.0) + 1) * u128::from(a.1);
    left.cmp(&right)
}

/// Picks one of the least loaded nodes, each with the same chance.
pub(super) fn pick(nodes: &Forest<Least>, classes: &[Class], entropy: u64) -> Option<usize> {
    let trees = || nodes.trees(classes);
    let least = trees().map(Tree::root).reduce(Least::join)?;
    // The n-th of all that are equal.
    let mut left = below(mix(entropy), u64::from(least.equals));
    for tree in trees().filter(|tree| tree.root().cmp_load(least) == Ordering::Equal) {
        let equals = u64::from(tree.root().equals);
        if left < equals {
            return Some(nth_equal(tree, left));
        }
        left -= equals;
    }
    None
}

fn nth_equal(tree: &Tree<Least>, mut left: u64) -> usize {
    tree.descend(|one, other| match one.cmp_load(other) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal if left < u64::from(one.equals) => true,
        Ordering::Equal => {
            left -= u64::from(one.equals);
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::node::testing::{Table, any as any_serving};
    use crate::balance::{Nodes, Picker};
    use proptest::prelude::*;

    fn picker(nodes: &Table) -> Picker {
        Picker::least_conn(nodes)
    }

    fn pick(picker: &Picker, nodes: &Table, entropy: u64) -> usize {
        picker.take(nodes, &any_serving(entropy), Some).unwrap()
    }

    #[test]
    fn equal_nodes_share_by_chance() {
        let nodes = Table::of(&[1; 5]);
        let (picker, mut picked) = (picker(&nodes), [0u32; 5]);
        for entropy in 0..10_000u64 {
            picked[pick(&picker, &nodes, entropy)] += 1;
        }
        assert!(
            picked.iter().all(|n| (1800..2200).contains(n)),
            "{picked:?}"
        );
    }

    #[test]
    fn a_new_node_is_filled_first() {
        let mut nodes = Table::of(&[1, 1, 1]).with_loads(&[100, 100, 0]);
        let picker = picker(&nodes);
        for entropy in 0..100u64 {
            assert_eq!(pick(&picker, &nodes, entropy), 2);
            nodes.0[2].load += 1;
            picker.update(&nodes, 2);
        }
        assert_eq!(nodes.loads(), [100, 100, 100]);
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
            let picker = picker(&nodes);
            for n in 0..connections {
                let index = pick(&picker, &nodes, seed ^ n);
                nodes.0[index].load += 1;
                picker.update(&nodes, index);
            }
            let total = f64::from(weights.iter().sum::<u32>());
            for node in &nodes.0 {
                let share = connections as f64 * f64::from(node.weight) / total;
                prop_assert!(node.load as f64 <= share + weights.len() as f64, "{} of {share}", node.load);
            }
        }

        /// The judge is a scan over all nodes.
        #[test]
        fn none_that_carries_less_is_passed_over(
            facts in prop::collection::vec((0u32..10, 0u64..50), 1..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u32..10, 0u64..50), 0..40),
            entropy in any::<u64>(),
        ) {
            let (weights, loads): (Vec<u32>, Vec<u64>) = facts.into_iter().unzip();
            let mut nodes = Table::of(&weights).with_loads(&loads);
            let picker = picker(&nodes);
            for (at, weight, load) in changes {
                let at = at.index(nodes.count());
                (nodes.0[at].weight, nodes.0[at].load) = (weight, load);
                picker.update(&nodes, at);
                let usable = nodes.0.iter().filter(|node| node.weight > 0);
                let load = |node: &Node| (node.load, node.weight);
                let least = usable.min_by(|a, b| less_loaded(load(a), load(b)));
                let picked = picker.take(&nodes, &any_serving(entropy), Some).map(|index| nodes.0[index]);
                prop_assert_eq!(picked.is_some(), least.is_some());
                if let (Some(picked), Some(least)) = (picked, least) {
                    prop_assert!(picked.weight > 0);
                    prop_assert_eq!(less_loaded(load(&picked), load(least)), Ordering::Equal);
                }
            }
        }
    }
}
