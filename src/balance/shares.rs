//! Sums of weights: a node is found by a number below the sum of all, and the next node that can be
//! picked by its place in the order.

use super::forest::{Forest, Leaf};
use super::hash::below;
use super::node::{Class, Node};
use super::tree::{Summary, Tree};

/// Weights of some nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share(u64);

impl Summary for Share {
    const NONE: Share = Share(0);

    fn is_none(&self) -> bool {
        self.0 == 0
    }

    fn join(left: Share, right: Share) -> Share {
        Share(left.0 + right.0)
    }
}

impl Leaf for Share {
    fn of(node: Node) -> Share {
        Share(u64::from(node.weight))
    }
}

/// Draws a node by weight.
pub(super) fn draw(nodes: &Forest<Share>, classes: &[Class], random: u64) -> Option<usize> {
    let trees = || nodes.trees(classes);
    let total = trees().map(|tree| tree.root().0).sum();
    let mut left = below(random, total);
    for tree in trees() {
        let share = tree.root().0;
        if left < share {
            return Some(at(tree, left));
        }
        left -= share;
    }
    None
}

/// The first node from `start` on that can be picked, in a circle.
pub(super) fn next(nodes: &Forest<Share>, classes: &[Class], start: usize) -> Option<usize> {
    let from = |start: usize| {
        let trees = nodes.trees(classes);
        let found = trees.filter_map(|tree| first_from(tree, start));
        found.min()
    };
    from(start).or_else(|| from(0))
}

fn first_from(tree: &Tree<Share>, start: usize) -> Option<usize> {
    let before = tree.before(start).map(|share| share.0).sum();
    (before < tree.root().0).then(|| at(tree, before))
}

/// The node that owns a number below the sum of all.
fn at(tree: &Tree<Share>, mut left: u64) -> usize {
    tree.descend(|share, _| {
        let goes_left = left < share.0;
        if !goes_left {
            left -= share.0;
        }
        goes_left
    })
}
