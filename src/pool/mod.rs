//! Pools and their backends: choosing and counting.
//!
//! Writers (reload, discovery, checks, operator, outlier detection) change one thing, compute the
//! next `View` under the pool's lock and swap it in. A pick reads the view and the live counts, and
//! takes no lock but that of its algorithm, for a step. The result is a [`Lease`]: as long as it
//! lives, the connection counts.

// The pool as its users see it.
mod acquire;
mod affinity;
mod backend_pool;
mod cluster;
mod loads;
mod sticky;
mod watch_membership;

// One backend: its state by writer, its counts.
mod backend;
mod cluster_load;
mod connection_counter;
mod lease;
mod losses;
mod operated;
mod outlier;
mod standing;
mod states;
mod status;
mod transitions;

// Membership, and what a pick reads.
mod discovered;
mod members;
mod remembered;
mod tier;
mod view;

// What outlives the process.
mod elsewhere;
mod handed_state;
mod handed_totals;
mod handover;

// Requests that wait.
mod queue;
mod request;
mod waiting;

mod clock;
mod counters;
mod supervise;

#[cfg(test)]
mod tests;

pub(crate) use affinity::{
    AffinityAnswer, AffinityAsk, AffinityLink, AffinityQuestion, AffinityStore,
};
pub(crate) use backend::Backend;
pub(crate) use backend_pool::Pool;
pub(crate) use cluster::ClusterExchange;
pub(crate) use counters::PoolValues;
pub(crate) use discovered::{DiscoveredBackend, DiscoveryState};
pub(crate) use handed_state::PoolState;
pub(crate) use handed_totals::PoolTotals;
pub(crate) use lease::Lease;
pub(crate) use loads::{BackendLoad, TrafficShift};
pub(crate) use request::{AcquireError, BackendRequest};
pub(crate) use states::OperatorState;
pub(crate) use supervise::supervise;
pub(crate) use watch_membership::{membership_changed, watch_membership};
