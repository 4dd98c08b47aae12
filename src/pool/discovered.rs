//! Backends as discovery delivers them.

use crate::config::{self, Address, InitState};

/// A backend found by discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredBackend {
    /// Unique in the snapshot; where a configured backend has the same name, that one stays.
    pub name: String,
    pub address: Address,
    /// The name that was looked up; a certificate may be verified against it.
    pub host: Option<String>,
    /// 0..=256
    pub weight: u16,
    pub backup: bool,
    /// 0 = no own limit.
    pub max_connections: u64,
    pub state: DiscoveryState,
}

/// State that discovery gives a backend, beside the one that the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryState {
    /// Listed, or configured.
    Ready,
    /// Listed, and to get no new connections.
    Drain,
    /// Not listed any more. It gets no new connections, not even of returning clients.
    Absent,
}

impl DiscoveryState {
    pub(super) fn named(word: &str) -> Option<DiscoveryState> {
        let all = [
            DiscoveryState::Ready,
            DiscoveryState::Drain,
            DiscoveryState::Absent,
        ];
        all.into_iter().find(|state| state.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            DiscoveryState::Ready => "ready",
            DiscoveryState::Drain => "drain",
            DiscoveryState::Absent => "absent",
        }
    }

    /// Why a backend of this state gets no new connections.
    pub(super) fn reason(self) -> &'static str {
        match self {
            DiscoveryState::Ready => "",
            DiscoveryState::Drain => "drained by discovery",
            DiscoveryState::Absent => "not listed by discovery any more",
        }
    }
}

impl From<&DiscoveredBackend> for config::Backend {
    fn from(found: &DiscoveredBackend) -> Self {
        config::Backend {
            name: found.name.clone(),
            address: found.address.clone(),
            weight: found.weight,
            max_connections: found.max_connections,
            backup: found.backup,
            init_state: InitState::Up,
            host: found.host.clone(),
        }
    }
}
