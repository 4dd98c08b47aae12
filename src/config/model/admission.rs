//! Who may come in, and how many: of a listener, and of a route.

use super::{Rate, Trusted};

/// `allow` and `deny` of a listener or a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Empty: everybody whom `deny` does not name. Default empty.
    pub allow: Vec<Trusted>,
    /// Wins over `allow`. Default empty.
    pub deny: Vec<Trusted>,
}

impl Access {
    /// Whether it keeps nobody out.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// What a listener lets in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    pub access: Access,
    /// Live connections at once; 0 = no own limit. Default 0.
    pub max_connections: u64,
    /// Connections accepted in a time. Default none.
    pub max_connection_rate: Option<Rate>,
    /// Default none.
    pub per_source: Option<PerSource>,
}

/// `listener.per_source`: limits of every source for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSource {
    /// Live connections at once; 0 = no limit. Default 0.
    pub max_connections: u64,
    /// Connections accepted in a time. Default none.
    pub max_connection_rate: Option<Rate>,
    pub prefixes: Prefixes,
}

/// How many bits of an address make a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// 0..=32. Default 32.
    pub v4: u8,
    /// 0..=128. Default 64.
    pub v6: u8,
}

impl Default for Prefixes {
    fn default() -> Prefixes {
        Prefixes {
            v4: super::super::defaults::V4_PREFIX,
            v6: super::super::defaults::V6_PREFIX,
        }
    }
}
