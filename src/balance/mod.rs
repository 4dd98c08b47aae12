//! Pick algorithms over plain numbers.
//!
//! A node is an index with a class, a weight and a load; the pool gives a node that may not be
//! picked now the weight 0. No clock and no randomness in here: `entropy` is an argument, so that
//! tests can repeat every pick. A pick and a change of one node cost at most the logarithm of their
//! count.

mod forest;
mod hash;
mod least_conn;
mod level;
mod maglev;
mod node;
mod packed;
mod picker;
mod random;
mod round_robin;
mod shared_load;
mod shares;
mod tree;

#[cfg(test)]
mod tests;

pub use hash::{address_hash, bytes_hash};
pub use level::{NodeLoad, level};
pub use maglev::Maglev;
pub use node::{Class, Node, Nodes, Pick};
pub use picker::{Carried, Picker};
pub use shared_load::{SharedLoad, untold};
