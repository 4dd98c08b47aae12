//! A pool of which no backend can be used.

use tokio::time::advance;

use super::*;
use crate::config::WhenAllDown;
use crate::pool::states::{BackendState, OperatorState};

#[test]
fn when_all_are_down_they_are_tried_where_the_pool_says_so() {
    let mut tries = settings(Balance::RoundRobin, nodes(&["a", "b", "c", "d"]));
    tries.backends[1].max_connections = 1;
    tries.check = Some(check());
    tries.when_all_down = WhenAllDown::Try;
    let pool = Pool::new(&tries);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| backend(&pool, name));
    c.set_operator(OperatorState::Drain);
    d.set_operator(OperatorState::Maint);
    for down in [&a, &b, &c, &d] {
        down.set_check(false, "refused", clock());
    }
    let leases: Vec<Lease> = (0..4).map(|_| take(&pool).unwrap()).collect();
    let count = |wanted: &str| leases.iter().filter(|one| name(one) == wanted).count();
    assert_eq!(
        [count("a"), count("b")],
        [3, 1],
        "drained, maint and full ones are left"
    );
    assert_eq!(a.state(clock()), BackendState::Down);
    assert!(!a.takes_new());
    // As soon as one can be used, the others are not tried any more.
    b.set_check(true, "passed", clock());
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    a.set_check(true, "passed", clock());
    assert_eq!(names(&pool, 2), ["a", "a"]);
    a.set_check(false, "refused", clock());
    b.set_check(false, "refused", clock());
    tries.when_all_down = WhenAllDown::Refuse;
    pool.apply(&tries);
    assert_eq!(take(&pool).unwrap_err(), AcquireError::NoBackend);
}

#[test]
fn primaries_are_tried_before_backups_and_those_already_tried_again() {
    let mut tries = settings(Balance::RoundRobin, nodes(&["a", "b"]));
    tries.backends[1].backup = true;
    tries.when_all_down = WhenAllDown::Try;
    let pool = Pool::new(&tries);
    let [a, b] = ["a", "b"].map(|name| backend(&pool, name));
    for down in [&a, &b] {
        down.set_check(false, "refused", clock());
    }
    let after = |tried: &[Arc<Backend>]| {
        let pick = BackendRequest {
            tried,
            ..BackendRequest::default()
        };
        name(&take_for(&pool, &pick).unwrap())
    };
    assert_eq!(after(&[]), "a");
    assert_eq!(after(std::slice::from_ref(&a)), "b");
    assert_eq!(after(&[a, b]), "a");
}

#[tokio::test(start_paused = true)]
async fn ejected_ones_and_those_that_are_down_are_tried_together_until_one_works() {
    let mut tries = settings(Balance::RoundRobin, nodes(&["a", "b", "c"]));
    tries.when_all_down = WhenAllDown::Try;
    let pool = Pool::new(&tries);
    let [a, b, c] = ["a", "b", "c"].map(|name| backend(&pool, name));
    fail(&a, 3);
    advance(Duration::from_secs(1)).await;
    for down in [&b, &c] {
        down.set_check(false, "refused", clock());
    }
    let mut seen = names(&pool, 3);
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
    fail(&a, 1);
    let mut seen = names(&pool, 3);
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
    a.connected(clock());
    assert_eq!(
        (names(&pool, 2), a.state(clock())),
        (vec!["a".into(), "a".into()], BackendState::Up)
    );
}

#[tokio::test]
async fn while_those_that_are_tried_are_full_clients_wait() {
    let mut tries = limited(&[1], 1);
    tries.when_all_down = WhenAllDown::Try;
    let pool = Pool::new(&tries);
    backend(&pool, "n1").set_check(false, "refused", clock());
    let first = take(&pool).unwrap();
    let anyone = BackendRequest::default();
    let mut second = std::pin::pin!(pool.acquire(&anyone));
    joined(second.as_mut());
    drop(first);
    assert_eq!(name(&second.await.unwrap()), "n1");
}
