//! The record layer with rustls' buffered client at the other end, over a wire that a list of deeds writes to, tampers with
//! and delivers from. What comes out is always the front of what went in, and all of it if nobody tampered.

#![no_main]

mod ends;

use std::io::{Read, Write};
use std::sync::Arc;

use evenkeel::parts::record::{RecordError, MAX_CONTROL_BYTES, SealError, TlsSession, TrafficSecrets, PeerStatus};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustls::ClientConnection;
use rustls::server::UnbufferedServerConnection;

/// Room in which any one record can be opened.
const LITTLE_ROOM: usize = 18 * 1024;
/// Of each side. Its answers to the other's come on top, and both count 32 without data between them as a flood.
const MAX_UPDATES: u8 = 12;

#[derive(Debug, Arbitrary)]
struct Case {
    suite: u8,
    resumed: bool,
    /// Plaintext of the client's records.
    fragment: u16,
    /// The key schedule is ours; otherwise that of rustls.
    own_schedule: bool,
    deeds: Vec<Deed>,
}

#[derive(Debug, Arbitrary)]
enum Deed {
    ClientWrites(u16),
    ServerWrites(u16),
    /// Into so little room that it takes many calls.
    ServerWritesLittle {
        length: u16,
        room: u16,
    },
    ClientUpdates,
    ServerUpdates {
        request: bool,
    },
    ClientCloses,
    ServerCloses,
    Cools,
    /// Another process goes on with the session.
    Moves,
    ServerReads {
        length: u16,
        piece: u16,
    },
    /// With so little room that it takes many calls, and more when that is too little for a record.
    ServerReadsLittle {
        length: u16,
        room: u16,
    },
    ClientReads(u16),
    TamperUp {
        at: u16,
        how: Tampering,
    },
    TamperDown {
        at: u16,
        how: Tampering,
    },
}

#[derive(Debug, Arbitrary)]
enum Tampering {
    Change(u8),
    Remove(u8),
    Insert(Vec<u8>),
    /// Sends bytes again.
    Repeat(u16),
}

/// One direction.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// Plaintext that went in, and how much of it came out.
    sent: Vec<u8>,
    got: usize,
    is_tampered: bool,
    is_closed: bool,
}

struct World {
    client: ClientConnection,
    /// The client reported an error.
    is_client_dead: bool,
    session: TlsSession,
    up: Wire,
    down: Wire,
    updates: [u8; 2],
}

fuzz_target!(|case: Case| {
    let mut world = World::new(&case);
    for deed in &case.deeds {
        world.act(deed);
        world.check();
    }
    // What is left arrives; twice, since an answer may call for one.
    for _ in 0..2 {
        world.server_reads(usize::MAX, usize::MAX);
        world.control();
        world.client_reads(usize::MAX);
        world.check();
    }
    if !world.up.is_tampered && !world.down.is_tampered {
        assert_eq!(world.up.got, world.up.sent.len());
        assert_eq!(world.down.got, world.down.sent.len());
        let status = match world.up.is_closed {
            true => PeerStatus::Closed,
            false => PeerStatus::Open,
        };
        assert_eq!(world.session.status(), status);
        assert_eq!(world.session.buffered(), 0);
        let state = world.client.process_new_packets().unwrap();
        assert_eq!(state.peer_has_closed(), world.down.is_closed);
    }
});

impl World {
    fn new(case: &Case) -> World {
        let ends = ends::ends(case.suite);
        let mut config = ends.config(case.resumed);
        config.max_fragment_size = Some(usize::from(case.fragment).clamp(32, 1 << 14));
        let mut client = ClientConnection::new(Arc::new(config), ends::name()).unwrap();
        client.set_buffer_limit(None);
        let mut server = UnbufferedServerConnection::new(ends.server.clone()).unwrap();
        let mut secrets = TrafficSecrets::default();
        let mut input = Vec::new();
        loop {
            input.extend(taken(&mut client));
            let output = secrets.during(|| ends::advance(&mut server, &mut input));
            client.read_tls(&mut &output[..]).unwrap();
            client.process_new_packets().unwrap();
            let is_done = !client.is_handshaking() && !server.is_handshaking();
            if is_done && !client.wants_write() {
                break;
            }
        }
        assert!(input.is_empty());
        if !case.own_schedule {
            secrets = TrafficSecrets::default();
        }
        World {
            client,
            is_client_dead: false,
            session: TlsSession::server(server, secrets).unwrap(),
            up: Wire::default(),
            down: Wire::default(),
            updates: [0; 2],
        }
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::ClientWrites(length) if self.may_client_write() => {
                let plain = self.up.plain(length);
                self.client.writer().write_all(&plain).unwrap();
                self.take_client();
            }
            Deed::ServerWrites(length) => {
                let plain = self.down.plain(length);
                self.seal(&plain, TlsSession::sealed_bound(plain.len()));
            }
            Deed::ServerWritesLittle { length, room } => {
                let plain = self.down.plain(length);
                // Enough for what may be owed and a byte.
                self.seal(&plain, usize::from(room) + 2 * MAX_CONTROL_BYTES);
            }
            Deed::ClientUpdates if self.may_client_write() && self.updates[0] < MAX_UPDATES => {
                self.updates[0] += 1;
                // TLS 1.2 has none.
                let _ = self.client.refresh_traffic_keys();
                self.take_client();
            }
            Deed::ServerUpdates { request } if self.updates[1] < MAX_UPDATES => {
                self.updates[1] += 1;
                self.session.update_keys(request);
            }
            Deed::ClientCloses if self.may_client_write() => {
                self.client.send_close_notify();
                self.up.is_closed = true;
                self.take_client();
            }
            Deed::ServerCloses => {
                self.session.close();
                self.down.is_closed |= !matches!(self.session.status(), PeerStatus::Failed(_));
                self.control();
                assert_eq!(
                    self.session.seal(b"x", &mut [0; 999]),
                    Err(SealError::Closed)
                );
            }
            Deed::Cools => self.session.drop_keys(),
            Deed::Moves => {
                if let Some(keys) = self.session.export() {
                    self.session = TlsSession::import(keys).unwrap();
                }
            }
            Deed::ServerReads { length, piece } => self.server_reads(length.into(), piece.into()),
            Deed::ServerReadsLittle { length, room } => {
                self.server_reads_little(length.into(), room.into());
            }
            Deed::ClientReads(length) => self.client_reads(length.into()),
            Deed::TamperUp { at, ref how } => self.up.tamper(at, how),
            Deed::TamperDown { at, ref how } => self.down.tamper(at, how),
            _ => {}
        }
    }

    fn may_client_write(&self) -> bool {
        !self.is_client_dead && !self.up.is_closed
    }

    fn take_client(&mut self) {
        self.up.bytes.extend(taken(&mut self.client));
    }

    fn seal(&mut self, plain: &[u8], room: usize) {
        let mut out = vec![0; room];
        let mut rest = plain;
        while !rest.is_empty() {
            let sealed = match self.session.seal(rest, &mut out) {
                Ok(sealed) => sealed,
                Err(error) => {
                    assert_eq!(error, SealError::Closed);
                    let is_failed = matches!(self.session.status(), PeerStatus::Failed(_));
                    assert!(is_failed || self.down.is_closed);
                    // What was not taken was not sent.
                    let unsent = self.down.sent.len() - rest.len();
                    self.down.sent.truncate(unsent);
                    return;
                }
            };
            assert!(sealed.taken + sealed.written > 0);
            self.down.bytes.extend(&out[..sealed.written]);
            rest = &rest[sealed.taken..];
        }
        assert!(plain.is_empty() || !self.session.has_control());
    }

    fn control(&mut self) {
        let mut out = [0; MAX_CONTROL_BYTES];
        let written = self.session.take_control(&mut out);
        assert!(!self.session.has_control());
        self.down.bytes.extend(&out[..written]);
    }

    fn server_reads(&mut self, length: usize, piece: usize) {
        let bytes = self.up.deliver(length);
        for piece in bytes.chunks(piece.max(1)) {
            let before = self.session.status();
            let mut room = vec![0; piece.len() + self.session.buffered()];
            let opened = self.session.open(piece, &mut room);
            assert_eq!(opened.consumed, piece.len());
            assert_eq!(opened.status, self.session.status());
            assert!(before == PeerStatus::Open || (opened.status == before && opened.filled == 0));
            self.up.receive(&room[..opened.filled]);
            self.after_open();
        }
    }

    fn server_reads_little(&mut self, length: usize, room: usize) {
        let bytes = self.up.deliver(length);
        let mut rest = &bytes[..];
        let mut out = vec![0; LITTLE_ROOM];
        let mut size = room.min(LITTLE_ROOM);
        loop {
            let opened = self.session.open(rest, &mut out[..size]);
            self.up.receive(&out[..opened.filled]);
            rest = &rest[opened.consumed..];
            match (opened.consumed + opened.filled, size) {
                (0, LITTLE_ROOM) => break,
                (0, _) => size = LITTLE_ROOM,
                _ => {}
            }
        }
        assert!(rest.is_empty());
        self.after_open();
    }

    fn after_open(&mut self) {
        match self.session.status() {
            PeerStatus::Open => {}
            PeerStatus::Closed => assert!(self.up.is_closed),
            // An alert is authentic: it tells of what happened the other way.
            PeerStatus::Failed(RecordError::Peer(_)) => assert!(self.down.is_tampered),
            PeerStatus::Failed(_) => assert!(self.up.is_tampered),
        }
        if self.session.status() != PeerStatus::Open {
            assert_eq!(self.session.buffered(), 0);
            self.control();
        }
    }

    fn client_reads(&mut self, length: usize) {
        let bytes = self.down.deliver(length);
        let mut rest = &bytes[..];
        while !rest.is_empty() && !self.is_client_dead {
            if self.client.read_tls(&mut rest).unwrap() == 0 {
                break;
            }
            let processed = self.client.process_new_packets();
            self.read_client();
            if let Err(error) = processed {
                let is_alert = matches!(error, rustls::Error::AlertReceived(_));
                assert!(
                    self.down.is_tampered || (is_alert && self.up.is_tampered),
                    "{error}"
                );
                self.is_client_dead = true;
            }
        }
        self.take_client();
    }

    fn read_client(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.client.reader().read(&mut chunk) {
            self.down.receive(&chunk[..count]);
        }
    }

    fn check(&self) {
        assert!(self.session.buffered() <= 18 * 1024 + 64 * 1024);
        if matches!(self.session.status(), PeerStatus::Failed(_)) {
            assert!(self.up.is_tampered || self.down.is_tampered);
        }
    }
}

impl Wire {
    /// Makes plaintext that differs wherever it stands, and notes it as sent.
    fn plain(&mut self, length: u16) -> Vec<u8> {
        let start = self.sent.len();
        let bytes: Vec<u8> = (start..start + usize::from(length))
            .map(|at| (at * 31 % 251) as u8)
            .collect();
        self.sent.extend(&bytes);
        bytes
    }

    fn deliver(&mut self, length: usize) -> Vec<u8> {
        let length = length.min(self.bytes.len());
        self.bytes.drain(..length).collect()
    }

    fn receive(&mut self, plain: &[u8]) {
        let end = self.got + plain.len();
        assert!(
            self.sent.get(self.got..end) == Some(plain),
            "wrong plaintext"
        );
        self.got = end;
    }

    fn tamper(&mut self, at: u16, how: &Tampering) {
        let length = self.bytes.len();
        if length == 0 {
            return;
        }
        let before = self.bytes.clone();
        let at = usize::from(at) % length;
        match how {
            Tampering::Change(by) => self.bytes[at] ^= by,
            Tampering::Remove(count) => {
                let end = (at + usize::from(*count)).min(length);
                self.bytes.drain(at..end);
            }
            Tampering::Insert(bytes) => drop(self.bytes.splice(at..at, bytes.iter().copied())),
            Tampering::Repeat(count) => {
                let end = (at + usize::from(*count)).min(length);
                self.bytes.splice(at..at, before[at..end].iter().copied());
            }
        }
        self.is_tampered |= self.bytes != before;
    }
}

fn taken(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}
