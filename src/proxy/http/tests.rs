//! A `websocket` listener before backends of the test's own.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::config::{self, Bind};
use crate::net::{bind, options};
use crate::observe::{Cause, Journal, ListenerCounters, Phase, Side, Termination};
use crate::pool::{OperatorState, Pool};
use crate::proxy::{ListenerOrigin, ListenerSnapshot, Listening, Proxy, StartState};
use crate::wire::http::HeadLimits;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const GET: &str = "GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\n";
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub fn upgrade() -> String {
    format!(
        "{GET}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A `websocket` listener on a free port before the given nodes.
struct Bench {
    listening: Listening,
    pool: Arc<Pool>,
    proxy: Arc<Proxy>,
}

impl Bench {
    fn start(listener: &str, pool: &str, nodes: &[SocketAddr]) -> Bench {
        crate::tls::install_provider();
        let backends: Vec<String> = nodes
            .iter()
            .map(|node| format!("{{ name = \"{node}\", address = \"{node}\" }}"))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"websocket\"\npool = \"nodes\"\n{listener}\n\
             [pool.nodes]\n{pool}\nbackend = [{}]\n",
            backends.join(", ")
        );
        let config = config::parse(&text, Path::new("test.toml"))
            .unwrap_or_else(|errors| panic!("{errors}"));
        let pool = Pool::new(&config.pools["nodes"]);
        let pools = [("nodes".to_owned(), Arc::clone(&pool))].into();
        let listener = &config.listeners[0];
        let journal = Journal::new(&config.access_log).unwrap();
        let proxy = Proxy::for_tests(&config, journal);
        let bound = bind(&listener.bind, 128).unwrap();
        let rules = ListenerSnapshot::build(listener, &pools).unwrap();
        let listening = Listening::start(
            &proxy,
            Arc::new(bound),
            rules,
            ListenerOrigin::New(
                ListenerCounters::new("web", &proxy.journal),
                StartState::Listening,
            ),
        );
        Bench {
            listening,
            pool,
            proxy,
        }
    }

    async fn connect(&self) -> TcpStream {
        let Bind::Tcp(address) = self.listening.local() else {
            panic!("not tcp")
        };
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends `request` on a connection of its own; everything that comes back.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        to_end(&mut stream).await
    }

    /// Waits until no backend has a live connection.
    async fn idle(&self) {
        for backend in self.pool.backends() {
            within(backend.emptied()).await;
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.proxy.relay.shutdown();
    }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("nothing after 20 s")
}

pub async fn to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a head, to its empty line.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match within(stream.read_u8()).await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// A node that runs `script` on every connection, with its number from 0.
pub async fn node<F>(script: impl Fn(TcpStream, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                break;
            };
            tokio::spawn(script(stream, number));
        }
    });
    address
}

/// A node that answers every request with `answer` and keeps the heads it saw.
async fn answering(answer: impl Into<String>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (answer, seen) = (answer.into(), Arc::new(Mutex::new(Vec::new())));
    let heads = Arc::clone(&seen);
    let address = node(move |mut stream, _| {
        let (answer, heads) = (answer.clone(), Arc::clone(&heads));
        async move {
            let head = head(&mut stream).await;
            heads.lock().unwrap().push(head);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = to_end(&mut stream).await;
        }
    })
    .await;
    (address, seen)
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nX-CaSe: kept\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_goes_through_with_its_case_and_its_origin() {
    let (address, seen) = answering(OK).await;
    let bench = Bench::start("", "", &[address]);
    let answer = bench
        .ask(&format!("{GET}X-mIxEd: 1\r\nConnection: close\r\n\r\n"))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\nX-CaSe: kept\r\nContent-Length: 2\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let head = seen.lock().unwrap().join("");
    assert!(
        head.starts_with("GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nX-mIxEd: 1\r\n"),
        "{head}"
    );
    assert!(head.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{head}");
    bench.idle().await;
    let counters = bench.listening.counters();
    assert_eq!(counters.requests.load(Ordering::Relaxed), 1);
    assert_eq!(counters.bytes_from_backend.load(Ordering::Relaxed), 2);
    assert_eq!(
        counters
            .ends
            .of(Termination::new(Side::Backend, Phase::Request, Cause::Fin)),
        1
    );
}

#[tokio::test]
async fn the_largest_head_that_is_taken_is_served() {
    let (address, seen) = answering(OK).await;
    let bench = Bench::start("", "", &[address]);
    let fields: String = (1..HeadLimits::REQUEST.max_fields - 1)
        .map(|n| format!("x-{n}: {}\r\n", "y".repeat(140)))
        .collect();
    let answer = bench
        .ask(&format!("{GET}{fields}Connection: close\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(seen.lock().unwrap().join("").contains("x-98: yyy"));
}

#[tokio::test]
async fn a_refused_request_is_answered_in_its_turn_and_nothing_behind_it() {
    let (address, seen) = answering(OK).await;
    let bench = Bench::start("", "", &[address]);
    let answer = bench
        .ask(&format!(
            "{GET}\r\n{GET}\r\nGET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n{GET}\r\n"
        ))
        .await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|part| &part[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert!(
        answer.contains("Connection: close") || answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_without_a_word_and_one_that_stops_is_told() {
    let bench = Bench::start(
        "handshake_timeout = \"300ms\"",
        "",
        &["127.0.0.1:1".parse().unwrap()],
    );
    assert_eq!(bench.ask("").await, "");
    let end = Termination::new(Side::Evenkeel, Phase::Head, Cause::Timeout);
    assert_eq!(bench.listening.counters().ends.of(end), 1);
    let answer = bench.ask("GET / HTTP/1.1\r\nHo").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn the_pause_between_requests_is_bounded_and_so_is_the_next_head() {
    let (address, _) = answering(OK).await;
    let keys = "keep_alive_timeout = \"300ms\"\nhandshake_timeout = \"600ms\"";
    let bench = Bench::start(keys, "", &[address]);
    let answer = bench.ask(&format!("{GET}\r\n")).await;
    assert!(answer.ends_with("ok"), "{answer}");
    let answer = bench.ask(&format!("{GET}\r\nGET ")).await;
    assert!(answer.contains("okHTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer() {
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let address = node(move |mut stream, _| {
        let opened = opened.lock().unwrap().take();
        async move {
            head(&mut stream).await;
            let _ = opened.unwrap().await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let mut stream = bench.connect().await;
    stream
        .write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    gate.send(()).unwrap();
    assert!(to_end(&mut stream).await.ends_with("ok"));
}

#[tokio::test]
async fn stopping_closes_a_connection_between_requests_and_lets_an_answer_end() {
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let address = node(move |mut stream, number| {
        let opened = if number == 0 {
            None
        } else {
            opened.lock().unwrap().take()
        };
        async move {
            head(&mut stream).await;
            if let Some(opened) = opened {
                let _ = opened.await;
            }
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let (mut kept, mut busy) = (bench.connect().await, bench.connect().await);
    kept.write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    head(&mut kept).await;
    bench.idle().await;
    busy.write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    bench.proxy.stopping.cancel();
    assert_eq!(to_end(&mut kept).await, "ok");
    gate.send(()).unwrap();
    assert!(to_end(&mut busy).await.ends_with("ok"));
}

/// Went on with new requests for ever.
#[tokio::test]
async fn a_removed_listener_takes_no_further_request_on_a_kept_connection() {
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let address = node(move |mut stream, number| {
        let opened = opened.lock().unwrap().take_if(|_| number == 1);
        async move {
            head(&mut stream).await;
            if let Some(opened) = opened {
                let _ = opened.await;
            }
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let (mut kept, mut busy) = (bench.connect().await, bench.connect().await);
    let request = format!("{GET}\r\n");
    kept.write_all(request.as_bytes()).await.unwrap();
    head(&mut kept).await;
    bench.idle().await;
    busy.write_all(request.repeat(2).as_bytes()).await.unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    bench.listening.stop().await;
    assert_eq!(to_end(&mut kept).await, "ok");
    gate.send(()).unwrap();
    let answer = to_end(&mut busy).await;
    assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}

/// Was cut by the end of the process and recorded as reset by the client.
#[tokio::test]
async fn an_exchange_that_outlasts_a_stop_is_ended_by_it() {
    let address = node(|mut stream, number| async move {
        head(&mut stream).await;
        if number == 0 {
            let begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
            stream.write_all(begun.as_bytes()).await.unwrap();
        }
        to_end(&mut stream).await;
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let (mut stream, mut poll) = (bench.connect().await, bench.connect().await);
    let request = format!("{GET}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.contains("event-stream"));
    poll.write_all(request.as_bytes()).await.unwrap();
    while bench.pool.backends()[0].live() < 2 {
        tokio::task::yield_now().await;
    }
    bench
        .proxy
        .hard_stop
        .plan(Instant::now(), Duration::from_millis(100));
    bench.proxy.stopping.cancel();
    to_end(&mut stream).await;
    assert_eq!(to_end(&mut poll).await, "");
    bench.idle().await;
    let stopped = Termination::new(Side::Evenkeel, Phase::Request, Cause::Stop);
    assert_eq!(bench.listening.counters().ends.seen(), [(stopped, 2)]);
}

#[tokio::test]
async fn stopping_lets_a_first_request_and_an_upgrade_through() {
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let address = node(move |mut stream, number| {
        let opened = if number == 0 {
            opened.lock().unwrap().take()
        } else {
            None
        };
        async move {
            head(&mut stream).await;
            let answer = if let Some(opened) = opened {
                let _ = opened.await;
                SWITCHING
            } else {
                OK
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            to_end(&mut stream).await;
        }
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let (mut first, mut upgraded) = (bench.connect().await, bench.connect().await);
    upgraded.write_all(upgrade().as_bytes()).await.unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    bench.proxy.stopping.cancel();
    first
        .write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    assert!(to_end(&mut first).await.ends_with("ok"));
    gate.send(()).unwrap();
    let answer = head(&mut upgraded).await;
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.contains("Connection: Upgrade"),
        "{answer}"
    );
}

/// Was given to a backend, to be cut soon after.
#[tokio::test]
async fn what_the_kernel_has_queued_at_a_stop_is_told_to_come_again() {
    let (address, seen) = answering(OK).await;
    let bench = Bench::start("", "", &[address]);
    let Bind::Tcp(local) = *bench.listening.local() else {
        panic!("not over TCP");
    };
    // Nobody accepts before the next await.
    let queued = [GET.to_owned() + "\r\n", upgrade()].map(|request| {
        let stream = std::net::TcpStream::connect(local).unwrap();
        stream.set_nonblocking(true).unwrap();
        (TcpStream::from_std(stream).unwrap(), request)
    });
    bench.proxy.stopping.cancel();
    for (mut stream, request) in queued {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("Retry-After: "), "{answer}");
    }
    bench.idle().await;
    let stopped = Termination::new(Side::Evenkeel, Phase::Route, Cause::Stop);
    assert_eq!(bench.listening.counters().ends.seen(), [(stopped, 2)]);
    drop(seen);
}

#[tokio::test]
async fn a_client_that_resets_while_its_upgrade_waits_gives_its_lease_back() {
    let address = node(|mut stream, _| async move { drop(to_end(&mut stream).await) }).await;
    let bench = Bench::start("upgrade_timeout = \"1h\"", "", &[address]);
    let mut stream = bench.connect().await;
    stream
        .write_all((upgrade() + "early").as_bytes())
        .await
        .unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    options::reset_on_close(stream.as_fd());
    drop(stream);
    bench.idle().await;
    let ends = bench.listening.counters().ends.seen();
    assert_eq!(ends.len(), 1);
    assert_eq!((ends[0].0.side, ends[0].0.how), (Side::Client, Cause::Rst));
}

#[tokio::test]
async fn a_fin_behind_the_101_is_passed_on_behind_the_early_bytes() {
    let bench = Bench::start("", "", &[tunnel(0, 5_000).await]);
    let mut stream = bench.connect().await;
    stream
        .write_all(&[upgrade().as_bytes(), &pattern(5_000)].concat())
        .await
        .unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(bytes.len(), 5_000);
}

#[tokio::test]
async fn a_client_that_resets_gives_its_lease_back() {
    let address = node(|mut stream, _| async move {
        head(&mut stream).await;
        to_end(&mut stream).await;
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let mut stream = bench.connect().await;
    stream
        .write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    options::reset_on_close(stream.as_fd());
    drop(stream);
    bench.idle().await;
    let ends = bench.listening.counters().ends.seen();
    assert_eq!(
        ends,
        [(
            Termination::new(Side::Client, Phase::Request, Cause::Rst),
            1
        )]
    );
}

#[tokio::test]
async fn a_backend_that_stalls_is_a_504_and_one_that_breaks_off_a_502() {
    let address = node(|mut stream, number| async move {
        head(&mut stream).await;
        match number {
            0 => drop(to_end(&mut stream).await),
            1 => stream.write_all(b"HTTP/9 nonsense\r\n\r\n").await.unwrap(),
            2 => drop(stream),
            _ => stream.write_all(SWITCHING.as_bytes()).await.unwrap(),
        }
    })
    .await;
    let bench = Bench::start("", "idle_timeout = \"300ms\"", &[address]);
    for status in ["504", "502", "502", "502"] {
        let answer = bench.ask(&format!("{GET}Connection: close\r\n\r\n")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
        assert!(!answer.contains("nonsense"), "{answer}");
    }
    bench.idle().await;
}

/// Either held its lease for the hour of `idle_timeout`.
#[tokio::test]
async fn an_unanswered_request_is_a_504_and_an_unfinished_one_a_408() {
    let address = node(|mut stream, _| async move { drop(to_end(&mut stream).await) }).await;
    let bench = Bench::start("", "response_timeout = \"300ms\"", &[address]);
    let answer = bench.ask(&format!("{GET}Connection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let whole = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab";
    let answer = bench.ask(whole).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    bench.idle().await;
    let bench = Bench::start("", "body_timeout = \"300ms\"", &[address]);
    for body in [
        "Content-Length: 2\r\n\r\na",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let answer = bench
            .ask(&format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    bench.idle().await;
    let late = Termination::new(Side::Client, Phase::Request, Cause::Timeout);
    assert_eq!(bench.listening.counters().ends.seen(), [(late, 2)]);
}

#[tokio::test]
async fn a_body_that_keeps_coming_and_an_answer_that_has_begun_may_last() {
    const STEPS: usize = 8;
    let step = Duration::from_millis(100);
    let address = node(move |mut stream, _| async move {
        head(&mut stream).await;
        stream.read_exact(&mut [0; STEPS]).await.unwrap();
        let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {STEPS}\r\n\r\n");
        stream.write_all(begun.as_bytes()).await.unwrap();
        for _ in 0..STEPS {
            tokio::time::sleep(step).await;
            stream.write_all(b"b").await.unwrap();
        }
    })
    .await;
    let keys = "response_timeout = \"500ms\"\nbody_timeout = \"500ms\"\nmin_body_rate = 0";
    let bench = Bench::start("", keys, &[address]);
    let mut stream = bench.connect().await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {STEPS}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    for _ in 0..STEPS {
        tokio::time::sleep(step).await;
        stream.write_all(b"a").await.unwrap();
    }
    let answer = to_end(&mut stream).await;
    assert!(answer.ends_with(&"b".repeat(STEPS)), "{answer}");
}

#[tokio::test]
async fn a_truncated_answer_ends_in_a_reset_behind_its_bytes() {
    let (address, _) =
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let bench = Bench::start("", "", &[address]);
    let mut stream = bench.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let error = within(stream.read_to_end(&mut bytes)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(bytes.ends_with(b"half"), "{}", bytes.escape_ascii());
}

#[tokio::test]
async fn a_body_that_breaks_the_rules_ends_the_request_at_the_backend() {
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    let address = node(move |mut stream, _| {
        let kept = Arc::clone(&kept);
        async move {
            let all = to_end(&mut stream).await;
            *kept.lock().unwrap() = all;
        }
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = bench.connect().await;
    stream
        .write_all(format!("{head}5\r\nhello\r\n").as_bytes())
        .await
        .unwrap();
    while bench.pool.backends()[0].live() == 0 {
        tokio::task::yield_now().await;
    }
    stream
        .write_all(format!("0x1\r\n{GET}\r\n").as_bytes())
        .await
        .unwrap();
    let answer = to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    bench.idle().await;
    let seen = seen.lock().unwrap();
    assert!(
        !seen.contains("0\r\n\r\n") && !seen.contains("GET"),
        "{seen}"
    );
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    const LENGTH: usize = 3_000_000;
    let address = node(|mut stream, _| async move {
        head(&mut stream).await;
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let (mut from, mut to) = stream.split();
        let mut part = (&mut from).take(LENGTH as u64);
        tokio::io::copy(&mut part, &mut to).await.unwrap();
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let stream = bench.connect().await;
    let (mut from, mut to) = stream.into_split();
    let body: Vec<u8> = (0..LENGTH).map(|index| (index / 7) as u8).collect();
    let sent = body.clone();
    let sender = tokio::spawn(async move {
        to.write_all(
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
        to.write_all(&sent).await.unwrap();
        to
    });
    assert!(head(&mut from).await.starts_with("HTTP/1.1 200"));
    let mut answer = vec![0; LENGTH];
    within(from.read_exact(&mut answer)).await.unwrap();
    assert!(answer == body, "bytes differ");
    drop((sender.await.unwrap(), from));
    bench.idle().await;
    let counters = bench.listening.counters();
    assert_eq!(
        counters.bytes_from_client.load(Ordering::Relaxed),
        LENGTH as u64
    );
    assert_eq!(
        counters.bytes_from_backend.load(Ordering::Relaxed),
        LENGTH as u64
    );
}

#[tokio::test]
async fn expect_head_and_old_clients_are_served() {
    let address = node(|mut stream, _| async move {
        let request = head(&mut stream).await;
        assert!(
            request.contains("HTTP/1.1\r\n") && request.to_ascii_lowercase().contains("\r\nhost: "),
            "{request}"
        );
        if request.starts_with("POST") {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            stream.write_all(go_on).await.unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
        }
        let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let answer = if request.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        } else {
            OK
        };
        stream
            .write_all([early, answer].concat().as_bytes())
            .await
            .unwrap();
    })
    .await;
    let bench = Bench::start("", "", &[address]);
    let mut stream = bench.connect().await;
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream
        .write_all(b"helloHEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let answer = to_end(&mut stream).await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.")
        .skip(1)
        .map(|part| &part[..5])
        .collect();
    let expected = ["1 103", "1 200", "1 103", "1 200", "1 200"];
    assert_eq!(statuses, expected, "{answer}");
    assert!(
        answer.contains("Content-Length: 9\r\n") && answer.ends_with("ok"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_pool_that_is_down_and_a_path_without_route_are_told_apart() {
    let (address, _) = answering(OK).await;
    let bench = Bench::start("", "", &[address]);
    bench.pool.backends()[0].set_operator(OperatorState::Maint);
    let answer = bench.ask(&format!("{GET}Connection: close\r\n\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "),
        "{answer}"
    );
    let answer = bench.ask(&upgrade()).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "),
        "{answer}"
    );
}

/// Reads `length` bytes and answers them changed, so that nothing can be taken for its own echo.
async fn mirror(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), length: usize) {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
        .iter_mut()
        .for_each(|byte| *byte = byte.wrapping_add(1));
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 3) as u8).collect()
}

/// A node that says `early` with its 101, then answers `length` bytes changed.
async fn tunnel(early: usize, length: usize) -> SocketAddr {
    node(move |mut stream, _| async move {
        let request = head(&mut stream).await;
        assert!(
            request.contains(&format!("Sec-WebSocket-Key: {KEY}\r\n")),
            "{request}"
        );
        stream
            .write_all(&[SWITCHING.as_bytes(), &pattern(early)].concat())
            .await
            .unwrap();
        mirror(&mut stream, length).await;
        to_end(&mut stream).await;
    })
    .await
}

async fn session(mut stream: impl AsyncRead + AsyncWrite + Unpin, early: usize, length: usize) {
    let sent = pattern(length);
    let (mut from, mut to) = tokio::io::split(&mut stream);
    let write = async {
        to.write_all(&[upgrade().as_bytes(), &sent].concat())
            .await
            .unwrap();
        to.flush().await.unwrap();
    };
    let read = async {
        let answer = head(&mut from).await;
        assert!(
            answer.starts_with("HTTP/1.1 101 ") && answer.contains("Sec-WebSocket-Accept: s3p"),
            "{answer}"
        );
        let mut bytes = vec![0; early + length];
        within(from.read_exact(&mut bytes)).await.unwrap();
        bytes
    };
    let ((), bytes) = tokio::join!(write, read);
    assert!(bytes[..early] == pattern(early)[..], "early bytes differ");
    assert!(
        bytes[early..]
            .iter()
            .zip(&sent)
            .all(|(got, sent)| *got == sent.wrapping_add(1)),
        "bytes differ"
    );
}

#[tokio::test]
async fn bytes_sent_with_the_upgrade_and_its_101_arrive() {
    for (early, length) in [(0, 1), (1, 5_000), (8_192, 8_192), (150_000, 150_000)] {
        let bench = Bench::start("", "", &[tunnel(early, length).await]);
        session(bench.connect().await, early, length).await;
        within(bench.proxy.limits.emptied()).await;
        bench.idle().await;
        let counters = bench.listening.counters();
        assert_eq!(counters.upgrades.load(Ordering::Relaxed), 1);
        assert_eq!(
            counters.bytes_from_client.load(Ordering::Relaxed),
            length as u64
        );
        assert_eq!(counters.live.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn bytes_sent_with_the_upgrade_over_tls_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let keys = format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    for (early, length) in [(0, 1), (1, 5_000), (20_000, 20_000), (150_000, 150_000)] {
        let bench = Bench::start(&keys, "", &[tunnel(early, length).await]);
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, bench.connect().await)
            .await
            .unwrap();
        session(stream, early, length).await;
        within(bench.proxy.limits.emptied()).await;
    }
}

#[tokio::test]
async fn no_byte_of_a_tunnel_passes_without_a_true_101() {
    let fakes = [
        (SWITCHING.replace("s3p", "c3p") + "SECRET", "502"),
        (
            SWITCHING.replace("Upgrade: websocket\r\n", "") + "SECRET",
            "502",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            "403",
        ),
    ];
    for (fake, status) in fakes {
        let behind = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&behind);
        let address = node(move |mut stream, _| {
            let (fake, kept) = (fake.clone(), Arc::clone(&kept));
            async move {
                head(&mut stream).await;
                stream.write_all(fake.as_bytes()).await.unwrap();
                let all = to_end(&mut stream).await;
                kept.lock().unwrap().push_str(&all);
            }
        })
        .await;
        let bench = Bench::start("", "", &[address]);
        let answer = bench.ask(&(upgrade() + "tunnel bytes")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && !answer.contains("SECRET"),
            "{answer}"
        );
        bench.idle().await;
        assert_eq!(*behind.lock().unwrap(), "");
    }
}

#[tokio::test]
async fn an_upgrade_is_sent_again_until_a_first_byte_came_where_that_is_chosen() {
    let tried = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tried);
    let silent = node(move |mut stream, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { drop(head(&mut stream).await) }
    })
    .await;
    let keys = "retry_on = [\"connect\", \"empty_response\"]";
    let bench = Bench::start("", keys, &[silent, tunnel(0, 3).await]);
    for _ in 0..4 {
        session(bench.connect().await, 0, 3).await;
    }
    assert!(tried.load(Ordering::Relaxed) > 0);
    let (half, seen) = answering(&SWITCHING[..20]).await;
    let (other, unseen) = answering(&SWITCHING[..20]).await;
    let bench = Bench::start("", "", &[half, other]);
    let answer = bench.ask(&upgrade()).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(seen.lock().unwrap().len() + unseen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_upgrades_are_told_and_a_silent_backend_is_a_504() {
    let address = node(|mut stream, _| async move { drop(to_end(&mut stream).await) }).await;
    let bench = Bench::start("upgrade_timeout = \"300ms\"", "", &[address]);
    let table = [
        (upgrade(), "504"),
        (upgrade().replace("Version: 13", "Version: 8"), "426"),
        (upgrade().replace(KEY, "short"), "400"),
        (
            upgrade().replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
            "400",
        ),
    ];
    for (request, status) in table {
        let answer = bench.ask(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
        assert_eq!(
            answer.contains("Sec-WebSocket-Version: 13"),
            status == "426",
            "{answer}"
        );
    }
    bench.idle().await;
}
