//! Limits, leases and the queue.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::time::timeout;

use super::*;
use crate::pool::OperatorState;

#[test]
fn without_a_queue_a_full_pool_refuses_at_once() {
    let pool = Pool::new(&limited(&[2, 1], 0));
    let leases: Vec<Lease> = (0..3).map(|_| take(&pool).unwrap()).collect();
    assert_eq!(take(&pool).unwrap_err(), AcquireError::Full);
    assert_eq!(pool.counters().refused_full.load(SeqCst), 1);
    drop(leases);
    assert!(take(&pool).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_first_come_first_served() {
    let pool = Pool::new(&limited(&[1], 3));
    let held = take(&pool).unwrap();
    let pick = BackendRequest::default();
    let mut first = std::pin::pin!(pool.acquire(&pick));
    let mut second = std::pin::pin!(pool.acquire(&pick));
    let mut third = std::pin::pin!(pool.acquire(&pick));
    joined(first.as_mut());
    joined(second.as_mut());
    joined(third.as_mut());
    assert_eq!(pool.queued(), 3);
    assert_eq!(take(&pool).unwrap_err(), AcquireError::QueueFull);
    drop(held);
    assert_eq!(pool.queued(), 2);
    joined(third.as_mut());
    joined(second.as_mut());
    drop(first.as_mut().now_or_never().unwrap().unwrap());
    joined(third.as_mut());
    drop(second.as_mut().now_or_never().unwrap().unwrap());
    drop(third.as_mut().now_or_never().unwrap().unwrap());
    assert_eq!((pool.queued(), backend(&pool, "n1").live()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_after_queue_timeout() {
    let pool = Pool::new(&limited(&[1], 3));
    let _held = take(&pool).unwrap();
    let began = tokio::time::Instant::now();
    let refused = pool.acquire(&BackendRequest::default()).await.unwrap_err();
    assert_eq!(refused, AcquireError::QueueTimeout(Duration::from_secs(5)));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert_eq!(
        (pool.queued(), pool.counters().queue_timeouts.load(SeqCst)),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn every_wait_is_measured_that_of_a_client_who_leaves_too() {
    let pool = Pool::new(&limited(&[1], 3));
    let held = take(&pool).unwrap();
    let waits = || -> u64 { pool.times().queue_wait.buckets().map(|(_, n)| n).sum() };
    let pick = BackendRequest::default();
    {
        let mut leaves = std::pin::pin!(pool.acquire(&pick));
        joined(leaves.as_mut());
        assert_eq!(waits(), 0);
    }
    assert_eq!(waits(), 1);
    let refused = pool.acquire(&pick).await;
    assert!(matches!(refused, Err(AcquireError::QueueTimeout(_))));
    assert_eq!(waits(), 2);
    drop(held);
    assert!(pool.acquire(&pick).await.is_ok());
    assert_eq!(waits(), 2, "who need not wait has no wait");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_frees_what_it_was_given() {
    let pool = Pool::new(&limited(&[1], 3));
    let held = take(&pool).unwrap();
    let pick = BackendRequest::default();
    let mut second = Box::pin(pool.acquire(&pick));
    let mut third = Box::pin(pool.acquire(&pick));
    let mut fourth = Box::pin(pool.acquire(&pick));
    joined(second.as_mut());
    joined(third.as_mut());
    joined(fourth.as_mut());
    drop(third);
    assert_eq!(pool.queued(), 2);
    drop(held);
    drop(second);
    assert_eq!(pool.queued(), 0);
    drop(fourth.now_or_never().unwrap().unwrap());
    assert_eq!(backend(&pool, "n1").live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_state_change_serves_the_queue() {
    let pool = Pool::new(&limited(&[1, 1], 3));
    backend(&pool, "n2").set_operator(OperatorState::Drain);
    let _held = take(&pool).unwrap();
    let pick = BackendRequest::default();
    let mut waiting = std::pin::pin!(pool.acquire(&pick));
    joined(waiting.as_mut());
    backend(&pool, "n2").set_operator(OperatorState::Ready);
    assert_eq!(name(&waiting.now_or_never().unwrap().unwrap()), "n2");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_raises_a_limit_or_adds_a_backend_serves_the_queue() {
    let pool = Pool::new(&limited(&[1], 3));
    let _held = take(&pool).unwrap();
    let pick = BackendRequest::default();
    let mut first = std::pin::pin!(pool.acquire(&pick));
    let mut second = std::pin::pin!(pool.acquire(&pick));
    joined(first.as_mut());
    joined(second.as_mut());
    pool.apply(&limited(&[2], 3));
    let _first = first.now_or_never().unwrap().unwrap();
    joined(second.as_mut());
    pool.apply(&limited(&[2, 1], 3));
    assert_eq!(name(&second.now_or_never().unwrap().unwrap()), "n2");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_ejection_serves_the_queue() {
    let mut patient = limited(&[1, 1], 3);
    patient.queue_timeout = Duration::from_secs(60);
    let pool = Pool::new(&patient);
    let held = [take(&pool).unwrap(), take(&pool).unwrap()];
    let pick = BackendRequest::default();
    let mut waiting = Box::pin(pool.acquire(&pick));
    joined(waiting.as_mut());
    fail(&backend(&pool, "n1"), 3);
    let [one, two] = held;
    let (first, _second) = if name(&one) == "n1" {
        (one, two)
    } else {
        (two, one)
    };
    drop(first);
    joined(waiting.as_mut());
    let began = tokio::time::Instant::now();
    assert_eq!(name(&waiting.await.unwrap()), "n1");
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_answered_when_the_last_backend_goes() {
    let pool = Pool::new(&limited(&[1], 3));
    let _held = take(&pool).unwrap();
    let pick = BackendRequest::default();
    let mut waiting = std::pin::pin!(pool.acquire(&pick));
    joined(waiting.as_mut());
    backend(&pool, "n1").set_check(false, "refused", clock());
    assert_eq!(
        waiting.now_or_never().unwrap().unwrap_err(),
        AcquireError::NoBackend
    );
}

#[tokio::test(start_paused = true)]
async fn who_wants_an_untried_backend_does_not_block_the_line() {
    let pool = Pool::new(&limited(&[1, 1], 3));
    let held = [take(&pool).unwrap(), take(&pool).unwrap()];
    let tried = [backend(&pool, "n1")];
    let picky = BackendRequest {
        tried: &tried,
        ..BackendRequest::default()
    };
    let pick = BackendRequest::default();
    let mut first = std::pin::pin!(pool.acquire(&picky));
    let mut second = std::pin::pin!(pool.acquire(&pick));
    joined(first.as_mut());
    joined(second.as_mut());
    let (on_n1, on_n2): (Vec<Lease>, Vec<Lease>) =
        held.into_iter().partition(|lease| name(lease) == "n1");
    drop(on_n1);
    assert_eq!(name(&second.now_or_never().unwrap().unwrap()), "n1");
    joined(first.as_mut());
    drop(on_n2);
    assert_eq!(name(&first.now_or_never().unwrap().unwrap()), "n2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_never_exceed_a_limit_and_all_get_their_turn() {
    const LIMITS: [u64; 3] = [2, 3, 1];
    let mut crowded = limited(&LIMITS, 1000);
    crowded.queue_timeout = Duration::from_secs(600);
    let pool = Pool::new(&crowded);
    let inside: Arc<[AtomicU64; 3]> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200u32 {
        let (pool, inside) = (pool.clone(), inside.clone());
        tasks.spawn(async move {
            for turn in 0..20 {
                if (n + turn) % 7 == 0 {
                    // One that may give up before, while or after it is served.
                    let _ = timeout(Duration::ZERO, pool.acquire(&BackendRequest::default())).await;
                }
                let lease = pool.acquire(&BackendRequest::default()).await.unwrap();
                let index = usize::from(lease.backend().name().as_bytes()[1] - b'1');
                let now = inside[index].fetch_add(1, SeqCst) + 1;
                assert!(now <= LIMITS[index], "{now} on n{}", index + 1);
                tokio::task::yield_now().await;
                inside[index].fetch_sub(1, SeqCst);
            }
        });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    };
    timeout(Duration::from_secs(60), all)
        .await
        .expect("a wake-up was lost");
    assert_eq!(pool.queued(), 0);
    assert!(pool.backends().iter().all(|backend| backend.live() == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_enters_once_a_drain_was_seen_empty() {
    let pool = Pool::new(&settings(Balance::LeastConn, nodes(&["a", "b"])));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (pool, stop) = (pool.clone(), stop.clone());
        tasks.spawn(async move {
            while !stop.load(SeqCst) {
                drop(pool.acquire(&BackendRequest::default()).await.unwrap());
                tokio::task::yield_now().await;
            }
        });
    }
    let a = backend(&pool, "a");
    for _ in 0..200 {
        a.set_operator(OperatorState::Drain);
        a.emptied().await;
        for _ in 0..20 {
            assert_eq!(a.live(), 0);
            tokio::task::yield_now().await;
        }
        a.set_operator(OperatorState::Ready);
    }
    stop.store(true, SeqCst);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[test]
fn a_lease_may_end_on_a_thread_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let pool = Pool::new(&limited(&[1], 1));
    let held = take(&pool).unwrap();
    let served = runtime.block_on(async {
        let pick = BackendRequest::default();
        let mut waiting = Box::pin(pool.acquire(&pick));
        joined(waiting.as_mut());
        let relay = std::thread::spawn(move || drop(held));
        let served = waiting.await.unwrap();
        relay.join().unwrap();
        served
    });
    drop(pool);
    drop(served);
}
