//! WebSockets that are ended by our own decision and kept alive, as independent peers see it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message, WebSocket};

use super::*;

pub(super) type Peer = WebSocket<TcpStream>;

/// All that a peer has read: the messages, and the code and reason of the Close.
pub(super) type Heard = (Vec<Message>, Option<(u16, String)>);

/// The outer ends of a relayed WebSocket.
pub(super) struct Tunnel {
    pub client: TcpStream,
    pub backend: TcpStream,
    pub lease: SessionEnd,
}

pub(super) fn tunnel(bench: &Bench, watched: FramePolicy, policy: SessionLimits) -> Tunnel {
    tunnel_with(bench, watched, policy, &[])
}

/// `early`: what the client sent along with its handshake.
pub(super) fn tunnel_with(
    bench: &Bench,
    watched: FramePolicy,
    policy: SessionLimits,
    early: &[u8],
) -> Tunnel {
    let ((client, inner_client), (backend, inner_backend)) = (pair(), pair());
    let (guards, lease) = guards();
    bench.relay.adopt(NewSession {
        client: raw(inner_client, early),
        backend: raw(inner_backend, &[]),
        limits: policy,
        framing: Framing::WebSocket(watched),
        connecting: false,
        record: ConnectionRecord::new(
            &bench.counters,
            crate::net::Peer::tcp("192.0.2.1:1".parse().unwrap()),
        ),
        guards,
        connect_handler: None,
        resume_policy: None,
    });
    Tunnel {
        client,
        backend,
        lease,
    }
}

fn peer(stream: TcpStream, role: Role) -> Peer {
    let any_size = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    WebSocket::from_raw_socket(stream, role, Some(any_size))
}

impl Tunnel {
    pub fn peers(self) -> (Peer, Peer, SessionEnd) {
        let (client, backend) = (self.client, self.backend);
        (
            peer(client, Role::Client),
            peer(backend, Role::Server),
            self.lease,
        )
    }
}

/// Reads to the end, answering as the protocol wants.
pub(super) fn read_out(peer: &mut Peer) -> Heard {
    let (mut messages, mut code) = (Vec::new(), None);
    loop {
        match peer.read() {
            Ok(Message::Close(frame)) => {
                code = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
            }
            Ok(message) => messages.push(message),
            Err(_) => return (messages, code),
        }
    }
}

pub(super) fn both_out(client: &mut Peer, backend: &mut Peer) -> [Heard; 2] {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| read_out(client));
        let backend = read_out(backend);
        [client.join().unwrap(), backend]
    })
}

fn close_all(bench: &Bench) {
    bench.relay.close_all_within(Duration::ZERO, &close_frame());
}

fn restart() -> Option<(u16, String)> {
    Some((1012, "service restart".to_owned()))
}

/// For legs that answer, however late a busy machine lets them.
const PATIENT: Duration = LONG;
/// For a leg that never answers.
const BRIEF: Duration = Duration::from_millis(600);

fn ping(client: bool, backend: bool, timeout: Duration) -> FramePolicy {
    FramePolicy {
        ping: Some(crate::config::Ping {
            interval: Duration::from_millis(50),
            timeout,
            client,
            backend,
        }),
        ..FramePolicy::default()
    }
}

#[test]
fn both_sides_are_told_and_their_answers_heard() {
    let bench = Bench::new();
    let (mut client, mut backend, lease) = tunnel(&bench, FramePolicy::default(), policy()).peers();
    client.send(Message::text("hello")).unwrap();
    assert_eq!(backend.read().unwrap(), Message::text("hello"));
    close_all(&bench);
    let [client, backend] = both_out(&mut client, &mut backend);
    assert_eq!(
        (client, backend),
        ((vec![], restart()), (vec![], restart()))
    );
    over(&lease);
    assert_eq!(bench.ends(), ["evenkeel relay stop x1"]);
    assert_eq!(bench.counters.without_close.load(Ordering::Relaxed), 0);
}

#[test]
fn a_frame_under_way_is_finished_before_the_close() {
    let bench = Bench::new();
    let tunnel = tunnel(&bench, FramePolicy::default(), policy());
    let mut raw_backend = tunnel.backend.try_clone().unwrap();
    let (mut client, mut backend, lease) = tunnel.peers();
    let payload = numbers(60_000);
    let mut head = vec![0x82, 126];
    head.extend_from_slice(&(60_000u16).to_be_bytes());
    raw_backend.write_all(&head).unwrap();
    raw_backend.write_all(&payload[..30_000]).unwrap();
    // It is under way once the client has some of it.
    let mut first = [0; 4];
    while client.get_ref().peek(&mut first).unwrap() < 4 {}
    close_all(&bench);
    // The other direction stands at a boundary: the backend gets its Close at once, and still
    // finishes its frame before it answers.
    while backend.get_ref().peek(&mut first).unwrap() == 0 {}
    raw_backend.write_all(&payload[30_000..]).unwrap();
    let heard = std::thread::spawn(move || read_out(&mut backend));
    let (messages, code) = read_out(&mut client);
    assert_eq!(messages, [Message::binary(payload)]);
    assert_eq!(code, restart());
    // Bytes that it sends behind our Close reach nobody.
    assert_eq!(heard.join().unwrap(), (vec![], restart()));
    over(&lease);
}

#[test]
fn a_frame_that_does_not_end_is_cut_off_and_counted() {
    let bench = Bench::new();
    let tunnel = tunnel(&bench, FramePolicy::default(), policy());
    let (mut client, mut backend) = (tunnel.client, tunnel.backend);
    backend.write_all(&[0x82, 100, 1, 2, 3]).unwrap();
    let mut begun = [0; 5];
    client.read_exact(&mut begun).unwrap();
    close_all(&bench);
    // The backend gets its Close at once; the client's frame is cut, which must not look complete.
    let mut close = [0; 23];
    backend.read_exact(&mut close).unwrap();
    assert_eq!(close[..2], [0x88, 0x80 | 17]);
    let end = client.read(&mut begun);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    over(&tunnel.lease);
    assert_eq!(bench.ends(), ["evenkeel relay stop x1"]);
    assert_eq!(bench.counters.without_close.load(Ordering::Relaxed), 1);
}

#[test]
fn a_peer_that_does_not_answer_is_left_after_a_while() {
    let bench = Bench::new();
    let tunnel = tunnel(&bench, FramePolicy::default(), policy());
    let begun = Instant::now();
    close_all(&bench);
    // Both read and neither answers.
    let (mut client, backend) = (tunnel.client, tunnel.backend);
    let mut frame = [0; 19];
    client.read_exact(&mut frame).unwrap();
    assert_eq!(frame[..4], [0x88, 17, 3, 0xf4]);
    assert!(drain(&client).1.is_ok());
    assert!(drain(&backend).1.is_ok());
    over(&tunnel.lease);
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert_eq!(bench.counters.without_close.load(Ordering::Relaxed), 0);
}

#[test]
fn our_pings_are_answered_and_seen_by_nobody_else() {
    let bench = Bench::new();
    let (mut client, mut backend, lease) =
        tunnel(&bench, ping(true, true, PATIENT), policy()).peers();
    // Each side's own pongs pass.
    client
        .send(Message::Pong(Bytes::from_static(b"12345678")))
        .unwrap();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let pinged = scope.spawn(|| {
            let mut pings = 0;
            while pings < 3 {
                pings += u32::from(client.read().unwrap().is_ping());
            }
            client.send(Message::text("done")).unwrap();
        });
        loop {
            match backend.read().unwrap() {
                Message::Text(_) => break,
                message if message.is_ping() => {}
                message => seen.push(message),
            }
        }
        pinged.join().unwrap();
    });
    assert_eq!(seen, [Message::Pong(Bytes::from_static(b"12345678"))]);
    drop((client, backend));
    over(&lease);
}

#[test]
fn a_silent_client_is_dead_and_the_backend_gets_a_close() {
    let bench = Bench::new();
    // Only its own leg is pinged: a backend that answers late is no part of this.
    let tunnel = tunnel(&bench, ping(true, false, BRIEF), policy());
    let (messages, code) = read_out(&mut peer(tunnel.backend, Role::Server));
    assert_eq!((messages, code), (vec![], Some((1001, String::new()))));
    over(&tunnel.lease);
    assert_eq!(bench.ends(), ["client relay timeout x1"]);
}

#[test]
fn a_silent_backend_is_dead_and_the_client_gets_a_close() {
    let bench = Bench::new();
    let tunnel = tunnel(&bench, ping(false, true, BRIEF), policy());
    let (messages, code) = read_out(&mut peer(tunnel.client, Role::Client));
    assert_eq!((messages, code), (vec![], Some((1011, String::new()))));
    over(&tunnel.lease);
    assert_eq!(bench.ends(), ["backend relay timeout x1"]);
}

#[test]
fn our_pings_do_not_keep_an_idle_session_alive() {
    let bench = Bench::new();
    // Some pings are sent and answered in it.
    let policy = SessionLimits {
        idle_timeout: Duration::from_secs(2),
        ..policy()
    };
    let watched = ping(true, true, PATIENT);
    let (mut client, mut backend, lease) = tunnel(&bench, watched, policy).peers();
    let heard = both_out(&mut client, &mut backend);
    let was_pinged = |(messages, _): &Heard| messages.iter().any(Message::is_ping);
    assert!(heard.iter().all(was_pinged), "{heard:?}");
    over(&lease);
    assert_eq!(bench.ends(), ["evenkeel relay timeout x1"]);
}

#[test]
fn pings_of_a_peer_are_no_activity_where_only_messages_are() {
    let bench = Bench::new();
    let policy = SessionLimits {
        idle_timeout: Duration::from_millis(400),
        ..policy()
    };
    let watched = FramePolicy {
        messages_only: true,
        ..FramePolicy::default()
    };
    let (mut client, mut backend, lease) = tunnel(&bench, watched, policy).peers();
    std::thread::scope(|scope| {
        scope.spawn(|| read_out(&mut backend));
        // As fast as they are answered.
        while client.send(Message::Ping(Bytes::new())).is_ok() && client.read().is_ok() {}
    });
    over(&lease);
    assert_eq!(bench.ends(), ["evenkeel relay timeout x1"]);
}

/// Once it was reset: its pong stood unread behind bytes that the other side did not take.
#[test]
fn a_leg_whose_answer_cannot_be_read_is_not_dead() {
    let bench = Bench::new();
    let ((client, inner_client), (backend, inner_backend)) = (tight_pair(), tight_pair());
    let (guards, lease) = guards();
    bench.relay.adopt(NewSession {
        client: raw(inner_client, &[]),
        backend: raw(inner_backend, &[]),
        limits: policy(),
        framing: Framing::WebSocket(ping(false, true, BRIEF)),
        connecting: false,
        record: ConnectionRecord::new(&bench.counters, crate::net::Peer::Unix),
        guards,
        connect_handler: None,
        resume_policy: None,
    });
    let mut backend = peer(backend, Role::Server);
    // Until every buffer on the way to the client is full.
    backend.get_ref().set_nonblocking(true).unwrap();
    while backend.send(Message::binary(numbers(60_000))).is_ok() {}
    backend.get_ref().set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        // It is pinged, and answers as soon as it can.
        scope.spawn(|| while backend.read().is_ok() {});
        assert!(!lease.comes_within(5 * BRIEF), "{:?}", bench.ends());
        drop(client);
    });
    over(&lease);
}

#[test]
fn a_session_whose_life_is_over_gets_a_close() {
    let bench = Bench::new();
    let policy = SessionLimits {
        max_lifetime: Some(Duration::from_millis(300)),
        ..policy()
    };
    let (mut client, mut backend, lease) = tunnel(&bench, FramePolicy::default(), policy).peers();
    let [client, backend] = both_out(&mut client, &mut backend);
    assert_eq!(
        (client.1, backend.1),
        (Some((1001, String::new())), Some((1001, String::new())))
    );
    over(&lease);
    assert_eq!(bench.ends(), ["evenkeel relay timeout x1"]);
}
