//! WebSockets whose client passes a bound or breaks the protocol, as both peers see it.

use std::io::{Read, Write};

use tokio_tungstenite::tungstenite::Message;

use super::close::{Tunnel, both_out, read_out, tunnel, tunnel_with};
use super::*;

#[test]
fn a_frame_too_big_is_refused_and_nothing_of_it_passes() {
    let bench = Bench::new();
    let bounds = FramePolicy {
        max_frame: Some(1000),
        ..FramePolicy::default()
    };
    let (mut client, mut backend, lease) = tunnel(&bench, bounds, policy()).peers();
    client.send(Message::binary(numbers(1000))).unwrap();
    client.send(Message::binary(numbers(1001))).unwrap();
    let [client, backend] = both_out(&mut client, &mut backend);
    let reason = "frame too big".to_owned();
    assert_eq!(client, (vec![], Some((1009, reason))));
    assert_eq!(backend.0, [Message::binary(numbers(1000))]);
    assert_eq!(backend.1, Some((1001, String::new())));
    over(&lease);
    assert_eq!(bench.ends(), ["client relay full x1"]);
}

#[test]
fn a_frame_too_big_that_came_with_the_handshake_is_refused_too() {
    let bench = Bench::new();
    let bounds = FramePolicy {
        max_frame: Some(1000),
        ..FramePolicy::default()
    };
    let early = [0x82, 0xfe, 0x10, 0, 1, 2, 3, 4, 5, 6];
    let (mut client, mut backend, lease) = tunnel_with(&bench, bounds, policy(), &early).peers();
    let [client, backend] = both_out(&mut client, &mut backend);
    assert_eq!(client.1.unwrap().0, 1009);
    assert_eq!((backend.0, backend.1.unwrap().0), (vec![], 1001));
    over(&lease);
}

#[test]
fn a_message_is_bounded_over_all_of_its_frames() {
    let bench = Bench::new();
    let bounds = FramePolicy {
        max_message: Some(100),
        ..FramePolicy::default()
    };
    let tunnel = tunnel(&bench, bounds, policy());
    let mut client = tunnel.client.try_clone().unwrap();
    // Two messages of 60 pass; one of 60 and 60 does not.
    let frame = |first: u8| [vec![first, 0x80 | 60, 0, 0, 0, 0], vec![7; 60]].concat();
    for first in [0x82, 0x82, 0x02, 0x80] {
        client.write_all(&frame(first)).unwrap();
    }
    let (mut client, mut backend, lease) = tunnel.peers();
    let [client, backend] = both_out(&mut client, &mut backend);
    assert_eq!(client.1, Some((1009, "message too big".to_owned())));
    assert_eq!(backend.0.len(), 2);
    over(&lease);
}

#[test]
fn a_flood_of_pings_is_ended() {
    let bench = Bench::new();
    let bounds = FramePolicy {
        max_pings: Some("5/m".parse().unwrap()),
        ..FramePolicy::default()
    };
    let (mut client, mut backend, lease) = tunnel(&bench, bounds, policy()).peers();
    for count in 0..6u8 {
        client.send(Message::Ping(vec![count].into())).unwrap();
        client.send(Message::text("hello")).unwrap();
    }
    let [client, backend] = both_out(&mut client, &mut backend);
    assert_eq!(client.1, Some((1008, "too many pings".to_owned())));
    let pings = backend.0.iter().filter(|message| message.is_ping()).count();
    assert_eq!(pings, 5);
    over(&lease);
}

#[test]
fn what_breaks_the_protocol_does_not_get_rid_of_its_bounds() {
    let bench = Bench::new();
    let bounds = FramePolicy {
        max_frame: Some(1000),
        ..FramePolicy::default()
    };
    let mut tunnel = tunnel(&bench, bounds, policy());
    // A length that is not in the fewest bytes, then a frame beyond the bound.
    tunnel
        .client
        .write_all(&[0x82, 0xfe, 0, 1, 0, 0, 0, 0, 7])
        .unwrap();
    let huge = [
        &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
        &[7; 65536],
    ]
    .concat();
    // It may be refused in the middle.
    let _ = tunnel.client.write_all(&huge);
    let mut close = [0; 4];
    tunnel.client.read_exact(&mut close).unwrap();
    assert_eq!(close[2..], 1002u16.to_be_bytes());
    let (passed, _) = drain(&tunnel.backend);
    assert!(passed.len() < huge.len(), "{}", passed.len());
    drop((tunnel.client, tunnel.backend));
    over(&tunnel.lease);
    assert_eq!(bench.ends(), ["client relay invalid x1"]);
}

/// A frame without a mask is refused: "a client MUST mask all frames".
const BROKEN: [u8; 4] = [0x82, 2, 1, 2];

fn bounded(bench: &Bench) -> Tunnel {
    let bounds = FramePolicy {
        max_frame: Some(1000),
        ..FramePolicy::default()
    };
    tunnel(bench, bounds, policy())
}

fn refused() -> Option<(u16, String)> {
    Some((1002, "protocol error".to_owned()))
}

/// They came behind the Close, and were thrown away.
#[test]
fn answers_to_what_came_before_a_broken_frame_stand_before_the_close() {
    let bench = Bench::new();
    let tunnel = bounded(&bench);
    let mut raw_client = tunnel.client.try_clone().unwrap();
    let (mut client, mut backend, lease) = tunnel.peers();
    client.send(Message::text("question")).unwrap();
    assert_eq!(backend.read().unwrap(), Message::text("question"));
    raw_client.write_all(&BROKEN).unwrap();
    let answering = std::thread::spawn(move || {
        // The client's fault is known by now, and in the record.
        while backend.get_ref().peek(&mut [0]).unwrap() == 0 {}
        for answer in ["one", "two", "three"] {
            backend.send(Message::text(answer)).unwrap();
        }
        read_out(&mut backend)
    });
    let (messages, code) = read_out(&mut client);
    assert_eq!(messages, ["one", "two", "three"].map(Message::text));
    assert_eq!(code, refused());
    let going_away = Some((1001, String::new()));
    assert_eq!(answering.join().unwrap(), (vec![], going_away));
    drop((client, raw_client));
    over(&lease);
    assert_eq!(bench.ends(), ["client relay invalid x1"]);
}

/// The part of its header that came first was passed on, and the backend was reset 5 s later.
#[test]
fn nothing_of_a_broken_frame_passes_however_it_comes() {
    let bench = Bench::new();
    let tunnel = bounded(&bench);
    let mut raw_client = tunnel.client.try_clone().unwrap();
    let (mut client, mut backend, lease) = tunnel.peers();
    client.send(Message::text("whole")).unwrap();
    assert_eq!(backend.read().unwrap(), Message::text("whole"));
    let heard = std::thread::spawn(move || read_out(&mut backend));
    for (place, byte) in BROKEN.into_iter().enumerate() {
        raw_client.write_all(&[byte]).unwrap();
        // Each comes by itself: the one before was taken.
        let acknowledged = || crate::net::options::unacknowledged_bytes(raw_client.as_fd()) == 0;
        while place == 0 && !acknowledged() {}
    }
    assert_eq!(read_out(&mut client), (vec![], refused()));
    let going_away = Some((1001, String::new()));
    assert_eq!(heard.join().unwrap(), (vec![], going_away));
    drop((client, raw_client));
    over(&lease);
}

/// Once the backend was kept for as long as the client's answer may take.
#[test]
fn a_backend_that_does_not_answer_is_let_go_before_its_client() {
    let bench = Bench::new();
    let mut tunnel = bounded(&bench);
    tunnel.client.write_all(&BROKEN).unwrap();
    let (read, end) = drain(&tunnel.backend);
    assert_eq!(read[..2], [0x88, 0x80 | 2]);
    assert!(end.is_ok());
    assert_eq!(bench.relay.live(), 1);
    drop(tunnel.client);
    over(&tunnel.lease);
}

/// Once a RST followed its Close, as bytes that it had sent were not read.
#[test]
fn a_client_that_goes_on_sending_hears_its_close_and_a_fin() {
    let bench = Bench::new();
    let mut tunnel = bounded(&bench);
    let mut client = tunnel.client.try_clone().unwrap();
    client.write_all(&BROKEN).unwrap();
    let junk = std::thread::spawn(move || client.write_all(&numbers(1 << 20)));
    let backend = std::thread::spawn(move || drain(&tunnel.backend));
    let (read, end) = drain(&mut tunnel.client);
    assert_eq!(read[..4], [0x88, 16, 0x03, 0xea]);
    assert!(end.is_ok(), "{end:?}");
    junk.join().unwrap().unwrap();
    drop(tunnel.client);
    assert!(backend.join().unwrap().1.is_ok());
    over(&tunnel.lease);
}
