//! How a connection ends: the four close cases, over and over with sequence-checked payloads both ways, and their forced
//! races. Each test makes its ends on one side and looks at what the other side was shown.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::certificates::{Certificate, client};
use crate::clients::{
    Ending, connect, read_exactly, read_to_ending, read_to_ending_of, reset, tls,
};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool};

const ROUNDS: usize = 1_000;
/// Below the first window of loopback, so that it is under way before the end that follows it.
const SMALL: usize = 40_000;

/// Bytes that tell their place and their stream.
fn sequence(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed.wrapping_mul(131)) as u8)
        .collect()
}

/// A length that differs from round to round: empty, tiny, about a buffer, above it.
fn length(round: usize) -> usize {
    [0, 1, 100, 4_096, 16_384, 16_385, 33_000, SMALL][round % 8]
}

/// A balancer before one node whose connections are handed to the test.
struct Bench {
    balancer: Balancer,
    _node: Node,
    connections: mpsc::UnboundedReceiver<TcpStream>,
    certificate: Certificate,
    tls: Arc<ClientConfig>,
}

impl Bench {
    async fn new() -> Bench {
        let (give, connections) = mpsc::unbounded_channel();
        let node = Node::scripted(move |stream, _| {
            let _ = give.send(stream);
            async {}
        })
        .await;
        let launch = Launch::new();
        let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
        let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
        let config = listener("plain", "tcp", "nodes")
            + &listener_with("tls", "tcp", "nodes", &keys)
            + &pool(
                "nodes",
                "fin_timeout = \"20s\"",
                &[backend("n1", node.address)],
            );
        let tls = client(&[&certificate]);
        Bench {
            balancer: launch.start(&config),
            _node: node,
            connections,
            certificate,
            tls,
        }
    }

    async fn backend(&mut self) -> TcpStream {
        within("the backend's side", self.connections.recv())
            .await
            .expect("a node")
    }

    /// Both ends of a new session that the relay has: a backend that resets while the balancer still waits for its
    /// connect has failed to connect, and another is tried.
    async fn plain(&mut self) -> (TcpStream, TcpStream) {
        let mut client = connect(self.balancer.address("plain").await).await;
        client.write_all(b"!").await.expect("write");
        let mut backend = self.backend().await;
        assert_eq!(read_exactly(&mut backend, 1).await, b"!");
        (client, backend)
    }

    async fn tls(&mut self) -> (tokio_rustls::client::TlsStream<TcpStream>, TcpStream) {
        assert!(self.certificate.cert.exists());
        let address = self.balancer.address("tls").await;
        let client = tls(address, "a.example", &self.tls)
            .await
            .expect("a TLS connection");
        (client, self.backend().await)
    }
}

#[tokio::test]
async fn case_1_a_fin_follows_all_bytes_before_it() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (mut client, mut backend) = bench.plain().await;
        let (up, down) = (
            sequence(round, length(round) * 3),
            sequence(round + 1, length(round + 3) * 3),
        );
        let send = async {
            client.write_all(&up).await.expect("write");
            client.shutdown().await.expect("shut down");
            read_to_ending(&mut client).await
        };
        let answer = async {
            let seen = read_to_ending(&mut backend).await;
            backend.write_all(&down).await.expect("write");
            backend.shutdown().await.expect("shut down");
            seen
        };
        let (at_client, at_backend) = tokio::join!(send, answer);
        assert!(
            at_backend == (up, Ending::Fin),
            "round {round}: {} bytes, {:?}",
            at_backend.0.len(),
            at_backend.1
        );
        assert!(
            at_client == (down, Ending::Fin),
            "round {round}: {} bytes, {:?}",
            at_client.0.len(),
            at_client.1
        );
    }
}

#[tokio::test]
async fn case_2_after_a_fin_the_other_direction_goes_on() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (client, backend) = bench.plain().await;
        // Every other round it is the backend that closes first.
        let (mut first, mut second) = if round % 2 == 0 {
            (client, backend)
        } else {
            (backend, client)
        };
        let before = sequence(round, length(round));
        first.write_all(&before).await.expect("write");
        first.shutdown().await.expect("shut down");
        assert!(
            read_to_ending(&mut second).await == (before, Ending::Fin),
            "round {round}"
        );
        for message in 0..3 {
            let bytes = sequence(round + message, length(round + message) + 1);
            second
                .write_all(&bytes)
                .await
                .expect("write after the other side's FIN");
            assert!(
                read_exactly(&mut first, bytes.len()).await == bytes,
                "round {round}"
            );
        }
        second.shutdown().await.expect("shut down");
        assert_eq!(
            read_to_ending(&mut first).await,
            (vec![], Ending::Fin),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn case_3_a_rst_goes_on_as_a_rst_idle_or_amid_data() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (client, backend) = bench.plain().await;
        let (mut first, mut second) = if round % 2 == 0 {
            (client, backend)
        } else {
            (backend, client)
        };
        let both = sequence(round, 1 + length(round));
        first.write_all(&both).await.expect("write");
        assert!(
            read_exactly(&mut second, both.len()).await == both,
            "round {round}"
        );
        second.write_all(&both).await.expect("write");
        assert!(
            read_exactly(&mut first, both.len()).await == both,
            "round {round}"
        );
        if round % 4 >= 2 {
            // Amid data: what is under way towards the one that resets has nowhere to go.
            second.write_all(&both).await.expect("write");
        }
        reset(first);
        assert_eq!(
            read_to_ending(&mut second).await,
            (vec![], Ending::Rst),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn case_4_an_end_behind_bytes_not_yet_written_waits_for_them() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (client, backend) = bench.plain().await;
        let (mut first, mut second) = if round % 2 == 0 {
            (client, backend)
        } else {
            (backend, client)
        };
        let bytes = sequence(round, length(round / 4));
        first.write_all(&bytes).await.expect("write");
        let ending = if round % 4 >= 2 {
            reset(first);
            Ending::Rst
        } else {
            drop(first);
            Ending::Fin
        };
        let seen = read_to_ending_of(
            &format!("round {round}, {ending:?} behind {} bytes", bytes.len()),
            &mut second,
        )
        .await;
        assert!(
            seen == (bytes, ending),
            "round {round}: {} bytes, {:?}",
            seen.0.len(),
            seen.1
        );
    }
}

#[tokio::test]
async fn a_truncated_answer_never_looks_complete() {
    let mut bench = Bench::new().await;
    for round in 0..200 {
        let (mut client, mut backend) = bench.plain().await;
        let bytes = sequence(round, 2_000_000);
        let write = async {
            backend.write_all(&bytes[..1_000_000]).await.expect("write");
            reset(backend);
        };
        let ((), (seen, ending)) = tokio::join!(write, read_to_ending(&mut client));
        assert!(
            bytes.starts_with(&seen),
            "round {round}: {} bytes are not a beginning",
            seen.len()
        );
        assert_eq!(
            ending,
            Ending::Rst,
            "round {round}: {} bytes looked complete",
            seen.len()
        );
    }
}

/// Bytes that a socket of this process has sent and its peer not yet acknowledged, from `/proc/net/tcp`.
fn queued(stream: &TcpStream) -> usize {
    let port = stream.local_addr().expect("an address").port();
    let peer = stream.peer_addr().expect("an address").port();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let ports = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
    table
        .lines()
        .skip(1)
        .find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, remote, _state) = (words.next()?, words.next()?, words.next()?);
            let queue = words.next()?.split_once(':')?.0;
            (ports(local) == Some(port) && ports(remote) == Some(peer))
                .then(|| usize::from_str_radix(queue, 16).ok())?
        })
        .expect("the socket in the kernel's table")
}

#[tokio::test]
async fn a_rst_behind_a_full_send_queue_waits_for_what_was_read() {
    let mut bench = Bench::new().await;
    for round in 0..30 {
        let (mut client, mut backend) = bench.plain().await;
        let bytes = sequence(round, 12_000_000);
        // The client does not read: write until the kernel takes no more.
        let mut sent = 0;
        while let Ok(Ok(count)) = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            backend.write(&bytes[sent..]),
        )
        .await
        {
            sent += count;
            if sent == bytes.len() {
                break;
            }
        }
        let taken = sent - queued(&backend);
        assert!(taken > 0);
        reset(backend);
        let (seen, ending) = read_to_ending(&mut client).await;
        assert!(bytes.starts_with(&seen), "round {round}: not a beginning");
        assert!(
            seen.len() >= taken,
            "round {round}: {} of {taken} bytes that were taken over",
            seen.len()
        );
        assert_eq!(ending, Ending::Rst, "round {round}");
    }
}

#[tokio::test]
async fn a_fin_behind_a_full_send_queue_waits_for_all() {
    let mut bench = Bench::new().await;
    for round in 0..10 {
        let (mut client, mut backend) = bench.plain().await;
        let bytes = sequence(round, 12_000_000);
        let sent = bytes.clone();
        let write = tokio::spawn(async move {
            backend.write_all(&sent).await.expect("write");
            drop(backend);
        });
        // The first byte tells that the queues fill; the rest is read only after.
        assert_eq!(read_exactly(&mut client, 1).await, bytes[..1]);
        let (seen, ending) = read_to_ending(&mut client).await;
        assert!(
            seen == bytes[1..],
            "round {round}: {} of {} bytes",
            seen.len(),
            bytes.len() - 1
        );
        assert_eq!(ending, Ending::Fin, "round {round}");
        write.await.expect("the backend wrote all");
    }
}

#[tokio::test]
async fn a_write_error_before_the_read_is_still_a_rst() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (client, mut backend) = bench.plain().await;
        // The backend keeps writing while the client resets: the balancer's write may fail before its read does.
        let client = tokio::spawn(async move {
            let mut client = client;
            read_exactly(&mut client, 1 + length(round)).await;
            reset(client);
        });
        let bytes = sequence(round, 4_096);
        let (mut read, mut write) = backend.split();
        let writing = async { while write.write_all(&bytes).await.is_ok() {} };
        let mut byte = [0];
        let ended = within("the end at the backend", async {
            tokio::select! {
                () = writing => Err(std::io::ErrorKind::ConnectionReset.into()),
                ended = read.read(&mut byte) => ended,
            }
        })
        .await;
        assert!(
            ended.is_err(),
            "round {round}: the client's RST was a FIN to the backend"
        );
        client.await.expect("the client");
    }
}

#[tokio::test]
async fn a_fin_and_a_rst_before_the_first_poll_are_a_rst() {
    let mut bench = Bench::new().await;
    let address = bench.balancer.address("plain").await;
    for batch in 0..ROUNDS / 50 {
        // Stopped, the balancer polls nothing; the kernel accepts and takes the FIN and the RST for it.
        bench.balancer.halt().await;
        for round in 0..50 {
            let mut client = connect(address).await;
            let bytes = sequence(batch + round, length(round));
            client.write_all(&bytes).await.expect("write");
            client.shutdown().await.expect("shut down");
            reset(client);
        }
        bench.balancer.signal("CONT");
    }
    // A last session comes through behind them all, marked so that it is known.
    let mut last = connect(address).await;
    last.write_all(b"the last one").await.expect("write");
    let mut false_fins = 0;
    for round in 0.. {
        let mut backend = bench.backend().await;
        let mut buffer = vec![0; 12];
        // An error is told once: a peek that meets the RST has taken it away from the read.
        let ending = match backend.peek(&mut buffer).await {
            Ok(count) if &buffer[..count] == b"the last one" => break,
            Ok(_) => read_to_ending(&mut backend).await.1,
            Err(_) => Ending::Rst,
        };
        false_fins += usize::from(ending == Ending::Fin);
        assert!(round <= ROUNDS);
    }
    assert_eq!(
        false_fins, 0,
        "of {ROUNDS} resets were shown to the backend as a FIN"
    );
}

#[tokio::test]
async fn over_tls_a_close_notify_is_the_fin_both_ways() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (mut client, mut backend) = bench.tls().await;
        let (up, down) = (
            sequence(round, length(round)),
            sequence(round + 1, length(round + 3)),
        );
        if round % 2 == 0 {
            let send = async {
                client.write_all(&up).await.expect("write");
                client.shutdown().await.expect("shut down");
            };
            let ((), seen) = tokio::join!(send, read_to_ending(&mut backend));
            assert!(
                seen == (up, Ending::Fin),
                "round {round}: {} bytes, {:?}",
                seen.0.len(),
                seen.1
            );
            // The other direction goes on.
            backend.write_all(&down).await.expect("write");
            drop(backend);
            let seen = read_to_ending(&mut client).await;
            assert!(
                seen == (down, Ending::Fin),
                "round {round}: {} bytes, {:?}",
                seen.0.len(),
                seen.1
            );
        } else {
            backend.write_all(&down).await.expect("write");
            backend.shutdown().await.expect("shut down");
            // `Fin` here means that a close_notify came: without one rustls reports an error.
            let seen = read_to_ending(&mut client).await;
            assert!(
                seen == (down, Ending::Fin),
                "round {round}: {} bytes, {:?}",
                seen.0.len(),
                seen.1
            );
            client
                .write_all(&up)
                .await
                .expect("write after the other side's end");
            client.shutdown().await.expect("shut down");
            assert!(
                read_to_ending(&mut backend).await == (up, Ending::Fin),
                "round {round}"
            );
        }
    }
}

#[tokio::test]
async fn over_tls_a_rst_goes_on_as_a_rst_and_sends_no_close_notify() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (mut client, mut backend) = bench.tls().await;
        let bytes = sequence(round, 1 + length(round));
        client.write_all(&bytes).await.expect("write");
        assert!(
            read_exactly(&mut backend, bytes.len()).await == bytes,
            "round {round}"
        );
        if round % 2 == 0 {
            backend.write_all(&bytes).await.expect("write");
            reset(backend);
            let mut seen = Vec::new();
            let error = within("the end", client.read_to_end(&mut seen))
                .await
                .expect_err("no close_notify");
            assert!(seen == bytes, "round {round}: {} bytes", seen.len());
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "round {round}"
            );
        } else {
            reset(client.into_inner().0);
            assert_eq!(
                read_to_ending(&mut backend).await,
                (vec![], Ending::Rst),
                "round {round}"
            );
        }
    }
}

#[tokio::test]
async fn over_tls_an_end_without_close_notify_is_a_truncation() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let (mut client, mut backend) = bench.tls().await;
        let bytes = sequence(round, 1 + length(round));
        client.write_all(&bytes).await.expect("write");
        client.flush().await.expect("flush");
        // The TCP stream ends, the TLS session did not.
        let (mut raw, _) = client.into_inner();
        raw.shutdown().await.expect("shut down");
        let seen = read_to_ending(&mut backend).await;
        assert!(
            seen == (bytes, Ending::Rst),
            "round {round}: {} bytes, {:?}",
            seen.0.len(),
            seen.1
        );
    }
}

#[tokio::test]
async fn a_half_closed_session_ends_after_its_fin_timeout() {
    let (give, mut connections) = mpsc::unbounded_channel();
    let node = Node::scripted(move |stream, _| {
        let _ = give.send(stream);
        async {}
    })
    .await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "fin_timeout = \"1s\"",
            &[backend("n1", node.address)],
        );
    let balancer = Balancer::start(&config);
    let mut client = connect(balancer.address("main").await).await;
    let mut held = connections.recv().await.expect("the backend's side");
    client.shutdown().await.expect("shut down");
    assert_eq!(read_to_ending(&mut held).await, (vec![], Ending::Fin));
    // The backend says nothing and does not close.
    let (_, ending) = read_to_ending(&mut client).await;
    assert_eq!(
        ending,
        Ending::Rst,
        "cut by the balancer, which is no complete answer"
    );
}

#[tokio::test]
async fn a_session_ends_after_its_lifetime_whatever_moves() {
    let node = Node::echo("n1").await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "max_lifetime = \"1s\"",
            &[backend("n1", node.address)],
        );
    let balancer = Balancer::start(&config);
    let began = std::time::Instant::now();
    let (mut stream, _) = crate::clients::greeted(balancer.address("main").await).await;
    let echo = async {
        while stream.write_all(b"busy").await.is_ok() {
            if stream.read_exact(&mut [0; 4]).await.is_err() {
                return;
            }
        }
    };
    within("the end of its life", echo).await;
    let took = began.elapsed();
    assert!(took.as_millis() >= 900, "ended after {took:?}");
    let line = balancer
        .metric(&["evenkeel_listener_ends_total", "evenkeel", "timeout"])
        .await;
    assert_eq!(line, 1.0);
}

#[tokio::test]
async fn an_idle_session_ends_after_its_idle_timeout_and_a_busy_one_does_not() {
    let node = Node::echo("n1").await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "idle_timeout = \"1s\"",
            &[backend("n1", node.address)],
        );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut idle, _) = crate::clients::greeted(address).await;
    let (mut busy, _) = crate::clients::greeted(address).await;
    let began = std::time::Instant::now();
    let ended = read_to_ending(&mut idle);
    tokio::pin!(ended);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = &mut ended => break,
            _ = ticks.tick() => crate::clients::echoed(&mut busy, b"busy").await,
        }
    }
    let took = began.elapsed();
    assert!(took.as_millis() >= 900, "ended after {took:?}");
    crate::clients::echoed(&mut busy, b"still here").await;
}
