//! The better of two, drawn by weight ("the power of two choices", Mitzenmacher 2001): nearly as
//! even as least connections, and many balancers that know only their own counts do not all run to
//! the same node.

use std::cmp::Ordering;

use super::forest::Forest;
use super::hash::mix;
use super::least_conn::less_loaded;
use super::node::{Node, Nodes, Pick};
use super::shares::{Share, draw};

pub(super) fn pick(
    shares: &mut Forest<Share>,
    nodes: &impl Nodes,
    request: &Pick<'_>,
) -> Option<usize> {
    let first_draw = mix(request.entropy);
    let first = draw(shares, request.classes, first_draw)?;
    let node = nodes.node(first);
    shares.set(first, Node { weight: 0, ..node });
    let second = draw(shares, request.classes, mix(first_draw));
    shares.set(first, node);
    let Some(second) = second else {
        return Some(first);
    };
    let load = |node: Node| (node.load, node.weight.max(1));
    match less_loaded(load(nodes.node(second)), load(node)) {
        Ordering::Less => Some(second),
        Ordering::Equal | Ordering::Greater => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::node::testing::{Table, any as any_serving};
    use crate::balance::{Class, Picker};
    use proptest::prelude::*;

    fn pick(picker: &Picker, nodes: &Table, entropy: u64) -> usize {
        picker.take(nodes, &any_serving(entropy), Some).unwrap()
    }

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let nodes = Table::of(&[1, 1]).with_loads(&[10, 3]);
        let picker = Picker::random(&nodes);
        assert!((0..200).all(|entropy| pick(&picker, &nodes, entropy) == 1));
    }

    #[test]
    fn a_draw_follows_the_weights() {
        let nodes = Table::of(&[3, 0, 1]);
        let mut shares = Forest::new(3);
        shares.set_range(0..3, &nodes);
        let mut drawn = [0u32; 3];
        for n in 0..8000 {
            drawn[draw(&shares, &[Class::Serving], mix(n)).unwrap()] += 1;
        }
        assert_eq!(drawn[1], 0);
        assert!((5800..6200).contains(&drawn[0]), "{drawn:?}");
    }

    #[test]
    fn equal_nodes_of_short_connections_share_evenly() {
        let nodes = Table::of(&[1; 5]);
        let (picker, mut picked) = (Picker::random(&nodes), [0u32; 5]);
        for entropy in 0..10_000 {
            picked[pick(&picker, &nodes, entropy)] += 1;
        }
        assert!(
            picked.iter().all(|n| (1800..2200).contains(n)),
            "{picked:?}"
        );
    }

    /// A draw by a scan over all nodes.
    fn plain_draw(nodes: &Table, not: Option<usize>, random: u64) -> Option<usize> {
        let weight = |index: usize| match Some(index) == not {
            true => 0,
            false => u64::from(nodes.0[index].weight),
        };
        let total = (0..nodes.count()).map(weight).sum();
        let mut left = super::super::hash::below(random, total);
        (0..nodes.count()).find(|index| {
            let is_it = left < weight(*index);
            left = left.saturating_sub(weight(*index));
            is_it
        })
    }

    proptest! {
        #[test]
        fn connections_that_last_stay_close_to_even(count in 2usize..20, seed in any::<u64>()) {
            let mut nodes = Table::of(&vec![1; count]);
            let picker = Picker::random(&nodes);
            for n in 0..count as u64 * 100 {
                let index = pick(&picker, &nodes, seed ^ mix(n));
                nodes.0[index].load += 1;
            }
            prop_assert!(nodes.0.iter().all(|node| (90..=110).contains(&node.load)), "{:?}", nodes.loads());
        }

        /// The judge is a scan over all nodes.
        #[test]
        fn the_same_two_are_drawn_as_by_a_scan(
            facts in prop::collection::vec((0u32..5, 0u64..5), 1..40),
            entropy in any::<u64>(),
        ) {
            let (weights, loads): (Vec<u32>, Vec<u64>) = facts.into_iter().unzip();
            let nodes = Table::of(&weights).with_loads(&loads);
            let picked = Picker::random(&nodes).take(&nodes, &any_serving(entropy), Some);
            let first = plain_draw(&nodes, None, mix(entropy));
            let second = first.and_then(|_| plain_draw(&nodes, first, mix(mix(entropy))));
            let load = |index: usize| (nodes.0[index].load, nodes.0[index].weight);
            let better = match (first, second) {
                (Some(first), Some(second)) if less_loaded(load(second), load(first)).is_lt() => Some(second),
                _ => first,
            };
            prop_assert_eq!(picked, better);
        }
    }
}
