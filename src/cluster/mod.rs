//! Floor 5: several balancers that behave as one, over a store that may be away.
//!
//! Nothing here is on the way of a connection: a member writes its state into the store each
//! `interval`, reads that of the others, and hands sums and operator states to the server. Without
//! the store it goes on by itself.
//!
//! - `seal`: what is in the store is signed, and what is not signed is not there.
//! - `report`, `names`: a member's blob, and the names that its numbers are of.
//! - `members`: who is there, by an own clock. Pure.
//! - `operator`: the operator's states, the highest revision wins. Pure.
//! - `affinity`: where clients belong, asked by pools within 50 ms.
//! - `keys`, `exchange`, `stored`: commands to the store and their answers.
//! - `handover`: what goes to the member that takes over.
//! - `store`: the connection. `driver`: the loop around all. `member`: its handle.

mod affinity;
mod driver;
mod exchange;
mod handover;
mod keys;
mod member;
mod members;
mod names;
mod operator;
mod report;
mod seal;
mod shared;
mod state_file;
mod status;
mod store;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use driver::ShareError;
pub(crate) use handover::ClusterHandover;
pub(crate) use member::ClusterMember;
pub(crate) use operator::{OperatorField, OperatorKey, OperatorValue, SharedDrain, SharedPace};
pub(crate) use seal::verify;
pub(crate) use shared::{Applied, ClusterHost};
pub(crate) use status::ClusterStatus;
