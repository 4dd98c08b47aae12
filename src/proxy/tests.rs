//! Whoever wants a backend gets it from `connect`: each caller charges a backend that fails alike,
//! and obeys `retries` and `retry_on` alike.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http::resume::handshake::ResumeHandshake;
use super::http::resume::kept::PoolMigrator;
use super::http::resume::search::NewBackendSearch;
use super::http::tests::{GET, OK, SWITCHING, head, node, to_end, upgrade, within};
use super::{ListenerOrigin, ListenerSnapshot, Listening, Proxy, StartState};
use crate::config::{self, Bind};
use crate::net::{Peer, bind, options};
use crate::observe::{Journal, ListenerCounters};
use crate::pool::Pool;
use crate::wire::http::testing::SampleAnswer;

/// A caller of `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    RelayThread,
    SetUp,
    Request,
    Upgrade,
    Migration,
}

const CALLERS: [Caller; 5] = [
    Caller::RelayThread,
    Caller::SetUp,
    Caller::Request,
    Caller::Upgrade,
    Caller::Migration,
];

/// What the first backend does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    RefusesConnects,
    ResetsUnanswered,
    FinishesUnanswered,
}

impl Caller {
    fn is_tcp(self) -> bool {
        matches!(self, Self::RelayThread | Self::SetUp)
    }

    /// Whether a second backend is to serve it after `failure` of the first.
    fn is_served(self, failure: Failure, is_chosen: bool) -> bool {
        match self {
            _ if failure == Failure::RefusesConnects => true,
            Self::RelayThread | Self::SetUp => true,
            Self::Request => false,
            Self::Upgrade | Self::Migration => is_chosen,
        }
    }

    /// Asks once for a backend of a pool of which the first one fails; whether one has served.
    async fn asks(self, failing: &str, good: SocketAddr, keys: &str) -> (bool, Arc<Pool>) {
        let protocol = if self.is_tcp() { "tcp" } else { "websocket" };
        // A PROXY header needs the set-up plane.
        let send_proxy = if self == Self::SetUp {
            "send_proxy = \"v1\""
        } else {
            ""
        };
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\npool = \"p\"\n\
             [pool.p]\n{send_proxy}\n{keys}\noutlier = {{ connect_failures = 1 }}\nbackend = [\n\
             {{ name = \"bad\", address = \"{failing}\" }}, {{ name = \"good\", address = \"{good}\" }}]\n"
        );
        let config = config::parse(&text, Path::new("test.toml"))
            .unwrap_or_else(|errors| panic!("{errors}"));
        let pool = Pool::new(&config.pools["p"]);
        let journal = Journal::new(&config.access_log).unwrap();
        let proxy = Proxy::for_tests(&config, Arc::clone(&journal));
        let is_served = if self == Self::Migration {
            migrates(&proxy, &pool).await
        } else {
            let listener = &config.listeners[0];
            let pools = [("p".to_owned(), Arc::clone(&pool))].into();
            let bound = bind(&listener.bind, 128).unwrap();
            let listening = Listening::start(
                &proxy,
                Arc::new(bound),
                ListenerSnapshot::build(listener, &pools).unwrap(),
                ListenerOrigin::New(ListenerCounters::new("l", &journal), StartState::Listening),
            );
            let is_served = self.is_answered(&listening).await;
            listening.stop().await;
            is_served
        };
        proxy.relay.shutdown();
        (is_served, pool)
    }

    async fn is_answered(self, listening: &Listening) -> bool {
        let Bind::Tcp(address) = listening.local() else {
            panic!("not tcp")
        };
        let mut client = match TcpStream::connect(address).await {
            Ok(client) => client,
            // It was refused so soon that the connect itself tells.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("{error}"),
        };
        let request = match self {
            Self::Request => format!("{GET}\r\n"),
            Self::Upgrade => upgrade(),
            // A raw client says nothing first, or its backend would have served it.
            _ => String::new(),
        };
        client.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut client).await;
        head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 101")
    }
}

/// Finds a backend for a WebSocket session that has lost its own.
async fn migrates(proxy: &Arc<Proxy>, pool: &Arc<Pool>) -> bool {
    let answer = SampleAnswer::new(101, &[]);
    let migrator = PoolMigrator {
        proxy: Arc::clone(proxy),
        pool: Arc::downgrade(pool),
        client: Peer::Unix,
        handshake: ResumeHandshake::of(upgrade().as_bytes(), answer.fields()).unwrap(),
        header: "evenkeel-resume".into(),
        upgrade_timeout: 10_000,
        id: 1,
        more: None,
        count: AtomicU32::new(0),
        short: AtomicU8::new(0),
    };
    let note = "count=1".to_owned();
    let mut search = NewBackendSearch::new(Arc::new(migrator), note, None);
    within(search.run()).await.is_some()
}

/// A node that serves HTTP, and greets raw clients in the same way.
async fn good(is_raw: bool) -> SocketAddr {
    node(move |mut stream, _| async move {
        let head = if is_raw {
            String::new()
        } else {
            head(&mut stream).await
        };
        let is_upgrade = head.contains("pgrade: websocket");
        let answer = if is_upgrade { SWITCHING } else { OK };
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = to_end(&mut stream).await;
    })
    .await
}

/// The address of a node that fails so.
async fn bad(failure: Failure, is_raw: bool) -> String {
    if failure == Failure::RefusesConnects {
        return "unix:/nowhere/to/be.found".to_owned();
    }
    let address = node(move |mut stream, _| async move {
        if !is_raw {
            head(&mut stream).await;
        }
        if failure == Failure::ResetsUnanswered {
            options::reset_on_close(stream.as_fd());
            return;
        }
        // Unread bytes would make the close a reset.
        let _ = stream.shutdown().await;
        let _ = to_end(&mut stream).await;
    })
    .await;
    address.to_string()
}

#[tokio::test]
async fn each_caller_charges_a_backend_alike_and_obeys_retry_on() {
    crate::tls::install_provider();
    for failure in [
        Failure::RefusesConnects,
        Failure::ResetsUnanswered,
        Failure::FinishesUnanswered,
    ] {
        for caller in CALLERS {
            for is_chosen in [false, true] {
                let retry_on = if is_chosen {
                    "retry_on = [\"empty_response\"]"
                } else {
                    ""
                };
                let (bad, good) = (
                    bad(failure, caller.is_tcp()).await,
                    good(caller.is_tcp()).await,
                );
                let keys = format!("retries = 1\n{retry_on}");
                let (served, pool) = within(caller.asks(&bad, good, &keys)).await;
                let case = format!("{failure:?} {caller:?} {is_chosen}");
                let expected = caller.is_served(failure, is_chosen);
                assert_eq!(served, expected, "{case}");
                let charged = u64::from(failure != Failure::FinishesUnanswered);
                let backend = pool.backend("bad").unwrap();
                let counters = backend.counters();
                let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                let found = (read(&counters.connect_failures), read(&counters.ejections));
                assert_eq!(found, (charged, charged), "{case}");
                // A session that is live already counts its own.
                let retries = u64::from(expected && caller != Caller::Migration);
                assert_eq!(read(&pool.counters().retries), retries, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn each_caller_in_set_up_is_refused_without_retries() {
    for caller in CALLERS {
        if caller == Caller::Migration {
            continue;
        }
        let bad = bad(Failure::RefusesConnects, caller.is_tcp()).await;
        let good = good(caller.is_tcp()).await;
        let (served, pool) = within(caller.asks(&bad, good, "retries = 0")).await;
        assert!(!served, "{caller:?}");
        let backend = pool.backend("bad").unwrap();
        let failures = backend.counters().connect_failures.load(Ordering::Relaxed);
        assert_eq!(failures, 1, "{caller:?}");
    }
}
