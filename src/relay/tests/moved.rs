//! Sessions of every kind that move between two relays, while bytes flow.

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use fastrand::Rng;
use rustls::version::{TLS12, TLS13};

use super::model::bench::tls_leg_over;
use super::resume::peer::{Framed, Peer, Wire, message};
use super::resume::world::{Asks, Sought};
use super::*;
use crate::config::{self, LogOutput, Ping, Rate};

/// Moves of each session.
const MOVES: usize = 50;
/// Bytes that a stalled reader is sent.
const STALLED_BYTES: usize = 600_000;

/// A way of bytes through the relay, from one outer end to the other.
#[derive(Default)]
struct Way {
    sent: usize,
    got: usize,
}

/// Byte of the stream of numbers.
fn byte_at(at: usize) -> u8 {
    ((at / 4) as u32).to_be_bytes()[at % 4]
}

impl Way {
    fn send(&mut self, from: &mut Wire, most: usize) {
        let bytes: Vec<u8> = (self.sent..self.sent + most).map(byte_at).collect();
        if let Wire::Tls(stream) = from
            && stream.conn.wants_write()
        {
            let _ = stream.flush();
            return;
        }
        match from.write(&bytes) {
            Ok(count) => self.sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    /// False: there was nothing.
    fn get(&mut self, to: &mut Wire, most: usize) -> bool {
        let mut buffer = vec![0; most];
        match to.read(&mut buffer) {
            Ok(0) => panic!("it ended after {} of {}", self.got, self.sent),
            Ok(count) => {
                for byte in &buffer[..count] {
                    assert_eq!(*byte, byte_at(self.got), "at {}", self.got);
                    self.got += 1;
                }
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Kind of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    /// The client has finished.
    HalfClosed,
    /// The client reads nothing.
    Stalled,
    Tls12,
    Tls13,
    /// Messages with compressed payload both ways, and pings of ours.
    WebSocket,
    /// Has lost its backend, and looks for another.
    InGap,
}

const KINDS: [Kind; 7] = [
    Kind::Raw,
    Kind::HalfClosed,
    Kind::Stalled,
    Kind::Tls12,
    Kind::Tls13,
    Kind::WebSocket,
    Kind::InGap,
];

enum Outer {
    Bytes {
        ends: [Wire; 2],
        ways: [Way; 2],
    },
    Frames {
        client: Box<Peer>,
        backend: Box<Peer>,
        said: [u32; 2],
    },
}

struct Session {
    kind: Kind,
    outer: Outer,
    end: SessionEnd,
    resume: Option<Arc<dyn Migrator>>,
    /// Times that it went from one relay to the other.
    moves: usize,
    /// The relay in which it is.
    at: usize,
}

fn nonblocking(wire: Wire) -> Wire {
    match &wire {
        Wire::Raw(socket) => socket.set_nonblocking(true).unwrap(),
        Wire::Tls(stream) => stream.sock.set_nonblocking(true).unwrap(),
        Wire::Gone => {}
    }
    wire
}

fn inode(socket: &impl AsRawFd) -> String {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::read_link(path).unwrap().display().to_string()
}

/// A leg, its outer end, and the name of its socket.
fn leg_of(kind: Kind, side: usize) -> (SocketHandoff, Wire, String) {
    let (outer, inner) = if kind == Kind::Stalled {
        tight_pair()
    } else {
        pair()
    };
    let name = inode(&inner);
    let version = match kind {
        Kind::Tls12 if side == 0 => &TLS12,
        Kind::Tls13 if side == 0 => &TLS13,
        _ => return (raw(inner, &[]), nonblocking(Wire::Raw(outer)), name),
    };
    let (leg, client) = tls_leg_over((outer, inner), version, 5000, &[]);
    (leg, nonblocking(Wire::Tls(Box::new(client))), name)
}

fn resume_settings() -> Arc<config::Resume> {
    Arc::new(config::Resume {
        on: config::ResumeOn {
            drain: true,
            down: true,
            close_code: true,
            burst: true,
            eof: true,
        },
        settle: LONG,
        max: Rate::per_second(1000),
        max_buffer: 1 << 20,
        timeout: LONG,
        header: "evenkeel-resume".into(),
    })
}

struct Load {
    bench: Bench,
    rng: Rng,
    sessions: HashMap<u64, Session>,
    /// Names of the relays' sockets.
    sockets: Vec<String>,
    sought: Receiver<Sought>,
    migrator: Arc<Asks>,
}

impl Load {
    fn new(log: &std::path::Path) -> Load {
        let (losses, sought) = channel();
        let (doubts, _) = channel();
        let bench = Bench::with_log(usize::MAX, LogOutput::File(log.to_owned()));
        Load {
            bench,
            rng: Rng::with_seed(7),
            sessions: HashMap::new(),
            sockets: Vec::new(),
            sought,
            migrator: Arc::new(Asks { losses, doubts }),
        }
    }

    fn add(&mut self, kind: Kind) {
        let (client, client_end, client_name) = leg_of(kind, 0);
        let (backend, backend_end, backend_name) = leg_of(kind, 1);
        self.sockets.extend([client_name, backend_name]);
        let (guards, end) = guards();
        let record = ConnectionRecord::new(&self.bench.counters, crate::net::Peer::Unix);
        let id = record.id;
        let is_websocket = matches!(kind, Kind::WebSocket | Kind::InGap);
        let ping = Ping {
            interval: Duration::from_millis(100),
            timeout: LONG,
            client: true,
            backend: true,
        };
        let resume = (kind == Kind::InGap).then(|| Arc::clone(&self.migrator) as Arc<dyn Migrator>);
        self.bench.relay.adopt(NewSession {
            client,
            backend,
            limits: policy(),
            framing: if is_websocket {
                Framing::WebSocket(FramePolicy {
                    max_message: Some(1 << 30),
                    ping: Some(ping),
                    ..FramePolicy::default()
                })
            } else {
                Framing::Bytes
            },
            connecting: false,
            record,
            guards,
            connect_handler: None,
            resume_policy: resume.clone().map(|migrator| {
                Box::new(ResumePolicy {
                    settings: resume_settings(),
                    migrator,
                })
            }),
        });
        let outer = if is_websocket {
            Outer::Frames {
                client: Box::new(Peer::new(client_end, true)),
                backend: Box::new(Peer::new(backend_end, false)),
                said: [0; 2],
            }
        } else {
            Outer::Bytes {
                ends: [client_end, backend_end],
                ways: Default::default(),
            }
        };
        let mut session = Session {
            kind,
            outer,
            end,
            resume,
            moves: 0,
            at: 0,
        };
        session.begin();
        self.sessions.insert(id, session);
    }

    fn pump(&mut self) {
        for session in self.sessions.values_mut() {
            session.pump(&mut self.rng);
        }
    }

    /// All sessions that can, go to the other relay; how many did.
    fn shift(&mut self) -> usize {
        let (frozen, from) = self.bench.freeze();
        let count = frozen.len();
        for frozen in frozen {
            // Bytes come while nobody reads them.
            let session = self.sessions.get_mut(&frozen.id()).unwrap();
            session.pump(&mut self.rng);
            let is_in_gap = frozen.export().unwrap().gap.is_some();
            let resume = session.resume.clone().map(|migrator| ArrivingResume {
                migrator,
                settings: None,
            });
            let guards = session.end.guards_again();
            assert_eq!(session.at, from);
            session.at = 1 - from;
            session.moves += 1;
            self.bench.land(frozen, from, guards, resume);
            assert!(!is_in_gap || session.kind == Kind::InGap);
        }
        count
    }
}

impl Session {
    /// Brings it into the state of its kind.
    fn begin(&mut self) {
        match (&mut self.outer, self.kind) {
            (Outer::Bytes { ends, .. }, Kind::HalfClosed) => ends[0].finish(),
            (
                Outer::Frames {
                    client, backend, ..
                },
                Kind::InGap,
            ) => {
                client
                    .frames
                    .extend(message(&mut Rng::with_seed(1), 0, 100, true));
                client.write(usize::MAX);
                while backend.messages.is_empty() {
                    backend.read(1000);
                }
                backend.wire.finish();
            }
            _ => {}
        }
    }

    fn pump(&mut self, rng: &mut Rng) {
        match &mut self.outer {
            Outer::Bytes { ends, ways } => {
                let [client, backend] = ends;
                let [up, down] = ways;
                match self.kind {
                    Kind::HalfClosed => {
                        down.send(backend, rng.usize(1..20_000));
                        down.get(client, rng.usize(1..20_000));
                    }
                    Kind::Stalled if down.sent < STALLED_BYTES => {
                        down.send(backend, rng.usize(1..20_000));
                    }
                    Kind::Stalled => {}
                    _ => {
                        up.send(client, rng.usize(1..20_000));
                        down.send(backend, rng.usize(1..20_000));
                        up.get(backend, rng.usize(1..20_000));
                        down.get(client, rng.usize(1..20_000));
                        if let Wire::Tls(stream) = client
                            && rng.u8(..4) == 0
                        {
                            // TLS 1.2 has none.
                            let _ = stream.conn.refresh_traffic_keys();
                        }
                    }
                }
            }
            Outer::Frames {
                client,
                backend,
                said,
            } => {
                let is_gone = self.kind == Kind::InGap;
                for (number, peer) in [client, backend].into_iter().enumerate() {
                    if number == 1 && is_gone {
                        break;
                    }
                    let may_say = !is_gone || said[0] < 100;
                    if peer.frames.len() < 3 && may_say {
                        said[number] += 1;
                        let length = rng.usize(..3000);
                        for mut one in message(rng, said[number], length, number == 0) {
                            compress(&mut one);
                            peer.frames.push_back(one);
                        }
                    }
                    // In pieces that end within a frame.
                    peer.write(rng.usize(1..4000));
                    peer.read(rng.usize(1..8000));
                }
            }
        }
    }
}

/// Sets the bit of permessage-deflate at the first frame of a message.
fn compress(frame: &mut Framed) {
    if frame.begins.is_some() {
        frame.bytes[0] |= 0x40;
    }
}

#[test]
fn sessions_of_every_kind_move_under_load_and_no_byte_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut load = Load::new(&log);
    for kind in KINDS {
        for _ in 0..3 {
            load.add(kind);
        }
    }
    // The gap has begun when its search has.
    for _ in 0..3 {
        load.sought.recv_timeout(LONG).expect("no search");
    }
    for _ in 0..MOVES {
        for _ in 0..4 {
            load.pump();
        }
        let moved = load.shift();
        assert_eq!(moved, load.sessions.len());
    }
    load.end(&log);
}

impl Load {
    /// Lets every session come to its end, and looks at what it leaves.
    fn end(mut self, log: &std::path::Path) {
        self.attach();
        let begun = Instant::now();
        while !self.sessions.values_mut().all(Session::drain) {
            if let Ok(sought) = self.sought.try_recv() {
                panic!("a search again: {:?}", sought.gone);
            }
            assert!(begun.elapsed() < 3 * LONG, "bytes do not come");
        }
        let count = self.sessions.len();
        for session in self.sessions.into_values() {
            assert_eq!(session.moves, MOVES, "{:?}", session.kind);
            session.judge();
            let Session { outer, end, .. } = session;
            drop(outer);
            over(&end);
        }
        assert_eq!((self.bench.live(), self.bench.held_bytes()), (0, 0));
        assert_eq!(self.bench.counters.values().live, 0);
        assert!(self.bench.counters.journal.flush(LONG));
        let lines = std::fs::read_to_string(log).unwrap();
        let mut ids: Vec<u64> = lines.lines().map(id_of).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=count as u64).collect::<Vec<_>>(), "{lines}");
        let open: Vec<String> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .map(|path| path.display().to_string())
            .collect();
        let left = self.sockets.iter().filter(|one| open.contains(one));
        assert_eq!(left.count(), 0, "descriptors are left");
    }

    /// Gives those in a gap another backend.
    fn attach(&mut self) {
        let mut waiting: Vec<_> = self.sought.try_iter().collect();
        // The latest of each: those before were cancelled by a move.
        waiting.retain(|sought| !sought.stop.is_cancelled());
        let expected = self.sessions.values();
        let expected = expected.filter(|session| session.kind == Kind::InGap);
        let mut expected = expected.count();
        while expected > waiting.len() {
            let sought = self.sought.recv_timeout(LONG).expect("no search");
            if !sought.stop.is_cancelled() {
                waiting.push(sought);
            }
        }
        let relay = [&self.bench.relay, &self.bench.other][MOVES % 2];
        for sought in waiting {
            let (outer, inner) = pair();
            self.sockets.push(inode(&inner));
            let (tell, told) = channel();
            relay.attach(
                sought.gone.session,
                NewBackend {
                    leg: raw(inner, &[]),
                    install: Box::new(move |_, record| tell.send(record.id).unwrap()),
                },
            );
            let id = told.recv_timeout(LONG).expect("nobody wants the backend");
            let session = self.sessions.get_mut(&id).unwrap();
            if let Outer::Frames { backend, .. } = &mut session.outer {
                **backend = Peer::new(Wire::Raw(outer), false);
            }
            expected -= 1;
        }
        assert_eq!(expected, 0);
    }
}

/// The id in a line of JSON.
fn id_of(line: &str) -> u64 {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["id"].as_u64().unwrap()
}

impl Session {
    /// True once all has come that was sent.
    fn drain(&mut self) -> bool {
        match &mut self.outer {
            Outer::Bytes { ends, ways } => {
                let [client, backend] = ends;
                for end in [&mut *client, &mut *backend] {
                    end.flush();
                }
                let [up, down] = ways;
                if up.got < up.sent {
                    up.get(backend, 30_000);
                }
                if down.got < down.sent {
                    down.get(client, 30_000);
                }
                up.got == up.sent && down.got == down.sent
            }
            Outer::Frames {
                client, backend, ..
            } => {
                for peer in [&mut **client, &mut **backend] {
                    peer.write(usize::MAX);
                    peer.read(30_000);
                    assert_eq!(peer.seen, None);
                }
                let is_all = |from: &Peer, to: &Peer| {
                    from.is_whole()
                        && from.frames.is_empty()
                        && to.messages.last().copied() == from.ended.filter(|last| *last > 0)
                };
                is_all(client, backend) && is_all(backend, client)
            }
        }
    }

    fn judge(&self) {
        match &self.outer {
            Outer::Bytes { ways, .. } => {
                let all = ways[0].got + ways[1].got;
                assert!(all > 100_000, "{:?}: only {all} bytes", self.kind);
            }
            Outer::Frames {
                client,
                backend,
                said,
            } => {
                let all = |peer: &Peer, last: u32| {
                    let numbers: Vec<u32> = (1..=last).collect();
                    assert_eq!(peer.messages, numbers, "{:?}", self.kind);
                };
                all(backend, said[0]);
                all(client, said[1]);
                assert!(said[0] > 20, "{:?}: only {said:?}", self.kind);
            }
        }
    }
}

#[test]
fn a_session_that_is_about_to_change_stays_and_says_why() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    let listener = model::bench::full_listener();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
    let (_client, inner) = pair();
    let (guards, connecting) = guards();
    bench.relay.adopt(NewSession {
        client: raw(inner, &[]),
        backend: SocketHandoff {
            socket: begin_connect(&endpoint, &Dial::default()).unwrap(),
            transport: Transport::Raw,
            read: Vec::new(),
        },
        limits: policy(),
        framing: Framing::Bytes,
        connecting: true,
        record: ConnectionRecord::new(&bench.counters, crate::net::Peer::Unix),
        guards,
        connect_handler: Some(Box::new(Waits)),
        resume_policy: None,
    });
    let batch = wait_for(bench.relay.freeze(Cursor::default(), MAX_BATCH));
    let stayed: Vec<_> = batch.stayed.iter().map(|(_, why)| why.word()).collect();
    assert_eq!((batch.sessions.len(), stayed), (1, vec!["connecting"]));
    assert!(batch.next.is_none());
    drop(batch);
    bench.relay.shutdown();
    over(&ends.lease);
    over(&connecting);
}

struct Waits;

impl ConnectHandler for Waits {
    fn connect_timeout(&self) -> Duration {
        LONG
    }

    fn gives_up(&mut self) -> bool {
        false
    }

    fn connected(&mut self, _: &mut ConnectionRecord) {}

    fn served(&self) {}

    fn has_other(&self) -> bool {
        false
    }

    fn failed(
        self: Box<Self>,
        _: ConnectFailure,
        _: SocketHandoff,
        record: ConnectionRecord,
        _: SessionGuards,
    ) {
        let end = crate::observe::Termination::new(
            crate::observe::Side::Evenkeel,
            crate::observe::Phase::Connect,
            crate::observe::Cause::Stop,
        );
        record.finish(end);
    }
}

#[test]
fn a_session_that_is_never_committed_goes_on_where_it_was() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    for round in 0..20u8 {
        let mut batch = wait_for(bench.relay.freeze(Cursor::default(), MAX_BATCH));
        assert_eq!(batch.sessions.len(), 1);
        // While it is frozen nobody reads.
        ends.client.write_all(&[round]).unwrap();
        assert_eq!(bench.relay.live(), 1);
        let frozen = batch.sessions.pop().unwrap();
        assert!(frozen.export().is_ok());
        if round % 2 == 0 {
            frozen.thaw();
        } else {
            drop(frozen);
        }
        let mut read = [0];
        ends.backend.read_exact(&mut read).unwrap();
        assert_eq!(read, [round]);
    }
    drop((ends.client, ends.backend));
    over(&ends.lease);
    assert_eq!(bench.ends(), ["client relay fin x1"]);
}

/// A session that was declined is offered no more: it does not stand still for it again.
#[test]
fn a_session_that_the_other_relay_has_declined_is_not_touched() {
    let bench = Bench::new();
    let mut ends = bench.relayed(policy());
    let mut batch = wait_for(bench.relay.freeze(Cursor::default(), MAX_BATCH));
    let frozen = batch.sessions.pop().unwrap();
    let declined = Arc::new(std::iter::once(frozen.id()).collect());
    frozen.thaw();
    let freeze = bench
        .relay
        .freeze_others(Cursor::default(), MAX_BATCH, &declined);
    let batch = wait_for(freeze);
    assert!(batch.sessions.is_empty());
    let stayed: Vec<_> = batch.stayed.iter().map(|(_, why)| why.word()).collect();
    assert_eq!(stayed, ["declined"]);
    ends.client.write_all(b"x").unwrap();
    ends.backend.read_exact(&mut [0]).unwrap();
    drop((ends.client, ends.backend));
    over(&ends.lease);
}

/// The relay's threads end while a session is between two of them.
#[test]
fn a_frozen_session_of_a_relay_that_stops_ends_as_all_others() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    let batch = wait_for(bench.relay.freeze(Cursor::default(), MAX_BATCH));
    bench.relay.shutdown();
    assert!(!ends.lease.has_come());
    drop(batch);
    over(&ends.lease);
    assert_eq!(bench.live(), 0);
    assert_eq!(bench.ends(), ["evenkeel relay stop x1"]);
}

#[test]
fn counts_of_a_session_that_has_moved_hold_until_its_ghost_is_dropped() {
    let bench = Bench::new();
    let ends = bench.relayed(policy());
    let mut batch = wait_for(bench.relay.freeze(Cursor::default(), MAX_BATCH));
    let ghost = batch.sessions.pop().unwrap().commit();
    assert_eq!(bench.relay.live(), 0);
    assert!(!ends.lease.has_come(), "its places are free");
    drop(ghost);
    over(&ends.lease);
    // Nobody took it: it has no line.
    assert_eq!(bench.ends(), [""; 0]);
    assert_eq!(bench.counters.values().live, 0);
}

/// A reset, a FIN, and both behind bytes, that come while nobody watches the sockets.
#[test]
fn ends_that_come_in_between_are_found_in_the_other_relay() {
    let bench = Bench::new();
    for is_reset in [false, true] {
        for length in [0, 1000] {
            let mut ends = bench.relayed(policy());
            let (mut frozen, from) = bench.freeze();
            ends.backend.write_all(&numbers(length)).unwrap();
            if is_reset {
                reset(ends.backend);
            } else {
                drop(ends.backend);
            }
            let guards = ends.lease.guards_again();
            bench.land(frozen.pop().unwrap(), from, guards, None);
            let (read, end) = drain(&ends.client);
            assert_eq!(end.is_err(), is_reset, "{length}");
            if !is_reset {
                assert!(read == numbers(length));
            }
            drop(ends.client);
            over(&ends.lease);
        }
    }
    assert_eq!(
        bench.ends(),
        ["backend relay fin x2", "backend relay rst x2"]
    );
}
