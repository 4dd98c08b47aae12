//! `balance` and `hash_key` of a pool: how a backend is chosen.

use crate::config::declare::{Declared, TableSpec};
use crate::config::hash_key::{ALLOWED, HashKey};
use crate::config::reader::TableReader;
use crate::config::spec::text;
use crate::config::value_types::parsed;
use crate::config::words::Word;

table! {
    /// How a backend is chosen.
    struct BalanceKeys {
        /// How a backend is chosen. `ip_hash` and `hash` keep a client, or a key, on its backend.
        ///
        /// Works for every kind of load and is the easiest to reason about.
        algorithm as "balance": Algorithm, default(Algorithm::RoundRobin);
        /// Part of a connection that is hashed, with `balance = "hash"`. A connection without it
        /// falls back to the client's address.
        hash_key: Option<HashKey> = text(ALLOWED), optional by parsed;
    }
}

words! {
    /// Values of `balance`.
    enum Algorithm {
        RoundRobin = "round_robin",
        LeastConn = "least_conn",
        IpHash = "ip_hash",
        Random = "random",
        Hash = "hash",
    }
}

/// How a backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConn,
    IpHash,
    Random,
    /// `balance = "hash"` with `hash_key`.
    Hash(HashKey),
}

impl Balance {
    fn algorithm(&self) -> Algorithm {
        match self {
            Balance::RoundRobin => Algorithm::RoundRobin,
            Balance::LeastConn => Algorithm::LeastConn,
            Balance::IpHash => Algorithm::IpHash,
            Balance::Random => Algorithm::Random,
            Balance::Hash(_) => Algorithm::Hash,
        }
    }

    fn hash_key(&self) -> Option<HashKey> {
        match self {
            Balance::Hash(key) => Some(key.clone()),
            Balance::RoundRobin | Balance::LeastConn | Balance::IpHash | Balance::Random => None,
        }
    }

    /// Word of the file.
    pub fn word(&self) -> &'static str {
        self.algorithm().word()
    }

    pub(super) fn is_hash(&self) -> bool {
        matches!(self, Balance::IpHash | Balance::Hash(_))
    }

    fn keys(&self) -> BalanceKeys {
        BalanceKeys {
            algorithm: self.algorithm(),
            hash_key: self.hash_key(),
        }
    }
}

impl Declared for Balance {
    const SPEC: &'static TableSpec = BalanceKeys::SPEC;

    fn read(table: &TableReader<'_>) -> Option<Self> {
        let BalanceKeys {
            algorithm,
            hash_key,
        } = BalanceKeys::read(table)?;
        if algorithm != Algorithm::Hash {
            table.conflict("hash_key", "only `balance = \"hash\"` has a key");
        } else if !table.has("hash_key") {
            table.missing("hash_key", "`balance = \"hash\"` without a key", ALLOWED);
        }
        Some(match algorithm {
            Algorithm::RoundRobin => Balance::RoundRobin,
            Algorithm::LeastConn => Balance::LeastConn,
            Algorithm::IpHash => Balance::IpHash,
            Algorithm::Random => Balance::Random,
            Algorithm::Hash => Balance::Hash(hash_key?),
        })
    }

    fn differing(&self, other: &Self) -> Vec<&'static str> {
        self.keys().differing(&other.keys())
    }
}
