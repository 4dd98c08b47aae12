//! The relay over real sockets: what one side does, seen from the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::model::bench::{
    Bench, SessionEnd, TlsClient, guards, numbers, over, pair, policy, raw, tight_pair, tls_leg,
    wait_for,
};
use super::*;
use crate::config::Dial;
use crate::net::options::reset_on_close;
use crate::net::{ConnectError, Endpoint, Peer, begin_connect};
use crate::observe::ConnectionRecord;

mod close;
mod held;
mod moved;
mod refused;
mod resume;

const LONG: Duration = Duration::from_secs(20);
/// Between two looks at what has no event to wait for.
const LOOK: Duration = Duration::from_millis(3);

/// The outer ends of a relayed session, and a receiver that fails once its lease is dropped.
struct Ends {
    client: TcpStream,
    backend: TcpStream,
    lease: SessionEnd,
}

impl Bench {
    fn relayed(&self, policy: SessionLimits) -> Ends {
        let (client, inner_client) = pair();
        let (backend, inner_backend) = pair();
        let lease = self.adopt(raw(inner_client, &[]), raw(inner_backend, &[]), policy);
        Ends {
            client,
            backend,
            lease,
        }
    }
}

fn close_frame() -> Arc<CloseFrame> {
    Arc::new(CloseFrame::new(1012, "service restart"))
}

fn reset(stream: TcpStream) {
    reset_on_close(stream.as_fd());
}

/// Bytes up to the end, and how the end looked.
fn drain(mut stream: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).map(|_| ());
    (all, end)
}

#[test]
fn bytes_go_both_ways_and_a_fin_leaves_the_other_way_open() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    ends.client.write_all(b"question").unwrap();
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&ends.backend).0, b"question");
    let answer = numbers(3_000_000);
    let sending = {
        let answer = answer.clone();
        std::thread::spawn(move || {
            ends.backend.write_all(&answer).unwrap();
            // Dropped here: a FIN behind the last byte.
        })
    };
    let (read, end) = drain(&ends.client);
    sending.join().unwrap();
    assert!(end.is_ok() && read == answer);
    over(&ends.lease);
    assert_eq!(bench.ends(), ["client relay fin x1"]);
    assert_eq!(bench.relay.live(), 0);
}

#[test]
fn what_was_read_before_adoption_comes_first() {
    let bench = Bench::new();
    let ((mut client, inner_client), (mut backend, inner_backend)) = (pair(), pair());
    client.write_all(b" and more").unwrap();
    backend.write_all(b" world").unwrap();
    let lease = bench.adopt(
        raw(inner_client, b"early"),
        raw(inner_backend, b"hello"),
        policy(),
    );
    client.shutdown(Shutdown::Write).unwrap();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&client).0, b"hello world");
    assert_eq!(drain(&backend).0, b"early and more");
    over(&lease);
}

#[test]
fn a_reset_reaches_the_other_side_behind_the_bytes_before_it() {
    let bench = Bench::new();
    for length in [0, 1, 1000, 200_000] {
        let ends = bench.relayed(policy());
        let answer = numbers(length);
        let mut backend = ends.backend;
        let sent = answer.clone();
        let sending = std::thread::spawn(move || {
            backend.write_all(&sent).unwrap();
            // The client has it all before the reset is sent: a reset may overtake data on the wire
            // itself.
            let mut ready = [0];
            backend.read_exact(&mut ready).unwrap();
            reset(backend);
        });
        let mut client = ends.client;
        let mut read = vec![0; length];
        client.read_exact(&mut read).unwrap();
        client.write_all(b"!").unwrap();
        let (rest, end) = drain(&client);
        sending.join().unwrap();
        assert!(read == answer && rest.is_empty());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        over(&ends.lease);
    }
    assert_eq!(bench.ends(), ["backend relay rst x4"]);
}

#[test]
fn a_reset_behind_a_full_send_queue_waits_until_all_is_read() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    let mut backend = ends.backend;
    backend.set_nonblocking(true).unwrap();
    let bytes = numbers(1 << 20);
    let mut sent = 0;
    // Until every buffer on the way is full; what the relay has taken is to arrive.
    while let Ok(count) = backend.write(&bytes[sent % 4..]) {
        sent += count;
        if sent > 64 << 20 {
            break;
        }
    }
    while crate::net::options::unacknowledged_bytes(backend.as_fd()) > 0 && sent < 2 << 20 {
        std::thread::yield_now();
    }
    reset(backend);
    let (read, end) = drain(&ends.client);
    assert!(!read.is_empty());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    over(&ends.lease);
}

#[test]
fn an_idle_session_ends_at_its_timeout() {
    let bench = Bench::new();
    let ends = bench.relayed(SessionLimits {
        idle_timeout: Duration::from_millis(100),
        fin_timeout: LONG,
        max_lifetime: None,
    });
    assert!(drain(&ends.client).1.is_ok());
    over(&ends.lease);
    assert_eq!(bench.ends(), ["evenkeel relay timeout x1"]);
}

#[test]
fn a_half_closed_session_ends_at_the_fin_timeout_and_looks_cut_off() {
    let bench = Bench::new();
    let mut ends = bench.relayed(SessionLimits {
        idle_timeout: LONG,
        fin_timeout: Duration::from_millis(100),
        max_lifetime: None,
    });
    ends.client.write_all(b"q").unwrap();
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&ends.backend).0, b"q");
    let end = drain(&ends.client).1;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    over(&ends.lease);
}

#[test]
fn a_slow_reader_of_a_finished_answer_is_not_cut_off() {
    let bench = Bench::new();
    // Forty times what lies between two reads.
    let fin_timeout = Duration::from_secs(2);
    let mut ends = bench.relayed(SessionLimits {
        idle_timeout: LONG,
        fin_timeout,
        max_lifetime: None,
    });
    // A small window keeps the answer in the relay's send queue.
    socket2::SockRef::from(&ends.client)
        .set_recv_buffer_size(64 * 1024)
        .unwrap();
    let answer = numbers(1_500_000);
    ends.backend.write_all(&answer).unwrap();
    drop(ends.backend);
    let begun = Instant::now();
    let (_never, pace) = channel::<()>();
    let mut read = Vec::new();
    let mut buffer = vec![0; 15 * 1024];
    loop {
        // Slower than the timeout as a whole, with progress within each.
        let _ = pace.recv_timeout(Duration::from_millis(50));
        match ends.client.read(&mut buffer).unwrap() {
            0 => break,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
    assert!(read == answer, "{} of {}", read.len(), answer.len());
    assert!(begun.elapsed() > 2 * fin_timeout, "not slow at all");
    drop(ends.client);
    over(&ends.lease);
}

/// Once a lifetime that was over kept the `fin_timeout` from being looked at.
#[test]
fn a_reset_waits_for_its_queue_no_longer_than_the_fin_timeout_whatever_the_lifetime() {
    let bench = Bench::new();
    let mut ends = bench.relayed(SessionLimits {
        idle_timeout: LONG,
        fin_timeout: Duration::from_millis(300),
        max_lifetime: Some(Duration::from_millis(500)),
    });
    // A small window keeps the answer in the relay's send queue.
    socket2::SockRef::from(&ends.client)
        .set_recv_buffer_size(64 * 1024)
        .unwrap();
    ends.backend.write_all(&numbers(1_000_000)).unwrap();
    reset(ends.backend);
    assert!(ends.lease.comes_within(LONG / 2));
}

#[test]
fn an_answer_cut_short_by_our_own_close_ends_with_a_reset() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    ends.backend.set_nonblocking(true).unwrap();
    let block = numbers(1 << 20);
    let mut sent = 0;
    // Until every buffer on the way is full.
    while let Ok(count) = ends.backend.write(&block) {
        sent += count;
    }
    assert!(sent > 0);
    assert_eq!(
        block_on(bench.relay.close(Filter::default(), &close_frame())),
        1
    );
    over(&ends.lease);
    let (_, end) = drain(&ends.client);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_quiet_session_is_closed_with_a_fin() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    ends.client.write_all(b"x").unwrap();
    ends.backend.read_exact(&mut [0]).unwrap();
    assert_eq!(
        block_on(bench.relay.close(Filter::default(), &close_frame())),
        1
    );
    assert!(drain(&ends.client).1.is_ok());
    assert!(drain(&ends.backend).1.is_ok());
    over(&ends.lease);
}

#[test]
fn closing_all_is_spread_over_its_time() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..10).map(|_| bench.relayed(policy())).collect();
    let begun = Instant::now();
    bench
        .relay
        .close_all_within(Duration::from_millis(300), &close_frame());
    let mut ended: Vec<_> = std::thread::scope(|scope| {
        let waiting: Vec<_> = sessions
            .into_iter()
            .map(|ends: Ends| {
                scope.spawn(move || {
                    let (_open, lease) = ((ends.client, ends.backend), ends.lease);
                    over(&lease);
                    begun.elapsed()
                })
            })
            .collect();
        waiting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    ended.sort();
    assert!(ended[9] >= Duration::from_millis(250), "{ended:?}");
    assert!(ended[4] >= Duration::from_millis(90), "{ended:?}");
}

/// Nine would still live if all were closed at the end of the time, or all ten be gone if at its
/// beginning.
#[test]
fn closing_all_begins_at_once_with_one() {
    let bench = Bench::new();
    let patient = || SessionLimits {
        idle_timeout: 100 * LONG,
        ..policy()
    };
    let _sessions: Vec<_> = (0..10).map(|_| bench.relayed(patient())).collect();
    bench.relay.close_all_within(100 * LONG, &close_frame());
    let begun = Instant::now();
    while bench.relay.live() == 10 {
        assert!(begun.elapsed() < LONG, "none was closed");
        std::thread::park_timeout(LOOK);
    }
    assert_eq!(bench.relay.live(), 9);
}

#[test]
fn shutdown_ends_what_is_left() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    bench.relay.shutdown();
    over(&ends.lease);
    assert_eq!(bench.ends(), ["evenkeel relay stop x1"]);
}

/// Gives the client that comes back to a receiver, with the reason.
struct Returning(Sender<(super::SocketHandoff, ConnectFailure)>);

impl ConnectHandler for Returning {
    fn connect_timeout(&self) -> Duration {
        LONG
    }

    fn gives_up(&mut self) -> bool {
        true
    }

    fn connected(&mut self, record: &mut ConnectionRecord) {
        record.opened();
    }

    fn served(&self) {}

    fn has_other(&self) -> bool {
        true
    }

    fn failed(
        self: Box<Self>,
        why: ConnectFailure,
        client: super::SocketHandoff,
        _record: ConnectionRecord,
        _guards: SessionGuards,
    ) {
        let _ = self.0.send((client, why));
    }
}

/// A session whose client comes back through the receiver when its backend does not serve.
fn returning(bench: &Bench) -> (Ends, Receiver<(super::SocketHandoff, ConnectFailure)>) {
    let (backend, inner_backend) = pair();
    let (client, lease, given) = returning_to(bench, inner_backend.into(), false);
    let ends = Ends {
        client,
        backend,
        lease,
    };
    (ends, given)
}

fn returning_to(
    bench: &Bench,
    backend: OwnedFd,
    connecting: bool,
) -> (
    TcpStream,
    SessionEnd,
    Receiver<(super::SocketHandoff, ConnectFailure)>,
) {
    let (client, inner_client) = pair();
    let (guards, lease) = guards();
    let (give, given) = channel();
    let peer = Peer::tcp("192.0.2.1:1".parse().unwrap());
    bench.relay.adopt(NewSession {
        client: raw(inner_client, &[]),
        backend: super::SocketHandoff {
            socket: backend,
            transport: Transport::Raw,
            read: Vec::new(),
        },
        framing: Framing::Bytes,
        connecting,
        limits: policy(),
        record: ConnectionRecord::new(&bench.counters, peer),
        guards,
        connect_handler: Some(Box::new(Returning(give))),
        resume_policy: None,
    });
    (client, lease, given)
}

#[test]
fn a_backend_that_finishes_untouched_gives_the_client_back_and_after_a_byte_it_does_not() {
    let bench = Bench::new();
    let (mut ends, given) = returning(&bench);
    drop(ends.backend);
    let (client, why) = given.recv_timeout(LONG).unwrap();
    assert!(matches!(why, ConnectFailure::Fin), "{why:?}");
    let (mut other, inner_other) = pair();
    let _lease = bench.adopt(client, raw(inner_other, &[]), policy());
    ends.client.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    drop(other);
    assert_eq!(drain(&ends.client).0, b"");
    let (ends, given) = returning(&bench);
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&ends.backend).0, b"");
    drop(ends.backend);
    assert!(drain(&ends.client).1.is_ok(), "both have finished");
    over(&ends.lease);
    assert!(given.try_recv().is_err());
}

#[test]
fn a_session_adopted_while_connecting_is_relayed_once_it_is_connected() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
    let socket = begin_connect(&endpoint, &Dial::default()).unwrap();
    let (mut client, lease, _given) = returning_to(&bench, socket, true);
    client.write_all(b"hello").unwrap();
    let (mut backend, _) = listener.accept().unwrap();
    let mut read = [0; 5];
    backend.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");
    drop((client, backend));
    over(&lease);
}

#[test]
fn a_client_whose_backend_refuses_the_connect_comes_back() {
    let bench = Bench::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(free.local_addr().unwrap());
    drop(free);
    let Ok(socket) = begin_connect(&endpoint, &Dial::default()) else {
        return;
    };
    let (_client, _lease, given) = returning_to(&bench, socket, true);
    let (_, why) = given.recv_timeout(LONG).unwrap();
    assert!(
        matches!(&why, ConnectFailure::Connect(error) if !error.is_ours()),
        "{why:?}"
    );
    assert_eq!(bench.relay.live(), 0);
}

#[test]
fn an_overdue_connect_is_abandoned_and_its_client_comes_back() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Takes no packet, as a network that drops them.
    let dropping = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    let socket = socket2::SockRef::from(&listener);
    socket.attach_filter(&dropping).unwrap();
    let address = listener.local_addr().unwrap();
    let socket = begin_connect(&Endpoint::Tcp(address), &Dial::default()).unwrap();
    let (mut client, _lease, given) = returning_to(&bench, socket, true);
    client.write_all(b"hello").unwrap();
    let (returned, why) = given.recv_timeout(LONG).unwrap();
    assert!(
        matches!(why, ConnectFailure::Connect(ConnectError::TimedOut(_))),
        "{why:?}"
    );
    let mut read = [0; 5];
    TcpStream::from(returned.socket)
        .read_exact(&mut read)
        .unwrap();
    assert_eq!(&read, b"hello", "a byte of it was taken");
    socket2::SockRef::from(&listener).detach_filter().unwrap();
    let next = TcpStream::connect(address).unwrap();
    let (_, first) = listener.accept().unwrap();
    assert_eq!(first, next.local_addr().unwrap(), "a phantom came");
}

/// A server's frame of so many bytes of payload.
fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match length {
        0..=125 => frame.push(length as u8),
        126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(numbers(length));
    frame
}

#[test]
fn frames_are_followed_through_bulk_that_nobody_looks_at() {
    let bench = Bench::new();
    let ((client, inner_client), (mut backend, inner_backend)) = (pair(), pair());
    let (guards, lease) = guards();
    // Small ones between large ones: what goes through a pipe must end within a payload.
    let sizes = [
        3_000_000, 10, 0, 126, 5_000_000, 70_000, 125, 65_536, 2_000_000,
    ];
    let mut sent: Vec<u8> = sizes.into_iter().flat_map(frame).collect();
    bench.relay.adopt(NewSession {
        client: raw(inner_client, &[]),
        backend: raw(inner_backend, &frame(1000)[..500]),
        framing: Framing::WebSocket(FramePolicy::default()),
        connecting: false,
        limits: policy(),
        record: ConnectionRecord::new(&bench.counters, Peer::Unix),
        guards,
        connect_handler: None,
        resume_policy: None,
    });
    sent.splice(0..0, frame(1000)[500..].iter().copied());
    let count = |bench: &Bench| bench.counters.lost_frames.load(Ordering::Relaxed);
    let expected = [&frame(1000)[..500], &sent].concat();
    let sending = std::thread::spawn(move || {
        backend.write_all(&sent).unwrap();
        backend
    });
    let mut read = vec![0; expected.len()];
    (&client).read_exact(&mut read).unwrap();
    assert!(read == expected);
    assert_eq!(count(&bench), 0);
    let mut backend = sending.join().unwrap();
    backend.write_all(&[0x8f, 0]).unwrap();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&client).0, [0x8f, 0]);
    drop((client, backend));
    over(&lease);
    assert_eq!(count(&bench), 1);
}

/// A FIN is no byte: the time of what is left was counted from the last byte, and was over.
#[test]
fn a_half_close_after_a_long_silence_leaves_time_for_the_answer() {
    let bench = Bench::new();
    let fin_timeout = Duration::from_secs(4);
    let mut ends = bench.relayed(SessionLimits {
        idle_timeout: LONG,
        fin_timeout,
        max_lifetime: None,
    });
    ends.client.write_all(b"q").unwrap();
    ends.backend.read_exact(&mut [0]).unwrap();
    let listed = || block_on(bench.relay.list(Filter::default(), Cursor::default(), 1));
    while listed().connections[0].idle <= fin_timeout {
        std::thread::park_timeout(LOOK);
    }
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&ends.backend).0, b"");
    // Several sweeps, and far less than the timeout.
    let heard = Instant::now();
    while heard.elapsed() < fin_timeout / 10 {
        std::thread::park_timeout(LOOK);
    }
    ends.backend.write_all(b"answer").unwrap();
    drop(ends.backend);
    let (read, end) = drain(&ends.client);
    assert_eq!((read.as_slice(), end.is_ok()), (&b"answer"[..], true));
}

/// A read stops short before an urgent byte, and what was behind it lay there.
#[test]
fn an_urgent_byte_does_not_hold_up_what_is_behind_it() {
    let bench = Bench::new();
    let ((mut client, inner_client), (mut backend, inner_backend)) = (pair(), pair());
    client.write_all(b"abc").unwrap();
    socket2::SockRef::from(&client)
        .send_out_of_band(b"!")
        .unwrap();
    client.write_all(b"def").unwrap();
    let _lease = bench.adopt(raw(inner_client, &[]), raw(inner_backend, &[]), policy());
    let mut read = [0; 6];
    backend.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"abcdef");
}

/// `splice` gives 0 before an urgent byte with a FIN behind it: that was taken for the end.
#[test]
fn bulk_with_an_urgent_byte_arrives_whole() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    let (head, tail) = (numbers(4_000_000), numbers(100_000));
    let expected = [&head[..], &tail].concat();
    let mut backend = ends.backend;
    let sending = std::thread::spawn(move || {
        backend.write_all(&head).unwrap();
        socket2::SockRef::from(&backend)
            .send_out_of_band(b"!")
            .unwrap();
        backend.write_all(&tail).unwrap();
        backend.shutdown(Shutdown::Write).unwrap();
        backend
    });
    let (read, end) = drain(&ends.client);
    sending.join().unwrap();
    assert!(read == expected && end.is_ok(), "{} bytes", read.len());
}

/// A banner and a reset behind it were taken for a failed connect.
#[test]
fn what_a_backend_says_before_its_reset_is_delivered_though_it_was_only_just_connected() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = begin_connect(
        &Endpoint::Tcp(listener.local_addr().unwrap()),
        &Dial::default(),
    )
    .unwrap();
    let (mut backend, _) = listener.accept().unwrap();
    backend.write_all(b"busy").unwrap();
    reset(backend);
    let (client, lease, _given) = returning_to(&bench, socket, true);
    let (read, end) = drain(&client);
    assert_eq!((read.as_slice(), end.is_err()), (&b"busy"[..], true));
    over(&lease);
}

/// A TLS leg takes no more than a scratch at a time; the rest waited for an event that never came.
#[test]
fn much_that_was_read_before_adoption_reaches_a_tls_client() {
    let bench = Bench::new();
    let (leg, mut client) = tls_leg(&rustls::version::TLS13, b"x");
    let (_backend, inner_backend) = pair();
    let sent = numbers(200_000);
    let _lease = bench.adopt(leg, raw(inner_backend, &sent), policy());
    let mut read = vec![0; sent.len()];
    client.read_exact(&mut read).unwrap();
    assert!(read == sent);
}

/// Counts the calls of its listener, and keeps no connection.
#[derive(Default)]
struct Front {
    lost: AtomicU64,
    paused: AtomicU64,
}

impl OnAccept for Front {
    fn reserve(&self, _anyway: bool) -> bool {
        true
    }

    fn unreserve(&self) {}

    fn accepted(&self, _socket: OwnedFd, _peer: Peer) -> Accepted {
        Accepted::Elsewhere
    }

    fn paused(&self, _why: Option<io::Error>) {
        self.paused.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, _error: io::Error) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Once the worker went round in the listener's accept for ever.
#[test]
fn an_accept_that_fails_for_good_pauses_the_door_and_holds_up_no_session() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    let front = Arc::new(Front::default());
    let listening = bench.relay.listen(listener.into(), front.clone());
    ends.client.write_all(b"x").unwrap();
    ends.backend.read_exact(&mut [0]).unwrap();
    let calls = || {
        let (lost, paused) = (&front.lost, &front.paused);
        (lost.load(Ordering::Relaxed), paused.load(Ordering::Relaxed))
    };
    while calls().1 == 0 {
        std::thread::yield_now();
    }
    block_on(listening.close(5));
    assert_eq!(calls(), (0, 1));
}

/// Whoever asked waited for ever.
#[test]
fn a_question_to_a_stopped_relay_is_answered() {
    let bench = Bench::new();
    let _ends = bench.relayed(policy());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listening = bench
        .relay
        .listen(listener.into(), Arc::new(Front::default()));
    bench.relay.shutdown();
    block_on(listening.close(5));
    let page = block_on(bench.relay.list(Filter::default(), Cursor::default(), 7));
    assert!(page.connections.is_empty());
}

/// The client address whose sessions panic in their turn, once a byte has come.
const CURSED: &str = "192.0.2.66:6";

/// Injected into every turn of the tests' relays.
pub(super) fn panic_if_asked(record: &ConnectionRecord) {
    let is_cursed = record.client.to_string() == CURSED;
    assert!(!is_cursed || record.bytes_from_client == 0, "injected");
}

#[test]
fn a_panic_in_one_session_ends_that_session_alone() {
    let bench = Bench::new();
    let mut well = bench.relayed(policy());
    let ((mut client, inner_client), (mut backend, inner_backend)) = (pair(), pair());
    let peer = Peer::tcp(CURSED.parse().unwrap());
    let (legs, given_up) = ((raw(inner_client, &[]), raw(inner_backend, &[])), guards());
    bench.relay.adopt(NewSession {
        client: legs.0,
        backend: legs.1,
        framing: Framing::Bytes,
        connecting: false,
        limits: policy(),
        record: ConnectionRecord::new(&bench.counters, peer),
        guards: given_up.0,
        connect_handler: None,
        resume_policy: None,
    });
    client.write_all(b"x").unwrap();
    backend.read_exact(&mut [0]).unwrap();
    // The second turn finds the byte counted.
    let _ = client.write_all(b"y");
    over(&given_up.1);
    assert!(drain(&backend).1.is_err(), "reset");
    well.client.write_all(b"z").unwrap();
    well.backend.read_exact(&mut [0]).unwrap();
    assert_eq!(bench.ends(), ["evenkeel relay panic x1"]);
    assert_eq!(bench.relay.live(), 1);
}

/// Each direction waited for the other's peer to take what it had been sent, which a peer that is
/// gone never does.
#[test]
fn two_resets_end_a_session_that_waits_for_room() {
    let bench = Bench::with_max_held(0);
    let ((client, inner_client), (backend, inner_backend)) = (tight_pair(), tight_pair());
    let patient = SessionLimits {
        fin_timeout: 10 * LONG,
        ..policy()
    };
    let lease = bench.adopt(raw(inner_client, &[]), raw(inner_backend, &[]), patient);
    for outer in [&client, &backend] {
        outer.set_nonblocking(true).unwrap();
    }
    let block = vec![7; 64 * 1024];
    // Until the kernel's queues before and behind the relay are full both ways.
    let mut idle_rounds = 0;
    while idle_rounds < 200 {
        let count = (&client).write(&block).unwrap_or(0) + (&backend).write(&block).unwrap_or(0);
        idle_rounds = match count {
            0 => idle_rounds + 1,
            _ => 0,
        };
        std::thread::yield_now();
    }
    reset(client);
    reset(backend);
    over(&lease);
}

#[test]
fn a_client_whose_backend_resets_untouched_comes_back_and_is_served_by_another() {
    let bench = Bench::new();
    let (mut ends, given) = returning(&bench);
    reset(ends.backend);
    let (client, why) = given.recv_timeout(LONG).unwrap();
    assert!(matches!(why, ConnectFailure::Reset), "{why:?}");
    over(&ends.lease);
    let (mut other, inner_other) = pair();
    let lease = bench.adopt(client, raw(inner_other, &[]), policy());
    ends.client.write_all(b"hello").unwrap();
    let mut read = [0; 5];
    other.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"hello");
    drop((ends.client, other));
    over(&lease);
}

#[test]
fn a_client_whose_backend_resets_after_a_byte_is_reset() {
    let bench = Bench::new();
    for from_client in [true, false] {
        let (mut ends, given) = returning(&bench);
        let (one, other) = if from_client {
            (&mut ends.client, &mut ends.backend)
        } else {
            (&mut ends.backend, &mut ends.client)
        };
        one.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
        reset(ends.backend);
        let end = drain(&ends.client).1;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        over(&ends.lease);
        assert!(given.try_recv().is_err());
    }
}

/// A runtime for the questions to the relay.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn every_live_session_is_listed_once_whatever_the_page() {
    let bench = Bench::new();
    let sessions: Vec<_> = (0..25).map(|_| bench.relayed(policy())).collect();
    let mut ids = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = block_on(bench.relay.list(Filter::default(), cursor, 7));
        assert!(page.connections.len() <= 7);
        ids.extend(page.connections.iter().map(|one| one.summary.id));
        from = page.next.map(|next| Cursor::from_number(next.to_number()));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), sessions.len());
}

/// The slot behind the last number was computed, which a build with overflow checks took for a
/// defect of its own.
#[test]
fn a_cursor_behind_the_table_is_an_empty_page() {
    let bench = Bench::new();
    let _session = bench.relayed(policy());
    for number in [u64::from(u32::MAX), u64::MAX] {
        let page = block_on(
            bench
                .relay
                .list(Filter::default(), Cursor::from_number(number), 7),
        );
        assert!(page.connections.is_empty() && page.next.is_none());
    }
    let all = block_on(bench.relay.list(Filter::default(), Cursor::default(), 7));
    assert_eq!(all.connections.len(), 1);
}

#[test]
fn closing_by_id_ends_that_session_alone() {
    let bench = Bench::new();
    let (one, other) = (bench.relayed(policy()), bench.relayed(policy()));
    let page = block_on(bench.relay.list(Filter::default(), Cursor::default(), 10));
    let first = page.connections.iter().map(|one| one.summary.id).min();
    let filter = Filter {
        id: first,
        ..Filter::default()
    };
    assert_eq!(
        block_on(bench.relay.close(filter.clone(), &close_frame())),
        1
    );
    over(&one.lease);
    assert_eq!(block_on(bench.relay.close(filter, &close_frame())), 0);
    assert_eq!(bench.relay.live(), 1);
    let outside = Filter {
        client: Some("10.0.0.0/8".parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(block_on(bench.relay.close(outside, &close_frame())), 0);
    let inside = Filter {
        client: Some("192.0.2.0/24".parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(block_on(bench.relay.close(inside, &close_frame())), 1);
    over(&other.lease);
}

/// A session whose client's TLS ends in the relay.
fn tls_session(
    bench: &Bench,
    version: &'static rustls::SupportedProtocolVersion,
    early: &[u8],
) -> (TlsClient, TcpStream, SessionEnd) {
    let (leg, client) = tls_leg(version, early);
    let (backend, inner_backend) = pair();
    let lease = bench.adopt(leg, raw(inner_backend, b"hi "), policy());
    (client, backend, lease)
}

#[test]
fn tls_ends_on_the_backends_leg_as_well() {
    let bench = Bench::new();
    for version in VERSIONS {
        let (leg, mut far) = tls_leg(version, b"early");
        let (mut client, inner_client) = pair();
        let lease = bench.adopt(raw(inner_client, b"hello"), leg, policy());
        let mut read = [0; 5];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"early");
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        // The client's FIN has become a close_notify.
        assert!(drain(&mut far).1.is_ok());
        far.conn.send_close_notify();
        far.flush().unwrap();
        assert!(drain(&client).1.is_ok());
        over(&lease);
    }
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn a_tls_leg_loses_nothing_around_its_adoption() {
    for version in VERSIONS {
        for length in [0, 1, 500, 20_000, 60_000] {
            let bench = Bench::new();
            let early = numbers(length);
            let (mut client, mut backend, lease) = tls_session(&bench, version, &early);
            let mut read = vec![0; length];
            backend.read_exact(&mut read).unwrap();
            assert!(read == early);
            backend.write_all(b"there").unwrap();
            let mut hello = [0; 8];
            client.read_exact(&mut hello).unwrap();
            assert_eq!(&hello, b"hi there");
            client.conn.send_close_notify();
            client.flush().unwrap();
            assert!(drain(&backend).1.is_ok());
            drop(backend);
            assert_eq!(drain(&mut client).1.map_err(|error| error.kind()), Ok(()));
            over(&lease);
            assert_eq!(bench.ends(), ["client relay fin x1"]);
        }
    }
}

#[test]
fn a_tls_end_without_close_notify_is_a_reset() {
    for version in VERSIONS {
        let bench = Bench::new();
        let (client, mut backend, lease) = tls_session(&bench, version, b"x");
        backend.read_exact(&mut [0]).unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(
            drain(&backend).1.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        over(&lease);
        assert_eq!(bench.ends(), ["client relay rst x1"]);
    }
}

#[test]
fn a_backend_reset_never_becomes_a_close_notify() {
    let bench = Bench::new();
    let (mut client, mut backend, lease) = tls_session(&bench, &rustls::version::TLS13, b"x");
    backend.read_exact(&mut [0]).unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    reset(backend);
    assert_eq!(
        drain(&mut client).1.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    over(&lease);
}

#[test]
fn bulk_through_tls_is_byte_exact_both_ways_with_key_updates() {
    let bench = Bench::new();
    let (mut client, backend, lease) = tls_session(&bench, &rustls::version::TLS13, b"");
    client.read_exact(&mut [0; 3]).unwrap();
    let echo = std::thread::spawn(move || io::copy(&mut &backend, &mut &backend));
    let block = numbers(40_000);
    for round in 0..100 {
        if round % 7 == 0 {
            client.conn.refresh_traffic_keys().unwrap();
        }
        client.write_all(&block).unwrap();
        let mut back = vec![0; block.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == block, "round {round}");
    }
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(echo.join().unwrap().unwrap(), 4_000_000);
    assert!(drain(&mut client).1.is_ok());
    over(&lease);
}
