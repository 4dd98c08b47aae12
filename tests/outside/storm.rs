//! Clients that come in thousands: those that say nothing go at the deadline while good ones are served, and handshakes take
//! their turns.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, connect, echoed, http, http_on, read_to_ending, reset, tls};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

/// Both together are within the descriptors of a test's process.
const SILENT: usize = 5_000;
const DEADLINE: Duration = Duration::from_secs(4);

/// A websocket listener `plain`, one with TLS `shut`, and a `tcp` one with TLS `raw`.
async fn start() -> (Balancer, Certificate, [Node; 2]) {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let nodes = [Node::web("n1").await, Node::echo("n1").await];
    let timeout = format!("handshake_timeout = \"{}s\"", DEADLINE.as_secs());
    let keys = format!(
        "{timeout}\ntls = {{ certificates = [{}] }}",
        certificate.toml()
    );
    let text = "[global]\nlog_format = \"json\"\nwatch = false\n\n".to_owned()
        + &listener_with("plain", "websocket", "web", &timeout)
        + &listener_with("shut", "websocket", "web", &keys)
        + &listener_with("raw", "tcp", "raw", &keys)
        + &pool("web", "", &[backend("n1", nodes[0].address)])
        + &pool("raw", "", &[backend("n1", nodes[1].address)]);
    (launch.start(&text), certificate, nodes)
}

/// Memory that belongs to a process alone; of the program's pages each process has the less the more of them run.
fn resident_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("its memory") * 1024
}

async fn setup_connections(balancer: &Balancer) -> u64 {
    let status = balancer.get("/api/v1/status").await.json();
    status["process"]["setup_connections"]
        .as_u64()
        .expect("a count")
}

/// Opens half of the silent ones at each address; every second of them has something to say, a byte a second.
async fn silent_ones(addresses: [SocketAddr; 2]) -> Vec<TcpStream> {
    let mut silent = Vec::with_capacity(SILENT);
    for number in 0..SILENT {
        silent.push(connect(addresses[number % 2]).await);
    }
    silent
}

/// What a slow client begins with: a request of HTTP, a record of TLS. The same letter follows for ever.
const SLOW: [&[u8]; 2] = [b"GET /", &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]];

async fn gone_at_the_deadline(first: &'static str, second: &'static str) {
    let (balancer, certificate, _nodes) = start().await;
    let addresses = [
        balancer.address(first).await,
        balancer.address(second).await,
    ];
    let before = resident_bytes(balancer.pid());
    let began = Instant::now();
    let silent = silent_ones(addresses).await;
    let trusting = client(&[&certificate]);
    let talks = async {
        for beat in 0.. {
            // Two neighbours, one for each address, are silent, the next two are slow.
            for (number, stream) in silent.iter().enumerate().filter(|(n, _)| n / 2 % 2 == 1) {
                let words = match [first, second][number % 2] {
                    "plain" => SLOW[0],
                    _ => SLOW[1],
                };
                let _ = stream.try_write(&[*words.get(beat).unwrap_or(&b'a')]);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let good = async {
        let mut most = 0;
        let mut served = 0;
        loop {
            let page = http(
                balancer.address("plain").await,
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            );
            assert_eq!(page.await.status, 200);
            let mut session = tls(balancer.address("raw").await, "a.example", &trusting)
                .await
                .expect("a handshake");
            crate::clients::read_line(&mut session).await.expect("n1");
            echoed(&mut session, b"good").await;
            served += u64::from(setup_connections(&balancer).await > 0);
            most = most.max(resident_bytes(balancer.pid()));
            if began.elapsed() > DEADLINE && setup_connections(&balancer).await == 0 {
                return (began.elapsed(), served, most);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (gone, served, most) = tokio::select! {
        () = talks => unreachable!(),
        done = within("the silent ones to go", good) => done,
    };
    assert!(gone >= DEADLINE, "{gone:?}");
    // It is the deadline of the whole: with every byte the slow ones would have had more time, and none would ever go.
    assert!(served >= 1, "{served} good ones served meanwhile");
    let each = most.saturating_sub(before) / SILENT as u64;
    assert!(each < 16 * 1024, "{each} bytes for each silent client");
    for mut stream in silent {
        let mut rest = Vec::new();
        // 408 over plain HTTP, a close otherwise; none is left open.
        let _ = within("an end", stream.read_to_end(&mut rest)).await;
    }
    let lost = balancer
        .metric(&["evenkeel_listener_ends_total", "how=\"timeout\""])
        .await;
    assert!(lost >= SILENT as f64, "{lost} ended by a timeout");
}

#[tokio::test]
async fn thousands_of_silent_and_slow_clients_are_gone_at_the_deadline() {
    gone_at_the_deadline("plain", "shut").await;
}

#[tokio::test]
async fn the_same_on_a_tcp_listener_that_terminates_tls() {
    gone_at_the_deadline("raw", "raw").await;
}

/// A `tcp` listener with TLS that makes one handshake at a time.
/// For tests in which the deadline of a handshake is not to be met.
const UNHURRIED: &str = "handshake_timeout = \"10m\"";

async fn one_at_a_time(keys: &str) -> (Balancer, Certificate, Node) {
    one_at_a_time_with(keys, "").await
}

async fn one_at_a_time_with(keys: &str, of_listener: &str) -> (Balancer, Certificate, Node) {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example", "b.example"]);
    let node = Node::echo("n1").await;
    let tls = format!(
        "{of_listener}\ntls = {{ certificates = [{}] }}",
        certificate.toml()
    );
    let text = format!(
        "[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = false\n{keys}\n\n[access_log]\noutput = \"stdout\"\n\n"
    ) + &listener_with("main", "tcp", "nodes", &tls)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    (launch.start(&text), certificate, node)
}

async fn waiting_handshakes(balancer: &Balancer) -> u64 {
    let status = balancer.get("/api/v1/status").await.json();
    status["process"]["waiting_handshakes"]
        .as_u64()
        .expect("a count")
}

/// A connection from 127.0.0.`number`.
async fn from(number: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, number], 0)))
        .expect("bind");
    socket.connect(address).await.expect("connect")
}

type Config = std::sync::Arc<rustls::ClientConfig>;

/// Makes a handshake from there; tells when the node's greeting has come.
async fn greeted_at(number: u8, address: SocketAddr, config: Config) -> Instant {
    greeted_by(number, address, config, "a.example").await
}

async fn greeted_by(number: u8, address: SocketAddr, config: Config, name: &str) -> Instant {
    let stream = from(number, address).await;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut session = within("a handshake", connector.connect(name, stream))
        .await
        .expect("a handshake");
    // The ticket comes with it.
    crate::clients::read_line(&mut session).await.expect("n1");
    Instant::now()
}

/// A rate of five a second and a first handshake that uses it up for a while, so that the order of the next is seen.
#[tokio::test]
async fn above_the_rate_sources_take_turns_and_resumed_sessions_go_first() {
    let (balancer, certificate, _node) =
        one_at_a_time_with("max_handshake_rate = \"1/300ms\"", UNHURRIED).await;
    let address = balancer.address("main").await;
    let resuming = client(&[&certificate]);
    greeted_at(9, address, resuming.clone()).await;
    let mut fresh = (*resuming).clone();
    fresh.resumption = Resumption::disabled();
    let fresh = Config::new(fresh);
    // The turn of this one is used up at once, or after it has waited; then the queue begins.
    greeted_at(8, address, fresh.clone()).await;
    let mut flood = Vec::new();
    for waiting in 1..=6 {
        flood.push(tokio::spawn(greeted_at(1, address, fresh.clone())));
        queued(&balancer, waiting - 1).await;
    }
    let single = tokio::spawn(greeted_at(2, address, fresh.clone()));
    queued(&balancer, 5).await;
    let resumed = tokio::spawn(greeted_at(3, address, resuming));
    let single = single.await.expect("served");
    let resumed = resumed.await.expect("served");
    let mut times = Vec::new();
    for one in flood {
        times.push(one.await.expect("served"));
    }
    times.sort();
    let before = |moment: Instant| times.iter().filter(|time| **time < moment).count();
    assert!(
        before(resumed) <= 3,
        "{} of the flood before the resumed one",
        before(resumed)
    );
    assert!(
        before(single) <= 4,
        "{} of the flood before the single one",
        before(single)
    );
    assert!(before(single) < 6 && resumed < times[5] && single < times[5]);
}

/// Offers the tickets of `a.example` under another name only: the balancer's keys open them, and none resumes.
#[derive(Debug, Default)]
struct WrongName(std::sync::Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for WrongName {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        if name.to_str() == "a.example" {
            self.0.lock().expect("no panic").push(value);
        }
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.0.lock().expect("no panic");
        (name.to_str() != "a.example").then(|| tickets.pop())?
    }
}

// A source with one good ticket put all of its full handshakes before everybody else's.
#[tokio::test]
async fn a_ticket_that_does_not_resume_puts_its_source_back_among_the_others() {
    let (balancer, certificate, _node) =
        one_at_a_time_with("max_handshake_rate = \"1/300ms\"", UNHURRIED).await;
    let address = balancer.address("main").await;
    let mut abusing = (*client(&[&certificate])).clone();
    abusing.resumption = Resumption::store(std::sync::Arc::new(WrongName::default()));
    let abusing = Config::new(abusing);
    // Two tickets each.
    for _ in 0..3 {
        greeted_at(1, address, abusing.clone()).await;
    }
    let mut fresh = (*abusing).clone();
    fresh.resumption = Resumption::disabled();
    let fresh = Config::new(fresh);
    // The turn of this one is used up at once, or after it has waited; then the queue begins.
    greeted_at(8, address, fresh.clone()).await;
    let mut flood = Vec::new();
    for waiting in 1..=6 {
        let full = greeted_by(1, address, abusing.clone(), "b.example");
        flood.push(tokio::spawn(full));
        queued(&balancer, waiting - 1).await;
    }
    let single = greeted_at(2, address, fresh).await;
    let mut times = Vec::new();
    for one in flood {
        times.push(one.await.expect("served"));
    }
    let before = times.iter().filter(|time| **time < single).count();
    assert!(before <= 4, "{before} of the flood before the single one");
}

/// Waits until so many handshakes wait, or more.
async fn queued(balancer: &Balancer, count: u64) {
    within(&format!("{count} handshakes to wait"), async {
        while waiting_handshakes(balancer).await < count {
            crate::harness::a_moment().await;
        }
    })
    .await;
}

// A client that stays silent after its ClientHello must not hold the turn of others until the deadline.
#[tokio::test]
async fn clients_that_never_finish_hold_no_turn_for_long() {
    let (balancer, certificate, _node) = one_at_a_time_with("max_handshakes = 1", UNHURRIED).await;
    let address = balancer.address("main").await;
    let config = client(&[&certificate]);
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let name = ServerName::try_from("a.example").expect("a name");
        let mut client = rustls::ClientConnection::new(config.clone(), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a hello");
        let mut stream = from(1, address).await;
        stream.write_all(&hello).await.expect("write");
        // The server's flight has come: this one has its turn, or had it.
        within("the server's flight", stream.readable())
            .await
            .expect("readable");
        stuck.push(stream);
    }
    // With their turns until the deadline it would be ten minutes.
    greeted_at(2, address, config).await;
    drop(stuck);
}

// The wait has a bound of its own.
#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_closed() {
    let keys = "max_handshake_rate = \"1/h\"";
    let of_listener = "handshake_timeout = \"1s\"";
    let (balancer, certificate, _node) = one_at_a_time_with(keys, of_listener).await;
    let address = balancer.address("main").await;
    let config = client(&[&certificate]);
    greeted_at(1, address, config.clone()).await;
    let began = Instant::now();
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    let mut stream = from(1, address).await;
    stream.write_all(&hello).await.expect("write");
    let ended = read_to_ending(&mut stream).await;
    assert_eq!(ended, (Vec::new(), Ending::Fin));
    assert!(
        began.elapsed() >= Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let line = |line: &serde_json::Value| {
        let end = &line["end"];
        end["side"] == "evenkeel" && end["phase"] == "tls" && end["how"] == "timeout"
    };
    balancer.access("who waited too long", line).await;
}

// A turn for who has left would be taken from who waits, or cost what nobody has any use for.
#[tokio::test]
async fn clients_that_leave_give_up_their_turn() {
    let (balancer, certificate, _node) = one_at_a_time("max_handshake_rate = \"1/h\"").await;
    let address = balancer.address("main").await;
    let config = client(&[&certificate]);
    greeted_at(1, address, config.clone()).await;
    let mut waiting = Vec::new();
    for behind in [0, 0, 4_000, 4_000] {
        let name = ServerName::try_from("a.example").expect("a name");
        let mut client = rustls::ClientConnection::new(config.clone(), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a hello");
        // What is unread behind the hello hides no end.
        hello.resize(hello.len() + behind, 0);
        let mut stream = from(1, address).await;
        stream.write_all(&hello).await.expect("write");
        waiting.push(stream);
    }
    queued(&balancer, 4).await;
    for (number, stream) in waiting.into_iter().enumerate() {
        match number % 2 {
            0 => drop(stream),
            _ => reset(stream),
        }
    }
    within("the queue to be empty", async {
        while waiting_handshakes(&balancer).await > 0 {
            crate::harness::a_moment().await;
        }
    })
    .await;
}

// A client that has said all it can is not to be closed for a wait that is ours.
#[tokio::test]
async fn the_wait_for_a_turn_does_not_count_for_the_handshake_timeout() {
    for protocol in ["tcp", "websocket"] {
        let launch = Launch::new();
        let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
        let (raw, web) = (Node::echo("n1").await, Node::web("n1").await);
        let keys = format!(
            "handshake_timeout = \"1s\"\ntls = {{ certificates = [{}] }}",
            certificate.toml()
        );
        let address = match protocol {
            "tcp" => raw.address,
            _ => web.address,
        };
        let global = "log_format = \"json\"\nwatch = false\nmax_handshake_rate = \"1/3s\"";
        let text = format!("[global]\n{global}\n\n")
            + &listener_with("main", protocol, "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", address)]);
        let balancer = launch.start(&text);
        let config = client(&[&certificate]);
        for _ in 0..2 {
            let address = balancer.address("main").await;
            let mut session = tls(address, "a.example", &config)
                .await
                .expect("a handshake");
            match protocol {
                "tcp" => {
                    crate::clients::read_line(&mut session).await.expect("n1");
                }
                _ => {
                    let page = http_on(&mut session, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                    assert_eq!(page.status, 200);
                }
            }
        }
    }
}

// What is no ClientHello is refused with an alert, and needs no turn for it.
#[tokio::test]
async fn bytes_that_are_no_hello_need_no_turn() {
    let (balancer, certificate, _node) = one_at_a_time("max_handshake_rate = \"1/h\"").await;
    let address = balancer.address("main").await;
    greeted_at(1, address, client(&[&certificate])).await;
    let mut stream = from(1, address).await;
    stream
        .write_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        .await
        .expect("write");
    let (bytes, _) = read_to_ending(&mut stream).await;
    let _ = std::io::stderr().flush();
    assert!(bytes.is_empty() || bytes[0] == 21, "an alert: {bytes:?}");
}
