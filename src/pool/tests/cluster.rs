//! A pool beside others of its cluster: own counts out, the others' in.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::config::HashKey;
use crate::pool::ClusterExchange;
use crate::pool::cluster::OwnLoad;

/// Takes over an exchange with so many members, of which the others have these connections.
fn exchange(pool: &Pool, members: u32, others: &[(&str, u64)]) {
    let others: HashMap<&str, u64> = others.iter().copied().collect();
    pool.set_cluster_loads(&ClusterExchange {
        members,
        others: &|name| others.get(name).copied().unwrap_or(0),
        shares_load: true,
        shares_drain: true,
    });
}

fn least_conn(names: &[&str]) -> config::Pool {
    settings(Balance::LeastConn, nodes(names))
}

/// Own live counts, by backend.
fn live(pool: &Pool) -> HashMap<String, u64> {
    let loads = pool.own_loads().into_iter();
    loads
        .map(|OwnLoad { backend, live }| (backend.to_string(), live))
        .collect()
}

#[test]
fn picks_go_where_all_balancers_have_least() {
    let pool = Pool::new(&least_conn(&["a", "b"]));
    exchange(&pool, 2, &[("a", 10)]);
    let picked = names(&pool, 4);
    assert_eq!(picked, ["b"; 4]);
    exchange(&pool, 2, &[("a", 1), ("b", 10)]);
    assert_eq!(names(&pool, 1), ["a"]);
}

/// Two others are taken to pick as this one does: `b` is filled after a third of what it lacks.
#[test]
fn a_pick_stands_for_one_of_each_other_balancer() {
    let pool = Pool::new(&least_conn(&["a", "b"]));
    exchange(&pool, 3, &[("a", 9)]);
    let leases: Vec<_> = (0..3).map(|_| take(&pool).unwrap()).collect();
    assert!(leases.iter().all(|lease| name(lease) == "b"));
    let next: Vec<_> = (0..2).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(next.iter().filter(|lease| name(lease) == "a").count(), 1);
    // The exchange tells what the others did: nothing.
    exchange(&pool, 3, &[("a", 9)]);
    assert_eq!(name(&take(&pool).unwrap()), "b");
}

/// A new backend was taken to be for this balancer alone, until the next exchange.
#[test]
fn a_backend_that_a_reload_adds_is_shared_at_once() {
    let mut config = least_conn(&["a"]);
    let pool = Pool::new(&config);
    exchange(&pool, 10, &[("a", 18)]);
    config.backends = nodes(&["a", "b"]);
    pool.apply(&config);
    let leases: Vec<_> = (0..6).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(leases.iter().filter(|lease| name(lease) == "b").count(), 4);
}

#[test]
fn a_limit_is_of_all_balancers() {
    let pool = Pool::new(&limited(&[10], 0));
    exchange(&pool, 2, &[("n1", 8)]);
    let leases: Vec<_> = (0..2).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    exchange(&pool, 2, &[("n1", 20)]);
    drop(leases);
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    pool.leave_cluster();
    assert!(take(&pool).is_ok());
}

#[tokio::test]
async fn room_that_others_make_serves_the_queue() {
    let pool = Pool::new(&limited(&[3], 1));
    exchange(&pool, 2, &[("n1", 3)]);
    let request = BackendRequest::default();
    let mut waiting = pin!(pool.acquire(&request));
    joined(waiting.as_mut());
    exchange(&pool, 2, &[("n1", 2)]);
    assert!(waiting.now_or_never().expect("nobody served it").is_ok());
}

#[test]
fn alone_a_balancer_keeps_to_what_it_knew_last_or_to_its_part() {
    // The other one held nearly all: an equal part is free all the same.
    let pool = Pool::new(&limited(&[10], 0));
    exchange(&pool, 2, &[("n1", 9)]);
    pool.set_alone(2);
    let leases: Vec<_> = (0..5).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    drop(leases);
    // The other one held nothing: the whole limit stays this one's.
    exchange(&pool, 2, &[]);
    pool.set_alone(2);
    let leases: Vec<_> = (0..10).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    drop(leases);
    exchange(&pool, 2, &[("n1", 9)]);
    let _one = take(&pool).unwrap();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
}

#[test]
fn alone_picks_go_by_the_own_connections() {
    let pool = Pool::new(&least_conn(&["a", "b"]));
    exchange(&pool, 2, &[("a", 100)]);
    pool.set_alone(2);
    let leases: Vec<_> = (0..10).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(leases.iter().filter(|lease| name(lease) == "a").count(), 5);
}

/// Each went on at the whole pace of all, in the middle of an outage.
#[test]
fn alone_a_paced_drain_ends_no_more_than_an_equal_part() {
    let pool = Pool::new(&limited(&[9], 0));
    exchange(&pool, 4, &[("n1", 6)]);
    let leases: Vec<_> = (0..3).map(|_| take(&pool).unwrap()).collect();
    let fraction = || leases[0].backend().drain_load().fraction();
    for _ in 0..2 {
        pool.set_alone(4);
        assert_eq!(fraction(), 0.25);
    }
    // Nobody else had any.
    exchange(&pool, 4, &[]);
    pool.set_alone(4);
    assert_eq!(fraction(), 1.0);
}

#[test]
fn what_is_not_shared_stays_local() {
    let pool = Pool::new(&limited(&[4, 4], 0));
    pool.set_cluster_loads(&ClusterExchange {
        members: 4,
        others: &|_| 100,
        shares_load: false,
        shares_drain: true,
    });
    let leases: Vec<_> = (0..8).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(live(&pool)["n1"], 4);
    let one = leases[0].backend().drain_load();
    assert_eq!((one.own, one.others), (4, 100));
}

#[test]
fn a_removed_backend_is_told_of_while_it_has_connections() {
    let pool = Pool::new(&least_conn(&["a", "b"]));
    let leases: Vec<_> = (0..2).map(|_| take(&pool).unwrap()).collect();
    pool.apply(&least_conn(&["a"]));
    assert_eq!(live(&pool).len(), 2);
    drop(leases);
    assert_eq!(live(&pool), HashMap::from([("a".to_owned(), 0)]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Balancers whose files list the backends in another order pick alike, also while most
    /// backends are out.
    #[test]
    fn files_in_another_order_pick_alike(
        facts in prop::collection::vec((1u16..4, any::<bool>()), 1..60),
        order in any::<u64>(),
        by_address in any::<bool>(),
        most_are_out in any::<bool>(),
        keys in prop::collection::vec(any::<u32>(), 1..100),
    ) {
        let backends: Vec<config::Backend> = facts.iter().enumerate()
            .map(|(n, (weight, _))| config::Backend { weight: *weight, ..node(&format!("n{n}")) })
            .collect();
        let mut shuffled = backends.clone();
        fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
        let balance = match by_address {
            true => Balance::IpHash,
            false => Balance::Hash(HashKey::Path),
        };
        let pools = [backends, shuffled].map(|backends| Pool::new(&settings(balance.clone(), backends)));
        for pool in &pools {
            for (n, (_, out)) in facts.iter().enumerate() {
                if *out || most_are_out && n % 16 != 3 {
                    backend(pool, &format!("n{n}")).set_operator(crate::pool::OperatorState::Drain);
                }
            }
        }
        for key in keys {
            let bytes = key.to_be_bytes();
            let request = BackendRequest {
                client: Some(IpAddr::V4(Ipv4Addr::from(key))),
                key: Some(&bytes),
                ..BackendRequest::default()
            };
            let picked = pools.each_ref().map(|pool| take_for(pool, &request).map(|lease| name(&lease)));
            prop_assert_eq!(&picked[0], &picked[1]);
        }
    }
}
