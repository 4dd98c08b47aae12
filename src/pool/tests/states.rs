//! States, and what changes them.

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::pool::states::{BackendState, OperatorState};

#[test]
fn every_state_change_is_seen_by_the_very_next_pick() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    let a = backend(&pool, "a");
    for operator in [OperatorState::Drain, OperatorState::Maint] {
        a.set_operator(operator);
        assert!(names(&pool, 4).iter().all(|name| name == "b"));
        a.set_operator(OperatorState::Ready);
        assert!(names(&pool, 2).contains(&"a".to_owned()));
    }
    a.set_check(false, "connect: refused", clock());
    assert_eq!(
        (a.state(clock()), a.reason()),
        (BackendState::Down, "connect: refused".to_owned())
    );
    assert!(names(&pool, 4).iter().all(|name| name == "b"));
    a.set_check(false, "connect: timed out", clock());
    assert_eq!(a.reason(), "connect: timed out");
    backend(&pool, "b").set_operator(OperatorState::Drain);
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
    assert_eq!(a.counters().state_changes.load(SeqCst), 5);
    assert_eq!(pool.counters().refused_no_backend.load(SeqCst), 1);
}

#[test]
fn a_checked_backend_may_begin_down() {
    let mut checked = settings(Balance::RoundRobin, nodes(&["a", "b"]));
    checked.backends[0].init_state = InitState::Down;
    checked.check = Some(check());
    let pool = Pool::new(&checked);
    assert!(names(&pool, 3).iter().all(|name| name == "b"));
    backend(&pool, "a").set_check(true, "passed", clock());
    assert!(names(&pool, 2).contains(&"a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_success_clears_the_failures() {
    let pool = Pool::new(&settings(Balance::RoundRobin, nodes(&["a", "b"])));
    let a = backend(&pool, "a");
    for _ in 0..5 {
        fail(&a, 2);
        a.connected(clock());
    }
    assert_eq!(a.state(clock()), BackendState::Up);
    assert_eq!(a.counters().connections.load(SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn at_most_half_of_a_pool_is_ejected() {
    let pool = Pool::new(&settings(
        Balance::Random,
        nodes(&["a", "b", "c", "d", "e"]),
    ));
    for backend in pool.backends() {
        fail(&backend, 10);
    }
    let out = pool
        .backends()
        .into_iter()
        .filter(|one| one.state(clock()) == BackendState::Ejected);
    assert_eq!(out.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_usable_backend_is_never_ejected() {
    let alone = Pool::new(&settings(Balance::Random, nodes(&["a"])));
    fail(&backend(&alone, "a"), 10);
    assert_eq!(name(&take(&alone).unwrap()), "a");
    let pool = Pool::new(&settings(Balance::Random, nodes(&["a", "b", "c"])));
    backend(&pool, "b").set_check(false, "refused", clock());
    backend(&pool, "c").set_operator(OperatorState::Drain);
    fail(&backend(&pool, "a"), 10);
    assert_eq!(name(&take(&pool).unwrap()), "a");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_backend_is_taken_back_when_nobody_else_is_left() {
    let pool = Pool::new(&settings(Balance::Random, nodes(&["a", "b"])));
    fail(&backend(&pool, "a"), 3);
    assert_eq!(backend(&pool, "a").state(clock()), BackendState::Ejected);
    backend(&pool, "b").set_check(false, "refused", clock());
    assert_eq!(name(&take(&pool).unwrap()), "a");
    assert_eq!(backend(&pool, "a").state(clock()), BackendState::Up);
}
