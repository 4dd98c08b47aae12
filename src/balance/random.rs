//! The better of two, drawn by weight ("the power of two choices", Mitzenmacher 2001): nearly as
//! even as least connections, and many balancers that know only their own counts do not all run to
//! the same node.

use std::cmp::Ordering;

use super::hash::{below, mix};
use super::{Nodes, less_loaded};

pub(super) fn pick(nodes: &impl Nodes, entropy: u64) -> Option<usize> {
    let first_draw = mix(entropy);
    let first = draw(nodes, None, first_draw)?;
    let Some(second) = draw(nodes, Some(first), mix(first_draw)) else {
        return Some(first);
    };
    let load = |index| (nodes.live(index), nodes.weight(index).max(1));
    match less_loaded(load(second), load(first)) {
        Ordering::Less => Some(second),
        Ordering::Equal | Ordering::Greater => Some(first),
    }
}

/// Draws a node by weight, other than `not`.
fn draw(nodes: &impl Nodes, not: Option<usize>, random: u64) -> Option<usize> {
    let others = || (0..nodes.count()).filter(move |index| Some(*index) != not);
    let total: u64 = others().map(|index| u64::from(nodes.weight(index))).sum();
    let mut left = below(random, total);
    let mut last = None;
    for index in others() {
        let weight = u64::from(nodes.weight(index));
        if weight == 0 {
            continue;
        }
        if left < weight {
            return Some(index);
        }
        left -= weight;
        last = Some(index);
    }
    // Weights fell between the two passes (a node became full): any that is left will do.
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::Table;
    use proptest::prelude::*;

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let mut nodes = Table::of(&[1, 1]);
        nodes.live = vec![10, 3];
        assert!((0..200).all(|entropy| pick(&nodes, entropy) == Some(1)));
    }

    #[test]
    fn a_draw_follows_the_weights() {
        let nodes = Table::of(&[3, 0, 1]);
        let mut drawn = [0u32; 3];
        for n in 0..8000 {
            drawn[draw(&nodes, None, mix(n)).unwrap()] += 1;
        }
        assert_eq!(drawn[1], 0);
        assert!((5800..6200).contains(&drawn[0]), "{drawn:?}");
    }

    #[test]
    fn equal_nodes_of_short_connections_share_evenly() {
        let nodes = Table::of(&[1; 5]);
        let mut picked = [0u32; 5];
        for entropy in 0..10_000 {
            picked[pick(&nodes, entropy).unwrap()] += 1;
        }
        assert!(
            picked.iter().all(|n| (1800..2200).contains(n)),
            "{picked:?}"
        );
    }

    proptest! {
        #[test]
        fn connections_that_last_stay_close_to_even(count in 2usize..20, seed in any::<u64>()) {
            let mut nodes = Table::of(&vec![1; count]);
            for n in 0..count as u64 * 100 {
                let index = pick(&nodes, mix(seed ^ n)).unwrap();
                nodes.live[index] += 1;
            }
            prop_assert!(nodes.live.iter().all(|live| (90..=110).contains(live)), "{:?}", nodes.live);
        }
    }
}
