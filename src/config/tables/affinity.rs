//! `affinity = {...}`: a client goes back to the backend that it had, without a cookie.

use std::time::Duration;

use super::balance::Balance;
use crate::config::hash_key::{ALLOWED, HashKey};
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, seconds, text, time};
use crate::config::value_types::parsed;

table! {
    /// A client goes back to the backend that it had: by its address, or by a key that it brings.
    /// Balancers of a cluster that shares `sticky` know it from each other.
    #[derive(Eq)]
    pub struct Affinity {
        /// Part of a connection that says who the client is; one without it is known by its
        /// address. Without it: the address. With `balance = "hash"` it is the `hash_key`.
        key: Option<HashKey> = text(ALLOWED), optional by parsed;
        /// Clients whose backend is kept: `all`, or `exceptions`, those that are elsewhere than a
        /// hash says.
        ///
        /// Works with every algorithm; a pool with a hash needs to keep the exceptions alone.
        learn: Learn, default(Learn::All);
        /// Time after its last connection for which a client is known.
        ///
        /// Longer than a client is away between two connections, shorter than the day in which a
        /// pool has become uneven.
        ttl: Duration = time(1_000, DAY), default(seconds(3_600));
    }
}

words! {
    /// Clients whose backend is kept.
    pub enum Learn {
        All = "all",
        Exceptions = "exceptions",
    }
}

/// Refuses keys that say the same twice or cannot be kept.
pub(super) fn refuse_affinity(
    pool: &TableReader<'_>,
    affinity: Option<&Affinity>,
    balance: Option<&Balance>,
) {
    let Some(affinity) = affinity else {
        return;
    };
    let hashes = balance.is_some_and(Balance::is_hash);
    if hashes && affinity.key.is_some() {
        let why = "with a hash a client is known by what is hashed; leave it out";
        pool.table("affinity").conflict("key", why);
    }
    if affinity.learn == Learn::Exceptions && balance.is_some() && !hashes {
        let why = "exceptions are from a hash: it needs `balance` \"ip_hash\" or \"hash\"";
        pool.table("affinity").conflict("learn", why);
    }
    if pool.has("sticky") {
        let why = "the cookie of `sticky` brings a client back already: one of them is enough";
        pool.conflict("affinity", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn what_says_the_same_twice_or_keeps_nothing_is_refused() {
        let hash = "balance = \"hash\"\nhash_key = \"path\"\n";
        each_refused([
            (
                web(&format!("{hash}affinity = {{ key = \"path\" }}")),
                "pool.p.affinity.key",
                ErrorKind::Conflict,
            ),
            (
                web("affinity = { learn = \"exceptions\" }"),
                "pool.p.affinity.learn",
                ErrorKind::Conflict,
            ),
            (
                web("affinity = {}\nsticky = { key_file = \"k\" }"),
                "pool.p.affinity",
                ErrorKind::Conflict,
            ),
            (
                web("affinity = {}\nrebalance = {}"),
                "pool.p.rebalance",
                ErrorKind::Conflict,
            ),
            (
                web("affinity = { key = \"nothing\" }"),
                "pool.p.affinity.key",
                ErrorKind::Value,
            ),
            (
                pool("affinity = { key = \"header:x-user\" }"),
                "pool.p.affinity.key",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn an_empty_table_is_by_address_for_an_hour() {
        let read = right(&pool("affinity = {}")).pools["p"].affinity.clone();
        let expected = Affinity {
            key: None,
            learn: Learn::All,
            ttl: Duration::from_secs(3_600),
        };
        assert_eq!(read, Some(expected));
        let hashed = pool("balance = \"ip_hash\"\naffinity = { learn = \"exceptions\" }");
        let read = right(&hashed).pools["p"].affinity.clone();
        assert_eq!(read.unwrap().learn, Learn::Exceptions);
    }
}
