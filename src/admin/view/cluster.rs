//! JSON of the cluster in the admin API.

use serde::{Deserialize, Serialize};

/// Cluster of this balancer, as it sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ClusterView {
    pub name: String,
    /// Name of this balancer in it.
    pub id: String,
    /// Address of the store, or of its sentinels.
    pub store: String,
    /// The store cannot be reached: this balancer goes on by itself.
    pub alone: bool,
    /// Age of the latest good exchange with the store; absent before the first.
    pub age_seconds: Option<f64>,
    pub exchanges: u64,
    /// Exchanges that failed.
    pub failures: u64,
    /// Why the latest exchange failed; absent if it did not.
    pub last_error: Option<String>,
    /// Values in the store that nobody with the secret has written.
    pub rejected: u64,
    /// Another balancer has the same id.
    pub same_id: bool,
    /// Parts that are shared: the words of the key `share`.
    pub share: Vec<String>,
    /// The other members.
    pub members: Vec<MemberView>,
    /// States of the operator that hold at all members.
    pub states: Vec<SharedStateView>,
}

/// Another balancer of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MemberView {
    pub id: String,
    /// Since its last sign of life.
    pub age_seconds: f64,
    /// Live connections on all backends.
    pub connections: u64,
    /// Whether it has applied all states of the operator that this member knows.
    pub up_to_date: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SharedStateView {
    pub pool: String,
    pub backend: String,
    /// `drain`, `maint` or `weight 7`.
    pub state: String,
    /// Member that it was set on.
    pub by: String,
    /// Revision: the highest one wins.
    pub revision: u64,
}

/// How far a state has spread in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpreadView {
    /// `stored`, or `local` while the store does not have it.
    pub state: String,
    /// Members that have applied it, this one among them.
    pub applied: u64,
    pub members: u64,
}
