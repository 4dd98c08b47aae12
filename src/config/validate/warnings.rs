//! Settings that are allowed and hardly meant: `evenkeel check` warns of them, nothing refuses
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::uses::uses;
use crate::config::address::{Address, Bind};
use crate::config::reader::TableReader;
use crate::config::tables::{Listener, Pool, ReadPool};

/// Warns of pools that do less than they look like.
pub(super) fn warn_of_pools(pools: &[ReadPool<'_>], listeners: &[Listener]) {
    let known = pools
        .iter()
        .filter_map(|read| Some((&read.table, read.pool.as_ref()?)));
    for (table, pool) in known {
        let users = listeners.iter().filter(|one| uses(one, &pool.name));
        let users: Vec<_> = users.collect();
        if users.is_empty() {
            table.warn("no listener uses this pool");
            continue;
        }
        if pool.check.is_none() {
            table.warn(
                "without `check` a backend that is down is found by the connects of clients alone",
            );
        }
        warn_of_loops(table, pool, &users);
    }
}

/// Warns of each backend that is a listener of its own pool: every connection would come back until
/// none is left.
fn warn_of_loops(table: &TableReader<'_>, pool: &Pool, users: &[&Listener]) {
    let entries = table.value("backend");
    let entries = entries.iter().flat_map(|entry| entry.items());
    for (entry, backend) in entries.zip(&pool.backends) {
        let is_it = |listener: &&&Listener| leads_to(&backend.address, &listener.bind);
        if let Some(listener) = users.iter().find(is_it) {
            let name = &listener.name;
            entry.warn(format!("this backend is the listener \"{name}\" itself"));
        }
    }
}

fn leads_to(backend: &Address, bind: &Bind) -> bool {
    match (backend, bind) {
        (Address::Unix(backend), Bind::Unix(bind)) => backend == bind,
        (Address::Tcp(backend), Bind::Tcp(bind)) => is_same(*backend, *bind),
        (Address::Name(name, port), Bind::Tcp(bind)) => {
            let is_local = name.trim_end_matches('.') == "localhost";
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let mut addresses = loopback.iter().map(|ip| SocketAddr::new(*ip, *port));
            is_local && addresses.any(|address| is_same(address, *bind))
        }
        _ => false,
    }
}

/// A connect to the unspecified address reaches this machine, as one to loopback does.
fn is_same(backend: SocketAddr, bind: SocketAddr) -> bool {
    let (to, own) = (backend.ip().to_canonical(), bind.ip().to_canonical());
    let is_here = if to.is_unspecified() {
        own.is_loopback()
    } else {
        to.is_loopback() && own.is_unspecified()
    };
    bind.port() != 0 && backend.port() == bind.port() && (to == own || is_here)
}

#[cfg(test)]
mod tests {
    use crate::config::draft::Draft;
    use std::path::Path;

    fn warned(text: &str) -> Vec<(String, String)> {
        let draft = Draft::read(text, Path::new("a.toml"));
        assert!(draft.is_sound());
        let found = draft.warnings().map(|found| found.messages());
        let found = found.unwrap_or_default().into_iter();
        found.map(|one| (one.key, one.message)).collect()
    }

    fn text(bind: &str, keys: &str, backend: &str, more: &str) -> String {
        format!(
            "[[listener]]\nname = \"l\"\nbind = \"{bind}\"\nprotocol = \"tcp\"\npool = \"p\"\n{keys}\n\
             [pool.p]\nbackend = [{{ address = \"10.0.0.1:80\" }}, {{ address = \"{backend}\" }}]\n\
             check = {{ type = \"tcp\" }}\n{more}"
        )
    }

    #[test]
    fn a_pool_that_nobody_uses_or_checks_is_warned_of() {
        let quiet = text("127.0.0.1:80", "", "10.0.0.2:80", "");
        assert_eq!(warned(&quiet), []);
        let found = warned(&quiet.replace("check = { type = \"tcp\" }\n", ""));
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == "pool.p" && found[0].1.starts_with("without `check` "));
        let unused = "[pool.q]\nbackend = [{ address = \"10.0.0.1:80\" }]\n";
        let found = warned(&text("127.0.0.1:80", "", "10.0.0.2:80", unused));
        assert_eq!(
            found,
            [("pool.q".to_owned(), "no listener uses this pool".to_owned())]
        );
    }

    #[test]
    fn a_backend_that_is_the_listener_is_warned_of() {
        for (bind, backend, warns) in [
            ("10.0.0.9:80", "10.0.0.9:80", true),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "localhost:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("[::]:80", "10.0.0.2:80", false),
            ("[::]:80", "node.internal:80", false),
            ("127.0.0.1:0", "127.0.0.1:80", false),
        ] {
            let found = warned(&text(bind, "", backend, ""));
            let wanted = "pool.p.backend[1]".to_owned();
            let keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, vec![wanted; usize::from(warns)], "{bind} {backend}");
        }
    }

    #[test]
    fn a_network_with_bits_behind_its_prefix_is_warned_of() {
        let keys = "allow = [\"10.1.2.3/8\", \"10.0.0.0/8\", \"192.0.2.7\", \"fd00::1/64\"]\ndeny = [\"10.9.9.9/32\"]";
        let found = warned(&text("127.0.0.1:80", keys, "10.0.0.2:80", ""));
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["listener[0].allow[0]", "listener[0].allow[3]"]);
        assert!(found[0].1.contains("stands for 10.0.0.0/8"), "{found:?}");
    }
}
