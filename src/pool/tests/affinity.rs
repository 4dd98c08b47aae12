//! Clients that go back to the backend that they had, with the store of a cluster and without.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::oneshot;

use super::*;
use crate::config::{Affinity, Learn};
use crate::pool::{AffinityAnswer, AffinityAsk, AffinityLink, AffinityQuestion, AffinityStore};

const SECRET: &[u8] = b"a secret of the cluster";

fn pool_of(balance: Balance, learn: Learn, names: &[&str]) -> Arc<Pool> {
    Pool::new(&config::Pool {
        affinity: Some(Affinity {
            key: None,
            learn,
            ttl: Duration::from_secs(3600),
        }),
        ..settings(balance, nodes(names))
    })
}

fn learning(names: &[&str]) -> Arc<Pool> {
    pool_of(Balance::LeastConn, Learn::All, names)
}

/// A store in memory, which several balancers share.
#[derive(Default)]
struct Store {
    entries: Mutex<HashMap<[u8; 16], String>>,
    asked: AtomicUsize,
    is_gone: AtomicBool,
    /// It takes questions and never answers.
    is_frozen: AtomicBool,
    unanswered: Mutex<Vec<oneshot::Sender<AffinityAnswer>>>,
}

struct Connection(Arc<Store>);

impl AffinityStore for Connection {
    fn is_there(&self) -> bool {
        !self.0.is_gone.load(SeqCst)
    }

    fn ask(&self, question: AffinityQuestion) -> Option<oneshot::Receiver<AffinityAnswer>> {
        let store = &self.0;
        if !self.is_there() {
            return None;
        }
        store.asked.fetch_add(1, SeqCst);
        let (sender, receiver) = oneshot::channel();
        if store.is_frozen.load(SeqCst) {
            store.unanswered.lock().unwrap().push(sender);
            return Some(receiver);
        }
        let mut entries = store.entries.lock().unwrap();
        if let AffinityAsk::Claim {
            backend,
            instead_of,
            ..
        } = question.ask
        {
            let entry = entries.entry(question.client);
            let entry = entry.or_insert_with(|| backend.to_string());
            if instead_of.is_some_and(|old| **entry == *old) {
                *entry = backend.to_string();
            }
        }
        let _ = sender.send(entries.get(&question.client).cloned());
        Some(receiver)
    }
}

impl Store {
    fn link(self: &Arc<Self>, pool: &Pool) {
        let store = Box::new(Connection(Arc::clone(self)));
        pool.set_affinity_link(Some(Arc::new(AffinityLink::new(SECRET, store))));
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, SeqCst)
    }
}

async fn come(pool: &Pool, n: u8) -> Lease {
    pool.acquire(&client(n)).await.unwrap()
}

async fn home(pool: &Pool, n: u8) -> String {
    name(&come(pool, n).await)
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_until_it_was_away_for_too_long() {
    let pool = learning(&["a", "b"]);
    let first = home(&pool, 1).await;
    let backend = backend(&pool, &first);
    // Least connections would take the other one.
    let held: Vec<_> = (0..5).map(|_| Lease::take(&backend).unwrap()).collect();
    assert_eq!(home(&pool, 1).await, first);
    let now = pool.acquire_now(&client(1)).unwrap().unwrap();
    assert_eq!(name(&now), first);
    tokio::time::advance(Duration::from_secs(3601)).await;
    assert_ne!(home(&pool, 1).await, first);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_backend_drains_has_another_one_from_then_on() {
    let pool = learning(&["a", "b", "c"]);
    let first = home(&pool, 1).await;
    backend(&pool, &first).set_operator(crate::pool::OperatorState::Drain);
    let second = home(&pool, 1).await;
    assert_ne!(first, second);
    backend(&pool, &first).set_operator(crate::pool::OperatorState::Ready);
    assert_eq!(home(&pool, 1).await, second);
}

#[tokio::test(start_paused = true)]
async fn balancers_know_each_other_s_clients() {
    let store = Arc::new(Store::default());
    let balancers = [(); 3].map(|()| learning(&["a", "b", "c", "d"]));
    balancers.iter().for_each(|pool| store.link(pool));
    let mut leases = Vec::new();
    for n in 0..40 {
        let first = come(&balancers[usize::from(n) % 3], n).await;
        for pool in &balancers {
            let lease = come(pool, n).await;
            assert_eq!(name(&lease), name(&first), "client {n}");
            leases.push(lease);
        }
        leases.push(first);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_balancers_that_pick_at_once_the_first_to_tell_wins() {
    let store = Arc::new(Store::default());
    let (one, other) = (learning(&["a"]), learning(&["a", "b"]));
    store.link(&one);
    store.link(&other);
    let _busy = Lease::take(&backend(&other, "a")).unwrap();
    // Between the look-up and the claim of `other` another balancer claims `a`.
    let visit = {
        let settings = other.settings();
        let request = client(1);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(50);
        let visit = super::super::affinity::Visit::new(&other, &settings, &request).unwrap();
        assert_eq!(home(&one, 1).await, "a");
        visit.acquire_first(deadline).await.unwrap()
    };
    assert_eq!(name(&visit), "a");
    assert_eq!(backend(&other, "b").live(), 0);
    assert_eq!(home(&other, 1).await, "a");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_dead_backend_is_told_to_all() {
    let store = Arc::new(Store::default());
    let balancers = [(); 2].map(|()| learning(&["a", "b", "c"]));
    balancers.iter().for_each(|pool| store.link(pool));
    let first = home(&balancers[0], 1).await;
    for pool in &balancers {
        backend(pool, &first).set_operator(crate::pool::OperatorState::Drain);
    }
    let second = home(&balancers[1], 1).await;
    assert_ne!(first, second);
    // What is in memory here is older than what the store has.
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(home(&balancers[0], 1).await, second);
}

#[tokio::test(start_paused = true)]
async fn memory_spares_the_store() {
    let (store, pool) = (Arc::new(Store::default()), learning(&["a", "b"]));
    store.link(&pool);
    come(&pool, 1).await;
    assert_eq!(store.asked(), 2, "a look-up and a claim");
    for _ in 0..10 {
        come(&pool, 1).await;
        assert!(pool.acquire_now(&client(1)).is_some());
    }
    assert_eq!(store.asked(), 0);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(
        pool.acquire_now(&client(1)).is_none(),
        "it did not look it up"
    );
    come(&pool, 1).await;
    assert_eq!(store.asked(), 2, "a look-up, and the entry is prolonged");
}

/// Every balancer gives a client the same backend, without a word from the store.
#[tokio::test(start_paused = true)]
async fn without_the_store_balancers_pick_alike() {
    let store = Arc::new(Store::default());
    let balancers = [(); 2].map(|()| learning(&["a", "b", "c"]));
    balancers.iter().for_each(|pool| store.link(pool));
    store.is_gone.store(true, SeqCst);
    let _busy: Vec<_> = (0..7)
        .map(|_| Lease::take(&backend(&balancers[0], "a")).unwrap())
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..60 {
        let now = balancers[0]
            .acquire_now(&client(n))
            .expect("it waits")
            .unwrap();
        assert_eq!(name(&now), home(&balancers[1], n).await);
        seen.insert(name(&now));
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_once_and_briefly() {
    let store = Arc::new(Store::default());
    let balancers = [(); 2].map(|()| learning(&["a", "b", "c"]));
    balancers.iter().for_each(|pool| store.link(pool));
    store.is_frozen.store(true, SeqCst);
    for n in 0..20 {
        let began = tokio::time::Instant::now();
        let lease = come(&balancers[0], n).await;
        assert_eq!(began.elapsed(), Duration::from_millis(50));
        assert_eq!(name(&lease), home(&balancers[1], n).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_new_clients_is_not_one_of_look_ups() {
    let (store, pool) = (Arc::new(Store::default()), learning(&["a", "b", "c"]));
    store.link(&pool);
    for n in 0..2000u32 {
        let request = BackendRequest {
            key: Some(&n.to_be_bytes()),
            ..BackendRequest::default()
        };
        pool.acquire(&request).await.unwrap();
    }
    // A look-up and a claim each.
    assert_eq!(store.asked(), 1000);
    let values = pool.counters().values();
    assert_eq!((values.affinity_new, values.affinity_failed), (500, 1500));
}

#[tokio::test(start_paused = true)]
async fn of_a_hash_the_exceptions_alone_are_kept() {
    let store = Arc::new(Store::default());
    let names = ["a", "b", "c"];
    let balancers = [(); 2].map(|()| pool_of(Balance::IpHash, Learn::Exceptions, &names));
    balancers.iter().for_each(|pool| store.link(pool));
    let mut homes = Vec::new();
    for n in 0..30 {
        homes.push(home(&balancers[0], n).await);
    }
    assert!(store.entries.lock().unwrap().is_empty());
    let away = homes[0].clone();
    backend(&balancers[1], &away).set_operator(crate::pool::OperatorState::Drain);
    let moved = home(&balancers[1], 0).await;
    assert_ne!(moved, away);
    assert_eq!(store.entries.lock().unwrap().len(), 1);
    // It stays where it is once its own backend is back, at the other balancer, too.
    backend(&balancers[1], &away).set_operator(crate::pool::OperatorState::Ready);
    assert_eq!(home(&balancers[1], 0).await, moved);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(home(&balancers[0], 0).await, moved);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere_and_is_remembered() {
    let (store, pool) = (Arc::new(Store::default()), learning(&["a", "b"]));
    store.link(&pool);
    let first = come(&pool, 1).await;
    let tried = [Arc::clone(first.backend())];
    let again = BackendRequest {
        tried: &tried,
        ..client(1)
    };
    let second = pool.acquire_now(&again).expect("it waits").unwrap();
    assert_ne!(name(&first), name(&second));
    assert_eq!(home(&pool, 1).await, name(&second));
    let entries = store.entries.lock().unwrap();
    assert_eq!(entries.values().collect::<Vec<_>>(), [&name(&second)]);
}
