//! Searches through random pools with random outcomes, driven in turn as both planes do.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::{BackendUnavailable, ConnectAttempt, RetryState, RetryStep};
use crate::config;
use crate::net::{ConnectError, Peer};
use crate::observe::{
    Cause, ConnectionRecord, Journal, ListenerCounters, Phase, Side, Termination,
};
use crate::pool::{AcquireError, Backend, BackendRequest, Lease, Pool};
use crate::relay::ConnectFailure;

/// Outcome of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Serves,
    Refused,
    TimedOut,
    OurShortage,
    ResetEarly,
    ResetLate,
    Fin,
}

impl Outcome {
    fn is_charged(self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::ResetEarly)
    }

    /// Whether another backend is asked if there may be one more try.
    fn is_tried_again(self) -> bool {
        !matches!(self, Self::Serves | Self::OurShortage)
    }

    fn why(self) -> Option<ConnectFailure> {
        Some(match self {
            Self::Serves => return None,
            Self::Refused => {
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                ConnectFailure::Connect(ConnectError::Refused(error))
            }
            Self::OurShortage => {
                ConnectFailure::Connect(ConnectError::Local(io::Error::other("short")))
            }
            Self::TimedOut => ConnectFailure::ConnectTimeout,
            Self::ResetEarly | Self::ResetLate => ConnectFailure::Reset,
            Self::Fin => ConnectFailure::Fin,
        })
    }
}

#[derive(Debug, Clone)]
struct Node {
    max: u64,
    taken: u64,
    backup: bool,
    up: bool,
}

#[derive(Debug, Clone)]
struct Case {
    nodes: Vec<Node>,
    retries: usize,
    max_queue: u64,
    outcomes: Vec<Outcome>,
    /// Whether the driver of each step may wait: a relay thread may not.
    may_wait: Vec<bool>,
}

fn case() -> impl Strategy<Value = Case> {
    let up = prop::bool::weighted(0.8);
    let node = (0u64..3, 0u64..3, any::<bool>(), up).prop_map(|(max, taken, backup, up)| Node {
        max,
        taken,
        backup,
        up,
    });
    let outcome = prop::sample::select(vec![
        Outcome::Serves,
        Outcome::Refused,
        Outcome::Refused,
        Outcome::TimedOut,
        Outcome::OurShortage,
        Outcome::ResetEarly,
        Outcome::ResetLate,
        Outcome::Fin,
    ]);
    (
        prop::collection::vec(node, 1..6),
        0usize..6,
        0u64..2,
        prop::collection::vec(outcome, 8),
        prop::collection::vec(any::<bool>(), 8),
    )
        .prop_map(|(nodes, retries, max_queue, outcomes, may_wait)| Case {
            nodes,
            retries,
            max_queue,
            outcomes,
            may_wait,
        })
}

impl Case {
    fn pool(&self) -> Arc<Pool> {
        let backend = |(n, node): (usize, &Node)| {
            let state = if node.up { "up" } else { "down" };
            format!(
                "{{ name = \"n{n}\", address = \"127.0.0.1:{}\", max_connections = {}, backup = {}, init_state = \"{state}\" }}",
                n + 1,
                node.max,
                node.backup
            )
        };
        // A queue needs a backend that can be full.
        let may_fill = self.nodes.iter().any(|node| node.max > 0);
        let max_queue = if may_fill { self.max_queue } else { 0 };
        let backends: Vec<String> = self.nodes.iter().enumerate().map(backend).collect();
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n\
             [pool.p]\nretries = {}\nmax_queue = {}\nbackend = [{}]\ncheck = {{ type = \"tcp\" }}\n",
            self.retries,
            max_queue,
            backends.join(", ")
        );
        let config = config::parse(&text, Path::new("a.toml")).unwrap_or_else(|e| panic!("{e}"));
        Pool::new(&config.pools["p"])
    }

    /// Connections that were there before, where their backend has room.
    fn occupy(&self, pool: &Arc<Pool>) -> Vec<Lease> {
        let mut leases = Vec::new();
        for (backend, node) in pool.backends().iter().zip(&self.nodes) {
            let pick = BackendRequest {
                preferred: Some(backend),
                ..BackendRequest::default()
            };
            for _ in 0..node.taken {
                let lease = pool.acquire_now(&pick).and_then(Result::ok);
                leases.extend(lease.filter(|lease| Arc::ptr_eq(lease.backend(), backend)));
            }
        }
        leases
    }
}

fn live(pool: &Pool) -> Vec<u64> {
    pool.backends().iter().map(|one| one.live()).collect()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A backend that was asked, and what came of it.
type Asked = (Arc<Backend>, Outcome);

/// How a search ended.
#[derive(Debug)]
enum Found {
    Served(Lease),
    Refused(BackendUnavailable),
}

/// Goes one search to its end, and says in which order backends were asked.
fn search(
    case: &Case,
    pool: &Arc<Pool>,
    record: &mut ConnectionRecord,
) -> Result<(Found, Vec<Asked>), TestCaseError> {
    let long = Duration::from_secs(3600);
    let mut asked: Vec<Asked> = Vec::new();
    let mut search = RetryState::default();
    let mut step = RetryState::begin(record);
    for turn in 0.. {
        let now = Instant::now();
        step = match step {
            RetryStep::Refuse(error) => return Ok((Found::Refused(error), asked)),
            RetryStep::Pick => {
                prop_assert_eq!(record.phase(), Phase::Queue);
                let tried: Vec<_> = asked.iter().map(|(one, _)| Arc::clone(one)).collect();
                let had_other = pool.has_other(&tried);
                let answer = if case.may_wait[turn % case.may_wait.len()] {
                    pool.acquire(&search.request()).now_or_never()
                } else {
                    pool.acquire_now(&search.request())
                };
                let answer = answer.unwrap_or(Err(AcquireError::QueueTimeout(long)));
                if let Ok(lease) = &answer {
                    let again = tried.iter().any(|one| Arc::ptr_eq(one, lease.backend()));
                    prop_assert!(!again || !had_other, "asked twice while another was left");
                }
                search.picked(pool, answer, record)
            }
            RetryStep::Connect(lease) => {
                prop_assert_eq!(record.phase(), Phase::Connect);
                let outcome = case.outcomes[asked.len() % case.outcomes.len()];
                let mut attempt = ConnectAttempt::new(&lease, now);
                asked.push((Arc::clone(lease.backend()), outcome));
                match outcome.why() {
                    None => {
                        attempt.connected(record, now);
                        return Ok((Found::Served(lease), asked));
                    }
                    Some(why) => {
                        if outcome == Outcome::ResetLate {
                            attempt.begun = now.checked_sub(long).unwrap_or(now);
                        }
                        drop(lease);
                        search.failed(pool, attempt, why, record)
                    }
                }
            }
        };
    }
    unreachable!("it has an end")
}

fn counters() -> Arc<ListenerCounters> {
    let settings = config::AccessLog {
        output: config::LogOutput::Off,
        format: config::LogFormat::Json,
        log_at: config::LogAt {
            open: false,
            interval: false,
            resume: false,
            end: false,
        },
        interval: Duration::from_secs(3600),
        max_queue: 16,
        log_null: true,
    };
    ListenerCounters::new("l", &Journal::new(&settings).unwrap())
}

proptest! {
    #[test]
    fn a_search_asks_each_backend_once_counts_once_and_keeps_nothing(case in case()) {
        // For the queue's timeout.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let listener = counters();
        let pool = case.pool();
        let _occupied = case.occupy(&pool);
        let before = live(&pool);
        let mut record = ConnectionRecord::new(&listener, Peer::Unix);
        let (found, asked) = search(&case, &pool, &mut record)?;

        prop_assert!(asked.len() <= case.retries + 1);
        let last = asked.last().map(|(_, outcome)| *outcome);
        match found {
            Found::Served(lease) => {
                prop_assert_eq!(last, Some(Outcome::Serves));
                prop_assert!(Arc::ptr_eq(lease.backend(), &asked.last().unwrap().0));
                prop_assert_eq!(live(&pool).iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
            }
            // Nobody has to be left: a pool gives what was tried once more.
            Found::Refused(BackendUnavailable::Acquire(_)) => prop_assert!(asked.len() <= case.retries),
            Found::Refused(error) => {
                prop_assert_eq!(error.is_ours(), last == Some(Outcome::OurShortage));
                prop_assert!(error.is_ours() || asked.len() == case.retries + 1);
            }
        }
        prop_assert_eq!(live(&pool), before);
        prop_assert_eq!(pool.queued(), 0);

        let retried = asked.iter().filter(|(_, outcome)| outcome.is_tried_again()).count();
        let redispatched = asked.windows(2).filter(|two| !Arc::ptr_eq(&two[0].0, &two[1].0));
        prop_assert_eq!(read(&pool.counters().retries), retried.min(case.retries) as u64);
        prop_assert_eq!(read(&pool.counters().redispatches), redispatched.count() as u64);
        for backend in pool.backends() {
            let of_it = |(one, _): &&Asked| Arc::ptr_eq(one, &backend);
            let outcomes: Vec<Outcome> = asked.iter().filter(of_it).map(|(_, how)| *how).collect();
            let charged = outcomes.iter().filter(|how| how.is_charged()).count();
            let served = outcomes.contains(&Outcome::Serves);
            prop_assert_eq!(read(&backend.counters().connect_failures), charged as u64);
            prop_assert_eq!(read(&backend.counters().connections), u64::from(served));
        }
        let assigned = record.assignment().map(|(_, name)| Arc::clone(name));
        prop_assert_eq!(assigned, asked.last().map(|(one, _)| Arc::clone(one.name())));
        record.finish(Termination::new(Side::Client, Phase::Relay, Cause::Fin));
    }
}

/// A connection to each of `names`, in turn, whose connect has just begun.
fn attempts(pool: &Pool, names: &[&str]) -> Vec<(ConnectAttempt, Lease)> {
    let begin = |name: &&str| {
        let preferred = pool.backend(name).unwrap();
        let pick = BackendRequest {
            preferred: Some(&preferred),
            ..BackendRequest::default()
        };
        let lease = pool.acquire_now(&pick).unwrap().unwrap();
        (ConnectAttempt::new(&lease, Instant::now()), lease)
    };
    names.iter().map(begin).collect()
}

fn two(keys: &str, limit: u64) -> Arc<Pool> {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n\
         [pool.p]\n{keys}\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, \
         {{ name = \"b\", address = \"127.0.0.1:2\", max_connections = {limit} }}]\n\
         outlier = {{ connect_failures = 3 }}\n"
    );
    let config = config::parse(&text, Path::new("a.toml")).unwrap_or_else(|e| panic!("{e}"));
    Pool::new(&config.pools["p"])
}

#[test]
fn an_overdue_connect_is_held_against_its_backend_once() {
    let (pool, search, now) = (two("retries = 0", 0), RetryState::default(), Instant::now());
    let a = pool.backend("a").unwrap();
    let mut begun = attempts(&pool, &["a", "a"]);
    for (attempt, _) in &mut begun {
        for _ in 0..3 {
            assert!(!search.gives_up(&pool, attempt, now), "there is no retry");
        }
    }
    assert_eq!(read(&a.counters().connect_failures), 0, "they may succeed");
    let error = ConnectError::TimedOut(Duration::from_secs(5));
    begun
        .iter()
        .for_each(|(attempt, _)| attempt.charge(&error, 1, now));
    let counted = read(&a.counters().connect_failures);
    assert_eq!((counted, read(&a.counters().ejections)), (2, 0));
    for (attempt, _) in &mut attempts(&pool, &["a"]) {
        attempt.overdue(now);
    }
    assert_eq!(read(&a.counters().ejections), 1);
}

#[test]
fn an_overdue_connect_is_a_lost_packet_while_others_succeed() {
    let (pool, search, now) = (two("", 0), RetryState::default(), Instant::now());
    let (listener, a) = (counters(), pool.backend("a").unwrap());
    let mut record = ConnectionRecord::new(&listener, Peer::Unix);
    let mut begun = attempts(&pool, &["a"; 8]);
    attempts(&pool, &["a"])[0].0.connected(&mut record, now);
    let timed_out = ConnectError::TimedOut(Duration::from_secs(5));
    for (attempt, _) in &mut begun {
        assert!(
            search.gives_up(&pool, attempt, now),
            "another one may serve"
        );
        attempt.charge(&timed_out, 1, now);
    }
    let counted = read(&a.counters().connect_failures);
    assert_eq!((counted, read(&a.counters().ejections)), (8, 0));
    record.finish(Termination::new(Side::Client, Phase::Relay, Cause::Fin));
}

#[test]
fn a_connect_is_given_up_only_for_a_backend_with_room() {
    let (pool, search, now) = (two("", 1), RetryState::default(), Instant::now());
    let mut begun = attempts(&pool, &["a", "b"]);
    assert!(!search.gives_up(&pool, &mut begun[0].0, now), "it is full");
    begun.truncate(1);
    assert!(search.gives_up(&pool, &mut begun[0].0, now));
    let mut tried = RetryState::default();
    tried.skip(&pool.backend("b").unwrap());
    assert!(!tried.gives_up(&pool, &mut begun[0].0, now));
}
