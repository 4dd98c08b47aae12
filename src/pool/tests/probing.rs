//! The end of an ejection: one connection probes the backend.

use std::sync::atomic::Ordering::SeqCst;

use tokio::time::advance;

use super::*;
use crate::pool::states::BackendState;

#[tokio::test(start_paused = true)]
async fn each_failed_probe_ejects_for_a_growing_while_and_a_success_ends_it() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    let a = backend(&pool, "a");
    fail(&a, 2);
    assert_eq!(a.state(clock()), BackendState::Up);
    fail(&a, 1);
    for seconds in [10, 20, 40] {
        assert_eq!(a.state(clock()), BackendState::Ejected);
        assert!(a.reason().contains("connection refused"), "{}", a.reason());
        advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
        assert!(names(&pool, 4).iter().all(|name| name == "b"));
        advance(Duration::from_millis(1)).await;
        let _leases = one_probes(&pool);
        assert_eq!(a.state(clock()), BackendState::Ejected);
        fail(&a, 1);
    }
    assert_eq!(a.counters().ejections.load(SeqCst), 4);
    assert_eq!(a.counters().connect_failures.load(SeqCst), 6);
    advance(Duration::from_secs(80)).await;
    let _leases = one_probes(&pool);
    a.connected(clock());
    assert_eq!(a.state(clock()), BackendState::Up);
    assert!(names(&pool, 2).contains(&"a".to_owned()));
    fail(&a, 3);
    assert!(a.reason().contains("out for 10s"), "{}", a.reason());
}

/// Takes four; one of them is at the ejected backend.
fn one_probes(pool: &Pool) -> Vec<Lease> {
    let leases: Vec<Lease> = (0..4).map(|_| take(pool).unwrap()).collect();
    let probes = leases.iter().filter(|lease| name(lease) == "a").count();
    assert_eq!(probes, 1);
    leases
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    fail(&backend(&pool, "a"), 3);
    advance(Duration::from_secs(10)).await;
    for _ in 0..3 {
        drop(one_probes(&pool));
        assert_eq!(backend(&pool, "a").state(clock()), BackendState::Ejected);
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_primary_is_probed_the_others_go_to_the_backups() {
    let mut nodes = nodes(&["a", "b", "c"]);
    nodes[2].backup = true;
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes));
    let a = backend(&pool, "a");
    fail(&a, 3);
    backend(&pool, "b").set_check(false, "refused", clock());
    assert_eq!(names(&pool, 2), ["c", "c"]);
    advance(Duration::from_secs(10)).await;
    let probe = take(&pool).unwrap();
    assert_eq!(
        (name(&probe), names(&pool, 2)),
        ("a".into(), vec!["c".into(), "c".into()])
    );
    a.connected(clock());
    assert_eq!(names(&pool, 2), ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_success_from_before_the_ejection_does_not_end_it() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    let a = backend(&pool, "a");
    fail(&a, 3);
    a.connected(clock());
    assert_eq!(a.state(clock()), BackendState::Ejected);
    advance(Duration::from_secs(10)).await;
    let _leases = one_probes(&pool);
    a.connected(clock());
    assert_eq!(a.state(clock()), BackendState::Up);
}

/// With least_conn the dead ones, which have no connections, took one try after another until none
/// was left.
#[tokio::test(start_paused = true)]
async fn who_has_failed_once_probes_nobody_while_another_serves() {
    let dead = ["a", "b", "c"];
    let all = nodes(&["a", "b", "c", "d", "e", "f"]);
    let pool = Pool::new(&settings(Balance::LeastConn, all));
    dead.iter().for_each(|name| fail(&backend(&pool, name), 3));
    advance(Duration::from_secs(10)).await;
    let _busy: Vec<Lease> = (0..20).map(|_| take(&pool).unwrap()).collect();
    for name in dead {
        fail(&backend(&pool, name), 1);
    }
    advance(Duration::from_secs(20)).await;
    for _ in dead {
        let probe = take(&pool).unwrap();
        assert!(dead.contains(&&*name(&probe)));
        let tried = [probe.backend().clone()];
        fail(&tried[0], 1);
        let pick = BackendRequest {
            tried: &tried,
            ..BackendRequest::default()
        };
        let next = name(&take_for(&pool, &pick).unwrap());
        assert!(!dead.contains(&&*next), "{next}");
    }
    let tried = ["d", "e", "f"].map(|name| backend(&pool, name));
    advance(Duration::from_secs(40)).await;
    let pick = BackendRequest {
        tried: &tried,
        ..BackendRequest::default()
    };
    let last = name(&take_for(&pool, &pick).unwrap());
    assert!(dead.contains(&&*last), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_accepted_and_reset_is_back_with_its_first_answer() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    let a = backend(&pool, "a");
    let resets = |times: usize| (0..times).for_each(|_| a.failed_to_answer(clock(), "reset"));
    resets(3);
    advance(Duration::from_secs(10)).await;
    let probe = one_probes(&pool);
    a.connected(clock());
    assert_eq!(a.state(clock()), BackendState::Ejected);
    resets(1);
    assert!(a.reason().contains("out for 20s"), "{}", a.reason());
    drop(probe);
    advance(Duration::from_secs(20)).await;
    // Both sides may be silent for long: whoever comes next may be the one that shows it.
    let _silent = one_probes(&pool);
    a.connected(clock());
    let _speaks = one_probes(&pool);
    a.connected(clock());
    assert_eq!(a.state(clock()), BackendState::Ejected);
    a.answered();
    assert_eq!(a.state(clock()), BackendState::Up);
    resets(3);
    assert!(a.reason().contains("out for 10s"), "{}", a.reason());
}
