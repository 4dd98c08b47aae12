//! Backends as discovery delivers them.

use crate::config::{self, Address, InitState};
use crate::net::Endpoint;

/// A backend found by discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredBackend {
    /// Unique in the snapshot; where a configured backend has the same name, that one stays.
    pub name: String,
    pub address: Endpoint,
    /// The name that was looked up; a certificate may be verified against it.
    pub host: String,
    /// 0..=256
    pub weight: u16,
    pub backup: bool,
    /// 0 = no own limit.
    pub max_connections: u64,
}

impl From<DiscoveredBackend> for config::Backend {
    fn from(found: DiscoveredBackend) -> Self {
        let address = match found.address {
            Endpoint::Tcp(address) => Address::Tcp(address),
            Endpoint::Unix(path) => Address::Unix(path),
        };
        config::Backend {
            name: found.name,
            address,
            weight: found.weight,
            max_connections: found.max_connections,
            backup: found.backup,
            init_state: InitState::Up,
            host: Some(found.host),
        }
    }
}
