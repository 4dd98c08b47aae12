//! Clients that come back to their backend.

use super::*;
use crate::config::{OnDrain, SameSite, Sticky};
use crate::pool::OperatorState;

fn sticky(on_drain: OnDrain) -> Option<Sticky> {
    Some(Sticky {
        cookie: "evenkeel".to_owned(),
        key_file: "k".into(),
        ttl: Duration::from_secs(60),
        same_site: SameSite::Lax,
        secure: false,
        on_drain,
    })
}

fn pool_of(on_drain: OnDrain) -> Arc<Pool> {
    Pool::new(&config::Pool {
        sticky: sticky(on_drain),
        check: Some(check()),
        ..settings(Balance::RoundRobin, nodes(&["a", "b"]))
    })
}

fn back(pool: &Pool, preferred: &Arc<Backend>) -> Result<Lease, AcquireError> {
    let pick = BackendRequest {
        preferred: Some(preferred),
        ..BackendRequest::default()
    };
    take_for(pool, &pick)
}

#[test]
fn a_client_comes_back_to_its_backend_while_that_is_ready_or_draining() {
    let pool = pool_of(OnDrain::Keep);
    let a = backend(&pool, "a");
    assert!((0..4).all(|_| name(&back(&pool, &a).unwrap()) == "a"));
    a.set_operator(OperatorState::Drain);
    assert!(names(&pool, 4).iter().all(|name| name == "b"));
    assert_eq!(name(&back(&pool, &a).unwrap()), "a");
    a.set_operator(OperatorState::Ready);
    a.set_weight(Some(0));
    assert!(names(&pool, 4).iter().all(|name| name == "b"));
    assert_eq!(name(&back(&pool, &a).unwrap()), "a");
}

#[test]
fn nobody_comes_back_to_a_backend_that_is_emptied() {
    let pool = pool_of(OnDrain::Keep);
    let a = backend(&pool, "a");
    a.set_operator(OperatorState::Drain);
    a.set_emptying(true);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
    a.set_emptying(false);
    assert_eq!(name(&back(&pool, &a).unwrap()), "a");
    // Gone from one reload to the next, it is as it was.
    a.set_emptying(true);
    let with = |names: &[&str]| config::Pool {
        sticky: sticky(OnDrain::Keep),
        ..settings(Balance::RoundRobin, nodes(names))
    };
    pool.apply(&with(&["b"]));
    pool.apply(&with(&["a", "b"]));
    let a = backend(&pool, "a");
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
    // A ready one takes everybody.
    a.set_operator(OperatorState::Ready);
    assert_eq!(name(&back(&pool, &a).unwrap()), "a");
}

#[test]
fn another_process_knows_of_the_operator_s_emptying_only() {
    let pool = pool_of(OnDrain::Keep);
    let a = backend(&pool, "a");
    a.set_emptying(true);
    let next = pool_of(OnDrain::Keep);
    next.take_over(&pool.hand_over());
    assert_eq!(name(&back(&next, &backend(&next, "a")).unwrap()), "a");
    a.set_operator(OperatorState::Drain);
    let next = pool_of(OnDrain::Keep);
    next.take_over(&pool.hand_over());
    assert_eq!(name(&back(&next, &backend(&next, "a")).unwrap()), "b");
}

#[test]
fn a_backend_that_cannot_serve_is_picked_anew_whatever_its_drain() {
    let pool = pool_of(OnDrain::Keep);
    let a = backend(&pool, "a");
    a.set_operator(OperatorState::Maint);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
    for operator in [OperatorState::Drain, OperatorState::Ready] {
        a.set_operator(operator);
        a.set_check(false, "refused", clock());
        assert_eq!(name(&back(&pool, &a).unwrap()), "b");
        a.set_check(true, "passed", clock());
        assert_eq!(name(&back(&pool, &a).unwrap()), "a");
    }
    fail(&a, 3);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
    let mut without = settings(Balance::RoundRobin, nodes(&["b"]));
    without.sticky = sticky(OnDrain::Keep);
    pool.apply(&without);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
}

#[test]
fn a_drain_moves_clients_where_the_pool_says_so() {
    let pool = pool_of(OnDrain::Repick);
    let a = backend(&pool, "a");
    a.set_operator(OperatorState::Drain);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
    // A reload opens and closes the door of one that drains already.
    let mut kept = (*pool.settings()).clone();
    kept.sticky = sticky(OnDrain::Keep);
    pool.apply(&kept);
    assert_eq!(name(&back(&pool, &a).unwrap()), "a");
    kept.sticky = None;
    pool.apply(&kept);
    assert_eq!(name(&back(&pool, &a).unwrap()), "b");
}

#[test]
fn a_full_backend_and_a_tried_one_are_picked_anew() {
    let mut limited = limited(&[1, 0], 0);
    limited.sticky = sticky(OnDrain::Keep);
    let pool = Pool::new(&limited);
    let first = backend(&pool, "n1");
    let lease = back(&pool, &first).unwrap();
    assert_eq!(name(&lease), "n1");
    assert_eq!(name(&back(&pool, &first).unwrap()), "n2");
    drop(lease);
    let tried = [first.clone()];
    let pick = BackendRequest {
        preferred: Some(&first),
        tried: &tried,
        ..BackendRequest::default()
    };
    assert_eq!(name(&take_for(&pool, &pick).unwrap()), "n2");
}

#[test]
fn the_last_backend_in_its_drain_serves_those_who_come_back_alone() {
    let pool = pool_of(OnDrain::Keep);
    for name in ["a", "b"] {
        backend(&pool, name).set_operator(OperatorState::Drain);
    }
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
    assert_eq!(name(&back(&pool, &backend(&pool, "b")).unwrap()), "b");
}
