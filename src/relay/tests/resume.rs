//! Sessions that outlive their backends against a model: random frames of both sides in random pieces, and backends that die,
//! say that they go, are taken from their sessions, come and do not come, at random moments.
//!
//! The model: a client's message comes to one backend at most, whole, in order and behind those before it, and none is
//! missing beyond what the next backend was told, or that was begun in the gap; a client gets whole frames only, each backend's
//! messages from the first on without one missing, and all of them where the backend went in an orderly way. A session
//! ends only for a reason.
//!
//! `EVENKEEL_RESUME_SEEDS=5000 cargo test --lib relay::tests::resume` runs more seeds; a failure names its seed.

use std::collections::VecDeque;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use fastrand::Rng;
use rustls::version::{TLS12, TLS13};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::model::bench::tls_leg_over;
use super::*;

const MAX_BACKENDS: usize = 6;

/// Bytes to and from the relay, plain or in TLS.
enum Wire {
    Raw(TcpStream),
    Tls(Box<TlsClient>),
    Gone,
}

impl Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Raw(socket) => socket.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
            Wire::Gone => Ok(0),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Raw(socket) => socket.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
            Wire::Gone => Ok(bytes.len()),
        }
    }

    /// True when nothing is left to be sent.
    fn flush(&mut self) -> bool {
        match self {
            Wire::Tls(stream) => match stream.flush() {
                Err(error) => error.kind() != ErrorKind::WouldBlock,
                Ok(()) => !stream.conn.wants_write(),
            },
            _ => true,
        }
    }

    fn finish(&mut self) {
        match self {
            Wire::Raw(socket) => drop(socket.shutdown(Shutdown::Write)),
            Wire::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                let _ = stream.sock.shutdown(Shutdown::Write);
            }
            Wire::Gone => {}
        }
    }

    fn reset(&mut self) {
        match std::mem::replace(self, Wire::Gone) {
            Wire::Raw(socket) => reset(socket),
            Wire::Tls(stream) => reset(stream.sock),
            Wire::Gone => {}
        }
    }
}

/// What a peer writes: a frame, and where its message stands behind it.
struct Framed {
    bytes: Vec<u8>,
    leaves_open: bool,
    /// The number of the message that it begins.
    begins: Option<u32>,
    /// The number of the message that it ends.
    ends: Option<u32>,
}

fn frame(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8 | mask_bit),
        length @ 126..0x1_0000 => {
            bytes.push(126 | mask_bit);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127 | mask_bit);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

/// The frames of one numbered message, with pings among them.
fn message(rng: &mut Rng, number: u32, length: usize, is_masked: bool) -> Vec<Framed> {
    let mut payload = vec![number as u8; length.max(4)];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let mut frames = Vec::new();
    let parts = 1 + rng.usize(..3) * rng.usize(..2);
    let size = payload.len().div_ceil(parts);
    let pieces: Vec<&[u8]> = payload.chunks(size).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len();
        let opcode = if at == 0 { 0x02 } else { 0 };
        let fin = if is_last { 0x80 } else { 0 };
        frames.push(Framed {
            bytes: frame(opcode | fin, piece, is_masked),
            leaves_open: !is_last,
            begins: (at == 0).then_some(number),
            ends: is_last.then_some(number),
        });
        if rng.u8(..4) == 0 {
            let payload = number.to_be_bytes();
            frames.push(Framed {
                bytes: frame(0x89, &payload[..rng.usize(..5)], is_masked),
                leaves_open: !is_last,
                begins: None,
                ends: None,
            });
        }
    }
    frames
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Fin,
    Reset,
}

/// One outer end.
struct Peer {
    wire: Wire,
    is_client: bool,
    frames: VecDeque<Framed>,
    /// Of the frame under way.
    out: Vec<u8>,
    out_open: bool,
    out_ends: Option<u32>,
    /// Behind what was written a message is open.
    is_open: bool,
    /// Messages begun, and ended, up to here.
    begun: Option<u32>,
    ended: Option<u32>,
    said_close: bool,
    /// It closes its side behind its Close.
    finished: bool,
    input: Vec<u8>,
    partial: Option<Vec<u8>>,
    /// Numbers of whole messages.
    messages: Vec<u32>,
    close: Option<u16>,
    seen: Option<Seen>,
    /// A write has failed: it took the socket's error with it, and the next read gives 0.
    failed: bool,
}

impl Peer {
    fn new(wire: Wire, is_client: bool) -> Peer {
        match &wire {
            Wire::Raw(socket) => socket.set_nonblocking(true).unwrap(),
            Wire::Tls(stream) => stream.sock.set_nonblocking(true).unwrap(),
            Wire::Gone => {}
        }
        Peer {
            wire,
            is_client,
            frames: VecDeque::new(),
            out: Vec::new(),
            out_open: false,
            out_ends: None,
            is_open: false,
            begun: None,
            ended: None,
            said_close: false,
            finished: false,
            input: Vec::new(),
            partial: None,
            messages: Vec::new(),
            close: None,
            seen: None,
            failed: false,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.wire, Wire::Gone)
    }

    /// It has written whole messages.
    fn is_whole(&self) -> bool {
        self.out.is_empty() && !self.is_open
    }

    /// Takes the next frame to be written, if none is under way.
    fn advance(&mut self) {
        if !self.out.is_empty() {
            return;
        }
        if let Some(next) = self.frames.pop_front() {
            self.out = next.bytes;
            self.out_open = next.leaves_open;
            self.out_ends = next.ends;
            self.begun = next.begins.or(self.begun);
        }
    }

    fn took(&mut self, count: usize) {
        self.out.drain(..count);
        if self.out.is_empty() {
            self.is_open = self.out_open;
            self.ended = self.out_ends.or(self.ended);
        }
    }

    fn write(&mut self, mut limit: usize) {
        while limit > 0 && !self.finished && self.wire.flush() {
            self.advance();
            if self.out.is_empty() {
                if self.said_close && !self.is_client {
                    self.finished = true;
                    self.wire.finish();
                }
                return;
            }
            let length = self.out.len().min(limit);
            match self.wire.write(&self.out[..length]) {
                Ok(count) => {
                    limit -= count;
                    self.took(count);
                }
                Err(error) => {
                    self.failed |= error.kind() != ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.wire.flush();
    }

    /// Says Close, between two frames.
    fn close(&mut self, code: u16) {
        if self.said_close {
            return;
        }
        self.said_close = true;
        self.frames.clear();
        self.frames.push_back(Framed {
            bytes: frame(0x88, &code.to_be_bytes(), self.is_client),
            leaves_open: self.out_open,
            begins: None,
            ends: None,
        });
    }

    fn read(&mut self, limit: usize) -> bool {
        if self.seen.is_some() || self.is_gone() {
            return false;
        }
        let mut buffer = vec![0; limit.max(1)];
        match self.wire.read(&mut buffer) {
            Ok(0) if self.failed => self.seen = Some(Seen::Reset),
            Ok(0) => self.seen = Some(Seen::Fin),
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.seen = Some(Seen::Reset),
        }
        while self.decode() {}
        true
    }

    /// One frame. What violates the protocol fails the test.
    fn decode(&mut self) -> bool {
        let Some((&[first, second], rest)) = self.input.split_first_chunk() else {
            return false;
        };
        assert_eq!(second & 0x80 != 0, !self.is_client, "a wrong mask");
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return false,
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return false,
            },
            short => (u64::from(short), rest),
        };
        let mask_bytes = if self.is_client { 0 } else { 4 };
        let length = usize::try_from(length).unwrap();
        assert!(length < 10_000_000, "no length: {first:x} {length}");
        if rest.len() < mask_bytes + length {
            return false;
        }
        let (mask, rest) = rest.split_at(mask_bytes);
        let masks = mask.iter().cycle().take(length);
        let mut payload = rest[..length].to_vec();
        for (byte, mask) in payload.iter_mut().zip(masks) {
            *byte ^= mask;
        }
        let behind = self.input.len() - (rest.len() - length);
        self.input.drain(..behind);
        self.judge(first, payload);
        true
    }

    fn judge(&mut self, first: u8, payload: Vec<u8>) {
        assert_eq!(self.close, None, "a frame behind a close");
        match first & 0x0f {
            0x8 => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                self.close = Some(code);
                self.close(code);
            }
            0x9 => {
                if !self.said_close {
                    self.frames.push_front(Framed {
                        bytes: frame(0x8a, &payload, self.is_client),
                        leaves_open: self.out_open,
                        begins: None,
                        ends: None,
                    });
                }
            }
            0xa => assert!(payload.len() <= 4),
            opcode => {
                assert_eq!(opcode == 0, self.partial.is_some(), "a part of a message");
                let mut whole = self.partial.take().unwrap_or_default();
                whole.extend(payload);
                match first & 0x80 {
                    0 => self.partial = Some(whole),
                    _ => self.take(&whole),
                }
            }
        }
    }

    fn take(&mut self, whole: &[u8]) {
        let (number, rest) = whole.split_first_chunk().expect("a number");
        let number = u32::from_be_bytes(*number);
        assert!(
            rest.iter().all(|byte| *byte == number as u8),
            "torn: {number}"
        );
        self.messages.push(number);
    }
}

/// What the relay has asked for.
struct Sought {
    gone: Gone,
    stop: CancellationToken,
}

struct Asks(Sender<Sought>);

impl Seeker<Sender<()>> for Asks {
    fn seek(&mut self, gone: Gone, _: &mut Sender<()>) -> DropGuard {
        let stop = CancellationToken::new();
        let sought = Sought {
            gone,
            stop: stop.clone(),
        };
        self.0.send(sought).unwrap();
        stop.drop_guard()
    }
}

/// What is known of a gap.
struct Past {
    lost: Lost,
    /// Messages of this number and above were begun in it.
    begun: u32,
}

/// How a backend went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// It is there, or went as it was asked to.
    Asked,
    Orderly,
    Reset,
}

struct World<'a> {
    bench: &'a Bench,
    rng: Rng,
    client: Peer,
    backends: Vec<Peer>,
    went: Vec<Went>,
    gaps: Vec<Past>,
    sought: Receiver<Sought>,
    /// A gap that waits.
    open_gap: Option<Sought>,
    /// The relay's handle for it.
    session: Handle,
    lease: Receiver<()>,
    /// It may end for a reason.
    may_end: Option<&'static str>,
    next: u32,
    is_relieved: bool,
    is_tight: bool,
    has_tls: bool,
}

fn wire(rng: &mut Rng, is_tight: bool, has_tls: bool, early: &[u8]) -> (Leg, Wire) {
    let (outer, inner) = match is_tight {
        true => tight_pair(),
        false => pair(),
    };
    if has_tls && rng.bool() {
        let version = if rng.bool() { &TLS12 } else { &TLS13 };
        let (leg, client) = tls_leg_over((outer, inner), version, usize::MAX, early);
        return (leg, Wire::Tls(Box::new(client)));
    }
    (raw(inner, early), Wire::Raw(outer))
}

/// What a backend says; its number is in each of its messages.
fn speech(rng: &mut Rng, backend: usize) -> VecDeque<Framed> {
    let count = rng.u32(..12);
    let messages = (0..count).flat_map(|number| {
        let length = lengths(rng);
        message(rng, (backend as u32) << 24 | number, length, false)
    });
    messages.collect()
}

/// How many messages it has said whole.
fn said_by(backend: &Peer) -> u32 {
    backend.ended.map_or(0, |last| (last & 0xff_ffff) + 1)
}

fn lengths(rng: &mut Rng) -> usize {
    match rng.u8(..10) {
        0..6 => rng.usize(..50),
        6..8 => rng.usize(..3000),
        8 => rng.usize(..70_000),
        _ => 2048 + rng.usize(..600_000),
    }
}

impl<'a> World<'a> {
    fn new(bench: &'a Bench, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (is_tight, has_tls) = (rng.bool(), rng.bool());
        let (asks, sought) = channel();
        let (client, client_wire) = wire(&mut rng, is_tight, has_tls, &[]);
        let (backend, backend_wire) = wire(&mut rng, is_tight, has_tls, &[]);
        let max_buffer = if rng.u8(..8) == 0 { 2000 } else { 16 << 20 };
        let (held, lease) = channel::<()>();
        let address = crate::net::Peer::tcp("192.0.2.1:1".parse().unwrap());
        bench.relay.adopt(Session {
            client,
            backend,
            policy: policy(),
            framing: Framing::WebSocket(Watched::default()),
            connecting: false,
            record: Record::new(&bench.counters, address),
            lease: held,
            origin: None,
            resumption: Some(Box::new(Resumption {
                max_buffer,
                timeout: LONG,
                seeker: Box::new(Asks(asks)),
            })),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let session = runtime.block_on(bench.relay.survey(Filter::default()))[0].handle;
        let mut first = Peer::new(backend_wire, false);
        first.frames = speech(&mut rng, 0);
        let mut world = World {
            bench,
            client: Peer::new(client_wire, true),
            backends: vec![first],
            went: vec![Went::Asked],
            gaps: Vec::new(),
            sought,
            open_gap: None,
            session,
            lease,
            may_end: (max_buffer < 1 << 20).then_some("a small buffer"),
            next: 0,
            is_relieved: false,
            is_tight,
            has_tls,
            rng,
        };
        for _ in 0..world.rng.usize(1..20) {
            world.compose();
        }
        world
    }

    /// One more message of the client.
    fn compose(&mut self) {
        let length = lengths(&mut self.rng);
        let frames = message(&mut self.rng, self.next, length, true);
        self.client.frames.extend(frames);
        self.next += 1;
    }

    fn backend(&mut self) -> &mut Peer {
        self.backends.last_mut().expect("the first one")
    }

    fn piece(&mut self) -> usize {
        match self.rng.u8(..3) {
            0 => self.rng.usize(1..20),
            1 => self.rng.usize(1..5000),
            _ => self.rng.usize(1..400_000),
        }
    }

    fn collect(&mut self) {
        match self.sought.try_recv() {
            Ok(sought) => {
                assert!(self.open_gap.is_none(), "two searches at once");
                self.gaps.push(Past {
                    lost: sought.gone.lost,
                    begun: self.client.begun.map_or(0, |number| number + 1),
                });
                self.open_gap = Some(sought);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
    }

    fn attach(&mut self) {
        let Some(sought) = self.open_gap.take() else {
            return;
        };
        let number = self.backends.len();
        let mut frames = speech(&mut self.rng, number);
        let mut peer = Peer::new(Wire::Gone, false);
        peer.frames = std::mem::take(&mut frames);
        // What it said right behind its 101.
        let mut early = Vec::new();
        for _ in 0..self.rng.usize(..4) {
            peer.advance();
            let count = self.rng.usize(..=peer.out.len());
            early.extend(&peer.out[..count]);
            peer.took(count);
        }
        let (leg, wire) = wire(&mut self.rng, self.is_tight, self.has_tls, &early);
        let said = Peer::new(wire, false);
        peer.wire = said.wire;
        self.is_relieved = false;
        self.backends.push(peer);
        self.went.push(Went::Asked);
        self.bench.relay.attach(
            sought.gone.session,
            Successor {
                leg,
                seat: Box::new(|_, _| {}),
            },
        );
    }

    fn act(&mut self) {
        let piece = self.piece();
        let may_die = self.backends.len() < MAX_BACKENDS && self.open_gap.is_none();
        match self.rng.u8(..40) {
            0..9 => self.client.write(piece),
            9..15 => self.backend().write(piece),
            15..21 => drop(self.client.read(piece)),
            21..27 => drop(self.backend().read(piece)),
            27..30 => std::thread::sleep(Duration::from_micros(self.rng.u64(..1500))),
            30 if may_die => self.die(Went::Reset),
            31 if may_die => self.die(Went::Orderly),
            32 | 33 if may_die && !self.backend().finished => {
                let codes = [1001, 1012, 1013, 1001, 1012, 1000];
                let mut code = codes[self.rng.usize(..codes.len())];
                // It would look like the answer to the Close of ours that it crosses.
                if [1000, goodbye().code].contains(&code) && self.is_relieved {
                    code = 1001;
                }
                if code == 1000 {
                    self.may_end = Some("an ordinary close");
                }
                // Between two frames of one message the client keeps a part.
                if self.backend().is_open || self.backend().out_open {
                    self.may_end = Some("a part of a message");
                }
                self.backend().close(code);
                self.backend().write(usize::MAX);
            }
            34 | 35 if may_die && !self.backend().said_close => {
                if !self.backend().is_whole() {
                    self.may_end = Some("relieved within a message");
                }
                self.may_end = self.may_end.or(match self.backend().frames.is_empty() {
                    true => None,
                    false => Some("relieved, and answers within a message"),
                });
                self.is_relieved = true;
                self.bench.relay.relieve(self.session, &goodbye());
            }
            36 if self.rng.u8(..10) == 0 => {
                self.may_end = Some("forsaken");
                self.bench.relay.forsake(self.session);
            }
            37 if self.rng.u8(..20) == 0 => {
                self.may_end = Some("parted");
                self.bench.relay.part(self.session, &goodbye());
            }
            38 if self.rng.u8(..10) == 0 => {
                self.may_end = Some("the client is reset");
                self.client.wire.reset();
                self.client.seen = Some(Seen::Reset);
            }
            _ => self.attach(),
        }
        self.collect();
    }

    fn die(&mut self, how: Went) {
        if !self.backend().is_whole() {
            self.may_end = Some("it died within a message");
        }
        let last = self.went.last_mut().expect("one each");
        if *last != Went::Asked {
            return;
        }
        *last = how;
        // What is under way goes with a reset.
        if how == Went::Reset && self.heard_of(self.backends.len() - 1) != said_by(self.backend()) {
            self.may_end = Some("it was reset within a message");
        }
        match how {
            Went::Reset => self.backend().wire.reset(),
            _ => {
                if self.backend().wire.flush() {
                    self.backend().finished = true;
                    self.backend().wire.finish();
                } else {
                    self.may_end = Some("it was reset within a message");
                    *self.went.last_mut().unwrap() = Went::Reset;
                    self.backend().wire.reset();
                }
            }
        }
    }

    /// How many of its messages have come.
    fn heard_of(&self, backend: usize) -> u32 {
        let of = |message: &&u32| (**message >> 24) as usize == backend;
        self.client.messages.iter().filter(of).count() as u32
    }

    /// Everybody reads and writes what there is.
    fn go_on(&mut self) -> bool {
        let mut moved = false;
        for peer in self.backends.iter_mut().chain([&mut self.client]) {
            moved |= peer.read(70_000);
            peer.write(usize::MAX);
        }
        self.collect();
        if self.open_gap.is_some() && self.client.seen.is_none() {
            self.attach();
            moved = true;
        }
        moved
    }

    fn settle(&mut self) {
        let begun = Instant::now();
        let mut sent = None;
        while self.client.seen.is_none() {
            assert!(begun.elapsed() < LONG, "it hangs: {}", self.describe());
            if !self.go_on() {
                std::thread::sleep(Duration::from_micros(300));
            }
            // A backend that has one of them is there.
            let last = self.backend().messages.last().copied();
            if self.client.said_close || self.client.close.is_some() {
            } else if sent.is_some_and(|sent| last >= Some(sent)) {
                self.may_end = self.may_end.or(Some("the client closes"));
                let codes = [1000, 1001, 4000];
                let code = codes[self.rng.usize(..codes.len())];
                self.client.close(code);
            } else if self.client.frames.is_empty() && self.client.out.is_empty() {
                sent.get_or_insert(self.next);
                let frames = message(&mut self.rng, self.next, 4, true);
                self.client.frames.extend(frames);
                self.next += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.client.wire = Wire::Gone;
        let begun = Instant::now();
        while self.lease.try_recv() == Err(TryRecvError::Empty) {
            assert!(begun.elapsed() < LONG, "it never ends: {}", self.describe());
            self.go_on();
        }
        for backend in &mut self.backends {
            while backend.read(1 << 20) {}
        }
    }

    fn describe(&self) -> String {
        let backends: Vec<_> = self.backends.iter().zip(&self.went).collect();
        let told = backends.iter().map(|(peer, went)| {
            let Peer {
                messages,
                close,
                seen,
                ended,
                said_close,
                ..
            } = peer;
            format!("{went:?} {messages:?} {close:?} {seen:?} ended {ended:?} said {said_close}")
        });
        format!(
            "ends {:?}, failed {}, client {:?} {:?}, {:?} open {:?} gap {}, backends {:#?}, lost {:?}",
            self.bench.ends(),
            self.client.failed,
            self.client.seen,
            self.client.close,
            self.may_end,
            self.client.partial.as_ref().map(Vec::len),
            self.open_gap.is_some(),
            told.collect::<Vec<_>>(),
            self.gaps.iter().map(|gap| gap.lost).collect::<Vec<_>>(),
        )
    }

    fn judge(&self) {
        assert!(self.may_end.is_some(), "it ended: {}", self.describe());
        if self.may_end == Some("the client closes") {
            assert!(self.client.close.is_some(), "no close: {}", self.describe());
        }
        if self.client.seen == Some(Seen::Fin) {
            assert!(
                self.client.input.is_empty(),
                "a torn frame looks whole: {}",
                self.describe()
            );
        }
        self.judge_backends();
        self.judge_client();
    }

    /// What came of the client's messages.
    fn judge_backends(&self) {
        let mut before: Option<u32> = None;
        let mut lost = Lost::AtMost(0);
        for (number, backend) in self.backends.iter().enumerate() {
            if let Some(gap) = number.checked_sub(1).map(|gap| &self.gaps[gap]) {
                lost = lost.and(gap.lost);
                if let Some(first) = backend.messages.first() {
                    assert!(*first <= gap.begun, "held and lost: {}", self.describe());
                }
            }
            for (at, message) in backend.messages.iter().enumerate() {
                let wanted = before.map_or(0, |before| before + 1);
                let missing = message.checked_sub(wanted).expect("twice, or swapped");
                let may_miss = match (at, lost.at_most()) {
                    (0, None) => u32::MAX,
                    (0, Some(most)) => most,
                    _ => 0,
                };
                assert!(
                    missing <= may_miss,
                    "{message} of {number}: {}",
                    self.describe()
                );
                before = Some(*message);
            }
            if !backend.messages.is_empty() {
                lost = Lost::AtMost(0);
            }
        }
    }

    /// What came of the backends'.
    fn judge_client(&self) {
        let mut heard = vec![0u32; self.backends.len()];
        let mut before = 0;
        for message in &self.client.messages {
            let (backend, number) = ((message >> 24) as usize, message & 0xff_ffff);
            assert!(backend >= before, "behind one of a later backend");
            assert_eq!(heard[backend], number, "of {backend}: {}", self.describe());
            heard[backend] += 1;
            before = backend;
        }
        // Of all but the last: the session went on behind them.
        for (number, _) in self.gaps.iter().enumerate() {
            let said = self.backends[number]
                .ended
                .map_or(0, |last| (last & 0xff_ffff) + 1);
            let is_heard = self.went[number] != Went::Reset && self.client.close.is_some();
            if is_heard && self.may_end == Some("the client closes") {
                assert_eq!(heard[number], said, "of {number}: {}", self.describe());
            }
        }
    }
}

fn run(bench: &Bench, seed: u64) -> usize {
    let mut world = World::new(bench, seed);
    for _ in 0..world.rng.usize(10..120) {
        world.act();
    }
    world.settle();
    world.judge();
    assert_eq!(bench.relay.live(), 0);
    let begun = Instant::now();
    while bench.relay.held_bytes() != 0 {
        assert!(begun.elapsed() < LONG, "nothing lives and bytes are held");
        std::thread::yield_now();
    }
    if let Some(sought) = &world.open_gap {
        assert!(sought.stop.is_cancelled(), "a search goes on");
    }
    world.backends.len() - 1
}

#[test]
fn whatever_happens_messages_come_once_and_in_order_and_frames_are_whole() {
    let seeds = std::env::var("EVENKEEL_RESUME_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    let first = std::env::var("EVENKEEL_RESUME_SEED").map_or(0, |seed| seed.parse().unwrap());
    let bench = Bench::new();
    let mut resumed = 0;
    for seed in first..first + seeds {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&bench, seed)));
        resumed += ran.unwrap_or_else(|_| panic!("seed {seed}: EVENKEEL_RESUME_SEED={seed}"));
    }
    let ends = bench.ends();
    assert!(!ends.iter().any(|end| end.contains("panic")), "{ends:?}");
    assert!(resumed > 0 || seeds < 20, "nobody was resumed");
}
