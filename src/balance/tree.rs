//! Tree over the nodes of a pool: each inner slot sums up the two below it, so that a change of one
//! node costs a walk to the root, and a pick a walk from it.

use std::ops::Range;

/// Sum of a part of the nodes.
pub(super) trait Summary: Copy {
    /// Sum of no node.
    const NONE: Self;

    fn is_none(&self) -> bool;

    fn join(left: Self, right: Self) -> Self;
}

/// A complete binary tree in one vector: the root at 1, the children of `k` at `2k` and `2k + 1`.
#[derive(Debug)]
pub(super) struct Tree<S> {
    slots: Vec<S>,
    /// A power of two.
    leaves: usize,
}

impl<S: Summary> Tree<S> {
    pub(super) fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        Tree {
            slots: vec![S::NONE; 2 * leaves],
            leaves,
        }
    }

    /// Sum of all.
    pub(super) fn root(&self) -> S {
        self.at(1)
    }

    pub(super) fn leaf(&self, index: usize) -> S {
        self.at(self.leaves + index)
    }

    pub(super) fn set(&mut self, index: usize, leaf: S) {
        let mut slot = self.leaves + index;
        self.put(slot, leaf);
        while slot > 1 {
            slot /= 2;
            self.sum_up(slot);
        }
    }

    /// Sets the leaves of a range that is not empty: costs its length, and one walk to the root.
    pub(super) fn set_range(&mut self, range: Range<usize>, leaf: impl Fn(usize) -> S) {
        let (mut first, mut last) = (self.leaves + range.start, self.leaves + range.end - 1);
        for index in range {
            self.put(self.leaves + index, leaf(index));
        }
        while first > 1 {
            (first, last) = (first / 2, last / 2);
            for slot in first..=last {
                self.sum_up(slot);
            }
        }
    }

    /// Walks from the root to a leaf and returns its index. `goes_left` is asked at each fork, with
    /// the sums of its two sides.
    pub(super) fn descend(&self, mut goes_left: impl FnMut(S, S) -> bool) -> usize {
        let mut slot = 1;
        while slot < self.leaves {
            let (left, right) = (2 * slot, 2 * slot + 1);
            slot = if goes_left(self.at(left), self.at(right)) {
                left
            } else {
                right
            };
        }
        slot - self.leaves
    }

    /// Sums, in order, of the parts before `index`.
    pub(super) fn before(&self, index: usize) -> impl Iterator<Item = S> {
        let mut slot = self.leaves + index;
        std::iter::from_fn(move || {
            while slot > 1 {
                let (is_right, left) = (slot % 2 == 1, slot - 1);
                slot /= 2;
                if is_right {
                    return Some(self.at(left));
                }
            }
            None
        })
    }

    fn sum_up(&mut self, slot: usize) {
        let sum = S::join(self.at(2 * slot), self.at(2 * slot + 1));
        self.put(slot, sum);
    }

    fn at(&self, slot: usize) -> S {
        self.slots.get(slot).copied().unwrap_or(S::NONE)
    }

    fn put(&mut self, slot: usize, sum: S) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Total(u64);

    impl Summary for Total {
        const NONE: Total = Total(0);
        fn is_none(&self) -> bool {
            self.0 == 0
        }
        fn join(left: Total, right: Total) -> Total {
            Total(left.0 + right.0)
        }
    }

    proptest! {
        #[test]
        fn every_sum_is_that_of_its_leaves(
            count in 1usize..40,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u64..100), 0..30),
        ) {
            let (mut tree, mut plain) = (Tree::new(count), vec![0u64; count]);
            for (one, other, value) in changes {
                let (one, other) = (one.index(count), other.index(count));
                let range = one.min(other)..one.max(other) + 1;
                if value.is_multiple_of(2) {
                    tree.set(one, Total(value));
                    plain[one] = value;
                } else {
                    tree.set_range(range.clone(), |index| Total(value + index as u64));
                    range.for_each(|index| plain[index] = value + index as u64);
                }
                prop_assert_eq!(tree.root(), Total(plain.iter().sum()));
                prop_assert!((0..count).all(|index| tree.leaf(index) == Total(plain[index])));
                for index in 0..count {
                    prop_assert_eq!(tree.before(index).map(|part| part.0).sum::<u64>(), plain[..index].iter().sum::<u64>());
                }
            }
        }
    }
}
