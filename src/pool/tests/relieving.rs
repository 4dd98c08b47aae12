//! Backends that are spared new connections while theirs are moved away.

use super::*;
use crate::pool::OperatorState;

fn pool(balance: Balance) -> Arc<Pool> {
    Pool::new(&settings(balance, nodes(&["a", "b", "c"])))
}

#[tokio::test(start_paused = true)]
async fn who_is_relieved_gets_nothing_new_while_another_one_can() {
    for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::Random] {
        let pool = pool(balance);
        let held = take(&pool).unwrap();
        let relief = pool.shift_traffic_from(vec![backend(&pool, "a"), backend(&pool, "b")]);
        assert_eq!(names(&pool, 9), ["c"; 9]);
        backend(&pool, "c").set_operator(OperatorState::Drain);
        assert!(names(&pool, 9).iter().all(|name| name != "c"));
        backend(&pool, "c").set_operator(OperatorState::Ready);
        // Nor when the other one has just failed.
        let tried = [backend(&pool, "c")];
        let pick = BackendRequest {
            tried: &tried,
            ..BackendRequest::default()
        };
        assert_ne!(name(&take_for(&pool, &pick).unwrap()), "c");
        drop(relief);
        drop(held);
        let leases: Vec<_> = (0..30).map(|_| take(&pool).unwrap()).collect();
        assert!(leases.iter().any(|lease| name(lease) != "c"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_one_relieves_nobody() {
    let mut limited = settings(Balance::LeastConn, nodes(&["a", "b"]));
    limited.backends[1].max_connections = 1;
    let pool = Pool::new(&limited);
    let _relief = pool.shift_traffic_from(vec![backend(&pool, "a")]);
    let leases: Vec<_> = (0..3).map(|_| take(&pool).unwrap()).collect();
    let on: Vec<_> = leases.iter().map(name).collect();
    assert_eq!(on, ["b", "a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn loads_are_of_those_who_take_new_connections() {
    let mut with_backup = settings(Balance::LeastConn, nodes(&["a", "b", "spare"]));
    with_backup.backends[2].backup = true;
    with_backup.backends[1].weight = 3;
    let pool = Pool::new(&with_backup);
    let _lease = take(&pool).unwrap();
    let seen = |pool: &Pool| -> Vec<(String, u16)> {
        let loads = pool.loads().into_iter();
        loads
            .map(|load| (load.backend.name().to_string(), load.weight))
            .collect()
    };
    assert_eq!(seen(&pool), [("a".to_owned(), 1), ("b".to_owned(), 3)]);
    assert_eq!(
        pool.loads().iter().map(|load| load.live.own).sum::<u64>(),
        1
    );
    backend(&pool, "a").set_operator(OperatorState::Drain);
    assert_eq!(seen(&pool), [("b".to_owned(), 3)]);
    backend(&pool, "b").set_weight(Some(0));
    assert_eq!(seen(&pool), [("spare".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_new_one_grows_for_its_slow_start() {
    let slow = |names: &[&str]| config::Pool {
        slow_start: Duration::from_secs(60),
        ..settings(Balance::LeastConn, nodes(names))
    };
    let pool = Pool::new(&slow(&["a"]));
    pool.apply(&slow(&["a", "b"]));
    let growing = || -> Vec<bool> { pool.loads().iter().map(|load| load.is_growing).collect() };
    assert_eq!(growing(), [false, true]);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(growing(), [false, false]);
}
