//! Reload and discovery.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::config::{Discover, DiscoverPolicy, DiscoverSource};
use crate::net::Endpoint;
use crate::pool::states::{BackendState, OperatorState};
use crate::pool::{DiscoveredBackend, DiscoveryState};

#[test]
fn a_reload_keeps_what_belongs_to_a_backend() {
    let mut checked = settings(Balance::LeastConn, nodes(&["a", "b", "c"]));
    checked.check = Some(check());
    let pool = Pool::new(&checked);
    let lease = take(&pool).unwrap();
    let (a, b, c) = (
        backend(&pool, "a"),
        backend(&pool, "b"),
        backend(&pool, "c"),
    );
    a.set_operator(OperatorState::Maint);
    b.set_check(false, "refused", clock());
    c.connected(clock());
    let mut changed = pool.changed();
    let mut new = checked.clone();
    new.balance = Balance::IpHash;
    new.backends.reverse();
    new.backends[0].address = Address::Tcp("127.0.0.1:9999".parse().unwrap());
    new.backends[0].max_connections = 9;
    pool.apply(&new);
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    pool.apply(&new);
    assert!(!changed.has_changed().unwrap());
    let now: Vec<Arc<Backend>> = pool.backends();
    assert!(Arc::ptr_eq(&now[0], &c) && Arc::ptr_eq(&now[1], &b) && Arc::ptr_eq(&now[2], &a));
    assert_eq!(a.operator(), OperatorState::Maint);
    assert_eq!(b.state(clock()), BackendState::Down);
    assert_eq!(c.counters().connections.load(SeqCst), 1);
    assert_eq!(
        c.endpoint(),
        Some(Endpoint::Tcp("127.0.0.1:9999".parse().unwrap()))
    );
    assert_eq!(c.max_connections(), 9);
    assert_eq!(a.live() + b.live() + c.live(), 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_removed_backend_is_listed_until_its_last_connection_is_gone() {
    let pool = Pool::new(&settings(Balance::LeastConn, nodes(&["a", "b"])));
    let leases = [take(&pool).unwrap(), take(&pool).unwrap()];
    let a = backend(&pool, "a");
    let full = (*pool.settings()).clone();
    let mut less = full.clone();
    less.backends.remove(0);
    pool.apply(&less);
    assert!(a.is_retired() && pool.retired().len() == 1 && pool.backends().len() == 1);
    assert!(names(&pool, 4).iter().all(|name| name == "b"));
    assert!(Lease::take(&a).is_none(), "a pick under way entered it");
    assert!(Arc::ptr_eq(&backend(&pool, "a"), &a));
    pool.apply(&full);
    assert!(Arc::ptr_eq(&backend(&pool, "a"), &a) && !a.is_retired() && pool.retired().is_empty());
    pool.apply(&less);
    assert!(a.emptied().now_or_never().is_none());
    drop(leases);
    a.emptied().now_or_never().unwrap();
    assert!(pool.retired().is_empty() && pool.backend("a").is_none());
}

#[test]
fn a_removed_pool_takes_nothing_and_can_come_back() {
    let pool = Pool::new(&settings(Balance::LeastConn, nodes(&["a"])));
    let lease = take(&pool).unwrap();
    let settings = pool.settings();
    pool.retire();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
    assert_eq!(pool.retired().len(), 1);
    pool.apply(&settings);
    assert!(Arc::ptr_eq(take(&pool).unwrap().backend(), lease.backend()));
}

fn found(names: &[&str]) -> Vec<DiscoveredBackend> {
    let one = |name: &&str| DiscoveredBackend {
        name: (*name).to_owned(),
        address: Address::Tcp("127.0.0.1:9501".parse().unwrap()),
        host: Some("chat.test".to_owned()),
        weight: 1,
        backup: false,
        max_connections: 0,
        state: DiscoveryState::Ready,
    };
    names.iter().map(one).collect()
}

/// Settings of the node `a` and a `discover` source.
fn discovering() -> config::Pool {
    let mut discovering = settings(Balance::RoundRobin, nodes(&["a"]));
    discovering.discover = Some(Discover {
        source: DiscoverSource::Srv {
            name: "_ws._tcp.chat.internal".to_owned(),
        },
        nameservers: Vec::new(),
        min_ttl: Duration::from_secs(1),
        max_ttl: Duration::from_secs(300),
        timeout: Duration::from_secs(5),
        weight: 1,
        max_connections: 0,
        policy: DiscoverPolicy::default(),
    });
    discovering
}

#[test]
fn discovered_backends_live_beside_the_configured_ones_and_an_empty_answer_keeps_them() {
    let mut discovering = discovering();
    let pool = Pool::new(&discovering);
    let present = |pool: &Pool| -> Vec<String> {
        pool.backends()
            .iter()
            .map(|one| one.name().to_string())
            .collect()
    };
    assert!(pool.apply_discovered(found(&["y", "x", "a"])));
    assert_eq!(present(&pool), ["a", "x", "y"]);
    assert!(!pool.apply_discovered(found(&["a", "x", "y"])));
    assert!(!pool.apply_discovered(Vec::new()));
    let x = backend(&pool, "x");
    discovering.retries = 0;
    pool.apply(&discovering);
    assert!(Arc::ptr_eq(&x, &backend(&pool, "x")));
    assert!(pool.apply_discovered(found(&["y"])));
    assert_eq!(present(&pool), ["a", "y"]);
    discovering.discover = None;
    pool.apply(&discovering);
    assert_eq!(present(&pool), ["a"]);
    assert!(!pool.apply_discovered(found(&["y"])));
}

#[test]
fn a_resolved_name_is_announced_to_the_followers() {
    let mut named = settings(Balance::RoundRobin, nodes(&["a"]));
    named.backends[0].address = Address::Name("chat.internal".to_owned(), 9501);
    let pool = Pool::new(&named);
    assert_eq!(backend(&pool, "a").state(clock()), BackendState::Unresolved);
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
    let mut changed = pool.changed();
    backend(&pool, "a").resolved(Ok(Endpoint::Tcp("10.0.0.1:9501".parse().unwrap())));
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    backend(&pool, "a").resolved(Err("timed out".to_owned()));
    assert!(!changed.has_changed().unwrap());
    assert_eq!(name(&take(&pool).unwrap()), "a");
}

/// A drained node that one answer of DNS left out came back ready.
#[test]
fn a_node_that_vanished_comes_back_as_the_operator_left_it() {
    let pool = Pool::new(&discovering());
    pool.apply_discovered(found(&["x", "y", "z"]));
    backend(&pool, "x").set_operator(OperatorState::Drain);
    backend(&pool, "y").set_weight(Some(7));
    pool.apply_discovered(found(&["z"]));
    assert_eq!(pool.backends().len(), 2);
    pool.apply_discovered(found(&["x", "y", "z"]));
    assert_eq!(backend(&pool, "x").operator(), OperatorState::Drain);
    assert_eq!(backend(&pool, "x").state(clock()), BackendState::Drain);
    assert_eq!(backend(&pool, "y").status().operator.weight, Some(7));
    assert!(names(&pool, 20).iter().all(|name| name != "x"));

    backend(&pool, "x").set_operator(OperatorState::Ready);
    pool.apply_discovered(found(&["z"]));
    pool.apply_discovered(found(&["x", "z"]));
    assert_eq!(backend(&pool, "x").operator(), OperatorState::Ready);
}

#[test]
fn what_is_remembered_of_vanished_nodes_is_bounded() {
    let pool = Pool::new(&discovering());
    for n in 0..1_030 {
        let name = format!("x{n}");
        pool.apply_discovered(found(&[&name]));
        backend(&pool, &name).set_operator(OperatorState::Maint);
    }
    pool.apply_discovered(found(&["x0", "x1028"]));
    assert_eq!(backend(&pool, "x0").operator(), OperatorState::Ready);
    assert_eq!(backend(&pool, "x1028").operator(), OperatorState::Maint);
}

#[test]
fn a_backend_that_discovery_drains_or_does_not_list_gets_nothing_and_comes_back() {
    let pool = Pool::new(&discovering());
    let says = |state| {
        let mut found = found(&["x"]);
        found[0].state = state;
        pool.apply_discovered(found);
        backend(&pool, "x").state(clock())
    };
    assert_eq!(says(DiscoveryState::Ready), BackendState::Up);
    let x = backend(&pool, "x");
    let lease = Lease::take(&x).unwrap();
    for (state, reason) in [
        (DiscoveryState::Drain, "drained by discovery"),
        (DiscoveryState::Absent, "not listed by discovery any more"),
    ] {
        assert_eq!(says(state), BackendState::Drain);
        assert_eq!(x.reason(), reason);
        assert!(x.is_leaving() && !x.is_retired());
        assert!(names(&pool, 9).iter().all(|name| name == "a"));
        assert_eq!(says(DiscoveryState::Ready), BackendState::Up);
        assert_eq!(x.reason(), "ready again by discovery");
    }
    // The operator's drain stands beside it.
    x.set_operator(OperatorState::Drain);
    says(DiscoveryState::Drain);
    x.set_operator(OperatorState::Ready);
    assert_eq!(x.state(clock()), BackendState::Drain);
    // Left out, it is removed, and known as absent while a session is on it.
    pool.apply_discovered(found(&["y"]));
    assert!(x.is_retired() && x.is_absent());
    assert!(Arc::ptr_eq(&x, &backend(&pool, "x")));
    assert_eq!(says(DiscoveryState::Ready), BackendState::Up);
    assert!(Arc::ptr_eq(&x, &backend(&pool, "x")) && !x.is_retired());
    drop(lease);
}

/// Whoever picks while all backends are replaced gets one of the old or of the new.
#[test]
fn a_pick_during_a_change_of_all_backends_finds_one() {
    let sets = ["a", "b"].map(|name| settings(Balance::LeastConn, nodes(&[name])));
    let pool = Pool::new(&sets[0]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let picks = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut failed = 0;
                while !is_over.load(SeqCst) {
                    failed += u32::from(take(&pool).is_err());
                }
                failed
            })
        });
        for turn in 1..5_000 {
            pool.apply(&sets[turn % 2]);
        }
        is_over.store(true, SeqCst);
        assert_eq!(picks.map(|picks| picks.join().unwrap()), [0, 0]);
    });
}
