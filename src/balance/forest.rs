//! Trees over the nodes, one per class: most pools have nodes of one class only, and a pick reads
//! the trees of the classes that it takes.

use std::ops::Range;

use super::node::{Class, Node, Nodes};
use super::tree::{Summary, Tree};

/// Summary that has a leaf for a node.
pub(super) trait Leaf: Summary + PartialEq {
    /// The leaf of a node whose weight is above 0.
    fn of(node: Node) -> Self;
}

#[derive(Debug)]
pub(super) struct Forest<S> {
    count: usize,
    /// A tree per class, once the class has a node.
    trees: [Option<Tree<S>>; Class::COUNT],
}

impl<S: Leaf> Forest<S> {
    /// A forest without nodes yet.
    pub(super) fn new(count: usize) -> Self {
        Forest {
            count,
            trees: [const { None }; Class::COUNT],
        }
    }

    pub(super) fn set(&mut self, index: usize, node: Node) {
        for (class, tree) in self.trees_for(node) {
            let leaf = leaf_in(class, node);
            if tree.leaf(index) != leaf {
                tree.set(index, leaf);
            }
        }
    }

    /// Takes over the nodes of a range that is not empty.
    pub(super) fn set_range(&mut self, range: Range<usize>, nodes: &impl Nodes) {
        let facts: Vec<Node> = range.clone().map(|index| nodes.node(index)).collect();
        for node in &facts {
            self.trees_for(*node).for_each(drop);
        }
        let at = |index: usize| facts.get(index - range.start).copied();
        for (class, tree) in self.trees.iter_mut().enumerate() {
            let Some(tree) = tree else { continue };
            let leaf = |index| at(index).map_or(S::NONE, |node| leaf_in(class, node));
            if range.clone().any(|index| tree.leaf(index) != leaf(index)) {
                tree.set_range(range.clone(), leaf);
            }
        }
    }

    /// The trees of these classes that have a node.
    pub(super) fn trees(&self, classes: &[Class]) -> impl Iterator<Item = &Tree<S>> {
        let trees = classes.iter().filter_map(|class| self.tree(*class));
        trees.filter(|tree| !tree.root().is_none())
    }

    fn tree(&self, class: Class) -> Option<&Tree<S>> {
        self.trees.get(class as usize)?.as_ref()
    }

    /// All trees with their classes, among them that of `node`.
    fn trees_for(&mut self, node: Node) -> impl Iterator<Item = (usize, &mut Tree<S>)> {
        let count = self.count;
        let own = self.trees.get_mut(node.class as usize);
        if let Some(tree) = own.filter(|_| node.weight > 0) {
            tree.get_or_insert_with(|| Tree::new(count));
        }
        let trees = self.trees.iter_mut().enumerate();
        trees.filter_map(|(class, tree)| tree.as_mut().map(|tree| (class, tree)))
    }
}

/// The leaf of a node in the tree of a class.
fn leaf_in<S: Leaf>(class: usize, node: Node) -> S {
    if node.class as usize == class && node.weight > 0 {
        S::of(node)
    } else {
        S::NONE
    }
}
