//! Status of the cluster, as this member sees it.

use std::time::{Duration, Instant};

/// Status at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClusterStatus {
    pub name: String,
    pub id: String,
    /// Address of the store, or of its sentinels.
    pub store: String,
    /// Parts that are shared.
    pub share: Vec<&'static str>,
    pub is_alone: bool,
    /// Members at the latest good exchange, this one among them; 0 before the first.
    pub known_members: u32,
    /// The latest good exchange.
    pub exchanged_at: Option<Instant>,
    pub exchanges: u64,
    pub failures: u64,
    /// Values in the store that nobody with the secret has written.
    pub rejected: u64,
    /// Why the latest exchange failed.
    pub last_error: Option<String>,
    /// Another balancer has the same id.
    pub has_twin: bool,
    /// The other members.
    pub members: Vec<MemberStatus>,
    /// States that the operator has set, other than `ready` and the configured weight.
    pub states: Vec<SharedState>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberStatus {
    pub id: String,
    /// Since its last sign of life, as of the status.
    pub age: Duration,
    /// Live connections on all backends.
    pub connections: u64,
    /// Digest of the operator's states that it has applied.
    pub operator: [u8; 16],
    /// Whether these are all that this member has.
    pub is_up_to_date: bool,
}

/// State that holds at all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedState {
    pub pool: String,
    pub backend: String,
    /// `drain`, `maint` or `weight 7`.
    pub state: String,
    /// Member that it was set on.
    pub by: String,
    pub rev: u64,
}
