//! Choice of a backend.

use std::collections::BTreeMap;

use tokio::time::advance;

use super::*;
use crate::pool::states::{BackendState, OperatorState};

#[test]
fn round_robin_takes_turns_by_weight() {
    let mut backends = nodes(&["a", "b", "c"]);
    backends[0].weight = 2;
    backends[2].weight = 0;
    let pool = Pool::new(&settings(Balance::RoundRobin, backends));
    assert_eq!(names(&pool, 6), ["a", "b", "a", "a", "b", "a"]);
}

#[test]
fn a_state_change_does_not_begin_the_round_anew() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b", "c"])));
    assert_eq!(names(&pool, 1), ["a"]);
    backend(&pool, "c").set_operator(OperatorState::Drain);
    backend(&pool, "c").set_operator(OperatorState::Ready);
    let mut grown = (*pool.settings()).clone();
    grown.backends.push(node("d"));
    pool.apply(&grown);
    assert_eq!(names(&pool, 2), ["b", "c"]);
}

#[test]
fn least_connections_counts_from_the_lease_and_never_forgets_on_reload() {
    let pool = Pool::new(&settings(Balance::LeastConn, nodes(&["a", "b"])));
    let leases: Vec<Lease> = (0..10).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(backend(&pool, "a").live(), 5);
    let mut grown = (*pool.settings()).clone();
    grown.backends.push(node("c"));
    pool.apply(&grown);
    let more: Vec<Lease> = (0..5).map(|_| take(&pool).unwrap()).collect();
    assert!(more.iter().all(|lease| name(lease) == "c"));
    drop(leases);
    assert_eq!(backend(&pool, "a").live(), 0);
    assert_eq!(backend(&pool, "c").live(), 5);
}

#[test]
fn a_client_stays_where_its_hash_says_and_falls_through_while_that_one_is_down_or_full() {
    let pool = Pool::new(&settings(Balance::IpHash, nodes(&["a", "b", "c", "d"])));
    let mut homes = BTreeMap::new();
    for n in 0..200 {
        homes.insert(n, name(&take_for(&pool, &client(n)).unwrap()));
    }
    backend(&pool, "b").set_check(false, "refused", clock());
    let mut full = (*pool.settings()).clone();
    full.backends[2].max_connections = 1;
    pool.apply(&full);
    backend(&pool, "b").set_check(false, "refused", clock());
    let of_c = homes.iter().find(|(_, home)| *home == "c").unwrap();
    let held = take_for(&pool, &client(*of_c.0)).unwrap();
    assert_eq!(name(&held), "c");
    let mut heirs = BTreeMap::<String, u32>::new();
    for (n, home) in &homes {
        let there = name(&take_for(&pool, &client(*n)).unwrap());
        match home.as_str() {
            "b" | "c" => *heirs.entry(there).or_default() += 1,
            _ => assert_eq!(*home, there),
        }
    }
    assert_eq!(heirs.keys().collect::<Vec<_>>(), ["a", "d"]);
    drop(held);
    backend(&pool, "b").set_check(true, "passed", clock());
    for (n, home) in &homes {
        assert_eq!(*home, name(&take_for(&pool, &client(*n)).unwrap()));
    }
}

#[test]
fn two_pools_of_the_same_names_pick_alike_whatever_the_order() {
    let key = Balance::Hash(config::HashKey::Path);
    let there = Pool::new(&settings(key.clone(), nodes(&["a", "b", "c"])));
    let back = Pool::new(&settings(key, nodes(&["c", "a", "b"])));
    for n in 0..100u8 {
        let key = [n];
        let pick = BackendRequest {
            key: Some(&key),
            ..client(1)
        };
        let (x, y) = (
            take_for(&there, &pick).unwrap(),
            take_for(&back, &pick).unwrap(),
        );
        assert_eq!(name(&x), name(&y));
    }
}

#[test]
fn without_a_key_the_client_address_is_hashed() {
    let by_key = Pool::new(&settings(
        Balance::Hash(config::HashKey::Sni),
        nodes(&["a", "b", "c"]),
    ));
    let by_address = Pool::new(&settings(Balance::IpHash, nodes(&["a", "b", "c"])));
    for n in 0..100 {
        let (x, y) = (
            take_for(&by_key, &client(n)),
            take_for(&by_address, &client(n)),
        );
        assert_eq!(name(&x.unwrap()), name(&y.unwrap()));
    }
}

#[test]
fn a_tried_backend_comes_last_behind_the_backups() {
    let mut backends = nodes(&["a", "b", "spare"]);
    backends[2].backup = true;
    let pool = Pool::new(&settings(Balance::RoundRobin, backends));
    let mut tried = Vec::new();
    for _ in 0..3 {
        let lease = take_for(
            &pool,
            &BackendRequest {
                tried: &tried,
                ..BackendRequest::default()
            },
        )
        .unwrap();
        tried.push(lease.backend().clone());
    }
    let order: Vec<&str> = tried.iter().map(|backend| &**backend.name()).collect();
    assert_eq!(order, ["a", "b", "spare"]);
    let again = take_for(
        &pool,
        &BackendRequest {
            tried: &tried,
            ..BackendRequest::default()
        },
    )
    .unwrap();
    assert_ne!(name(&again), "spare");
}

#[test]
fn backups_serve_only_while_no_primary_is_usable() {
    let mut backends = nodes(&["a", "spare"]);
    backends[0].max_connections = 1;
    backends[1].backup = true;
    let pool = Pool::new(&settings(Balance::RoundRobin, backends));
    let held = take(&pool).unwrap();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    backend(&pool, "a").set_operator(OperatorState::Maint);
    assert_eq!(name(&take(&pool).unwrap()), "spare");
    backend(&pool, "a").set_operator(OperatorState::Ready);
    drop(held);
    assert_eq!(name(&take(&pool).unwrap()), "a");
}

#[test]
fn a_weight_of_zero_gets_nothing_new_and_the_override_survives_a_reload() {
    let pool = Pool::new(&settings(Balance::LeastConn, nodes(&["a", "b"])));
    backend(&pool, "a").set_weight(Some(0));
    let mut other = (*pool.settings()).clone();
    other.retries = 1;
    other.backends[0].weight = 7;
    pool.apply(&other);
    assert!(names(&pool, 10).iter().all(|name| name == "b"));
    assert_eq!(
        (
            backend(&pool, "a").weight(),
            backend(&pool, "a").state(clock())
        ),
        (0, BackendState::Up)
    );
    backend(&pool, "a").set_weight(None);
    assert_eq!(backend(&pool, "a").weight(), 7);
    backend(&pool, "b").set_weight(Some(0));
    backend(&pool, "a").set_weight(Some(0));
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
}

#[tokio::test(start_paused = true)]
async fn a_recovered_backend_is_filled_slowly_but_not_at_process_start() {
    let mut slow = settings(Balance::RoundRobin, nodes(&["a", "b"]));
    slow.slow_start = Duration::from_secs(100);
    let pool = Pool::new(&slow);
    let share = |pool: &Pool| names(pool, 100).iter().filter(|name| *name == "b").count();
    assert_eq!(share(&pool), 50);
    backend(&pool, "b").set_check(false, "refused", clock());
    backend(&pool, "b").set_check(true, "passed", clock());
    assert!(share(&pool) <= 2);
    advance(Duration::from_secs(50)).await;
    assert!((31..=35).contains(&share(&pool)));
    advance(Duration::from_secs(50)).await;
    assert!((49..=51).contains(&share(&pool)));
}

#[tokio::test(start_paused = true)]
async fn slow_start_never_moves_a_hashed_client() {
    let mut slow = settings(Balance::IpHash, nodes(&["a", "b"]));
    slow.slow_start = Duration::from_secs(100);
    let pool = Pool::new(&slow);
    let homes = |pool: &Pool| -> Vec<String> {
        let picks = (0..50).map(|n| take_for(pool, &client(n)).unwrap());
        picks.map(|lease| name(&lease)).collect()
    };
    let before = homes(&pool);
    backend(&pool, "b").set_check(false, "refused", clock());
    backend(&pool, "b").set_check(true, "passed", clock());
    assert_eq!(homes(&pool), before);
}
