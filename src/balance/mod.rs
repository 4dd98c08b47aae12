//! Pick algorithms over plain numbers.
//!
//! A node is an index with a weight and a count of live connections; the pool gives a node that may
//! not be picked now the weight 0. No clock and no randomness in here: `entropy` is an argument, so
//! that tests can repeat every pick.

mod hash;
mod least_conn;
mod level;
mod maglev;
mod random;
mod round_robin;

pub use hash::{address_hash, bytes_hash};
pub use level::{NodeLoad, level};
pub use maglev::Maglev;
pub use round_robin::RoundRobin;

/// Nodes as an algorithm sees them.
pub trait Nodes {
    fn count(&self) -> usize;

    /// 0 = not to be picked now (down, full, already tried, or of no weight). Only the proportion
    /// of weights counts.
    fn weight(&self, index: usize) -> u32;

    /// Connections on the node now, those being set up included.
    fn live(&self, index: usize) -> u64;
}

/// An algorithm, with its state from pick to pick.
#[derive(Debug)]
pub enum Picker {
    RoundRobin(RoundRobin),
    LeastConn,
    /// The better of two drawn by weight.
    Random,
    /// A hash of the client's address or of another key decides.
    Hash(Maglev),
}

impl Picker {
    /// The node for one connection; `None` when every weight is 0.
    ///
    /// `entropy` is the key's hash (`address_hash`, `bytes_hash`) for `Hash`, and a fresh random
    /// number for the others.
    pub fn pick(&self, nodes: &impl Nodes, entropy: u64) -> Option<usize> {
        match self {
            Picker::RoundRobin(turns) => turns.pick(nodes),
            Picker::LeastConn => least_conn::pick(nodes, entropy),
            Picker::Random => random::pick(nodes, entropy),
            Picker::Hash(table) => table.pick(nodes, entropy),
        }
    }
}

/// Whether `a`, as (live, weight), is less loaded than `b` once it carries one connection more:
/// exact, without division.
fn less_loaded(a: (u64, u32), b: (u64, u32)) -> std::cmp::Ordering {
    let left = (u128::from(a.0) + 1) * u128::from(b.1);
    let right = (u128::from(b.0) + 1) * u128::from(a.1);
    left.cmp(&right)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Nodes;

    /// Nodes as a test writes them down.
    #[derive(Debug, Clone)]
    pub struct Table {
        pub weights: Vec<u32>,
        pub live: Vec<u64>,
    }

    impl Table {
        pub fn of(weights: &[u32]) -> Self {
            Table {
                weights: weights.to_vec(),
                live: vec![0; weights.len()],
            }
        }
    }

    impl Nodes for Table {
        fn count(&self) -> usize {
            self.weights.len()
        }
        fn weight(&self, index: usize) -> u32 {
            self.weights[index]
        }
        fn live(&self, index: usize) -> u64 {
            self.live[index]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Table;
    use super::*;
    use proptest::prelude::*;

    fn all(names: &[String], weights: &[u32]) -> [Picker; 4] {
        let named = names.iter().map(String::as_str);
        [
            Picker::RoundRobin(RoundRobin::new(weights.len())),
            Picker::LeastConn,
            Picker::Random,
            Picker::Hash(Maglev::new(named.zip(weights.iter().copied()))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn none_picks_a_node_of_weight_zero(
            weights in prop::collection::vec(0u32..4, 1..12),
            closed in prop::collection::vec(any::<bool>(), 12),
            entropy in prop::collection::vec(any::<u64>(), 20),
        ) {
            let names: Vec<String> = (0..weights.len()).map(|n| format!("n{n}")).collect();
            let algorithms = all(&names, &weights);
            let mut nodes = Table::of(&weights);
            for (weight, closed) in nodes.weights.iter_mut().zip(&closed) {
                *weight *= u32::from(!closed);
            }
            let usable = nodes.weights.iter().any(|weight| *weight > 0);
            for algorithm in &algorithms {
                for entropy in &entropy {
                    let pick = algorithm.pick(&nodes, *entropy);
                    prop_assert_eq!(pick.is_some(), usable, "{:?}", algorithm);
                    prop_assert!(pick.is_none_or(|index| nodes.weights[index] > 0));
                }
            }
        }
    }
}
