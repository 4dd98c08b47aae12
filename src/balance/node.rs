//! Nodes as the algorithms see them: numbers, and a class that a pick may leave out.

/// Facts of a node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub class: Class,
    /// 0 = not to be picked now (closed, full, or of no weight). Only the proportion of weights
    /// counts.
    pub weight: u32,
    /// Connections on the node now, those being set up included, and whatever else is charged to
    /// it, such as the connections of other balancers.
    pub load: u64,
}

/// Kind of a node. A pick names the classes that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Takes connections.
    Serving,
    /// Waits for the connection that shows whether it works again.
    Probed,
    /// Serves, and is to be spared.
    Spared,
    /// Waits for a probe, and is to be spared.
    SparedProbed,
}

impl Class {
    pub(super) const COUNT: usize = 4;
}

/// The nodes of a pool, as they are now.
pub trait Nodes {
    fn count(&self) -> usize;

    fn node(&self, index: usize) -> Node;
}

/// A request for a node.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    pub classes: &'a [Class],
    /// Nodes that are left out; a few.
    pub without: &'a [usize],
    /// The key's hash (`address_hash`, `bytes_hash`) where a hash decides, and a fresh random
    /// number elsewhere.
    pub entropy: u64,
}

impl Pick<'_> {
    pub(super) fn allows(&self, index: usize, node: Node) -> bool {
        node.weight > 0 && self.classes.contains(&node.class) && !self.without.contains(&index)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Nodes as a test writes them down.
    #[derive(Debug, Clone)]
    pub struct Table(pub Vec<Node>);

    impl Table {
        /// Idle nodes of these weights.
        pub fn of(weights: &[u32]) -> Self {
            let node = |weight: &u32| Node {
                class: Class::Serving,
                weight: *weight,
                load: 0,
            };
            Table(weights.iter().map(node).collect())
        }

        pub fn with_loads(mut self, loads: &[u64]) -> Self {
            for (node, load) in self.0.iter_mut().zip(loads) {
                node.load = *load;
            }
            self
        }

        pub fn weights(&self) -> Vec<u32> {
            self.0.iter().map(|node| node.weight).collect()
        }

        pub fn loads(&self) -> Vec<u64> {
            self.0.iter().map(|node| node.load).collect()
        }
    }

    impl Nodes for Table {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn node(&self, index: usize) -> Node {
            self.0[index]
        }
    }

    /// A pick of any serving node.
    pub fn any(entropy: u64) -> Pick<'static> {
        Pick {
            classes: &[Class::Serving],
            without: &[],
            entropy,
        }
    }
}
