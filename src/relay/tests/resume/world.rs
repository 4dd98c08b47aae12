//! One session, its client and its backends, and what happens to them.

use std::collections::VecDeque;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use fastrand::Rng;
use rustls::version::{TLS12, TLS13};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::super::model::bench::tls_leg_over;
use super::super::*;
use super::peer::{Framed, Peer, Seen, Wire, message};
use crate::relay::resume_policy::LostMessages;
use crate::wire::moved::MovedMigrator;

pub const MAX_BACKENDS: usize = 6;

/// A search that the relay has begun.
pub struct Sought {
    pub gone: LostBackend,
    pub stop: CancellationToken,
}

pub struct Asks {
    pub losses: Sender<Sought>,
    pub doubts: Sender<Handle>,
}

impl Migrator for Asks {
    fn judge_loss(
        &self,
        session: Handle,
        _: &crate::config::Resume,
        _: &SessionGuards,
    ) -> Option<DropGuard> {
        self.doubts.send(session).unwrap();
        Some(CancellationToken::new().drop_guard())
    }

    fn export(&self) -> MovedMigrator {
        MovedMigrator::default()
    }

    fn find_backend(self: Arc<Self>, gone: LostBackend, _: &mut SessionGuards) -> DropGuard {
        let stop = CancellationToken::new();
        let sought = Sought {
            gone,
            stop: stop.clone(),
        };
        self.losses.send(sought).unwrap();
        stop.drop_guard()
    }
}

/// A gap that is over.
pub struct Past {
    pub lost: LostMessages,
    /// Messages of this number and above were begun in it.
    pub begun: u32,
}

/// How a backend went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// The backend is there, or went as it was asked to.
    Asked,
    Orderly,
    Reset,
}

pub struct World<'a> {
    pub bench: &'a Bench,
    pub rng: Rng,
    /// Chooses moves alone, so that a seed has the same peers as without them.
    pub moves: Rng,
    pub client: Peer,
    pub backends: Vec<Peer>,
    pub went: Vec<Went>,
    pub gaps: Vec<Past>,
    pub sought: Receiver<Sought>,
    /// Whether a backend is lost is asked here, and always answered by yes.
    pub doubts: Receiver<Handle>,
    /// A gap that waits.
    pub open_gap: Option<Sought>,
    /// The relay's handle for it.
    pub session: Handle,
    pub lease: SessionEnd,
    pub settle: Duration,
    /// A reason for which the session may end.
    pub may_end: Option<&'static str>,
    pub next: u32,
    pub is_migrating: bool,
    pub is_tight: bool,
    pub has_tls: bool,
    /// Finds backends in whichever relay it is.
    pub migrator: Arc<Asks>,
    /// The number of the relay that has the session.
    pub at: usize,
}

pub fn wire(rng: &mut Rng, is_tight: bool, has_tls: bool, early: &[u8]) -> (SocketHandoff, Wire) {
    let (outer, inner) = if is_tight { tight_pair() } else { pair() };
    if has_tls && rng.bool() {
        let version = if rng.bool() { &TLS12 } else { &TLS13 };
        let (leg, client) = tls_leg_over((outer, inner), version, usize::MAX, early);
        return (leg, Wire::Tls(Box::new(client)));
    }
    (raw(inner, early), Wire::Raw(outer))
}

/// Messages of a backend; its number is in each of its messages.
pub fn speech(rng: &mut Rng, backend: usize) -> VecDeque<Framed> {
    let count = rng.u32(..12);
    let messages = (0..count).flat_map(|number| {
        let length = lengths(rng);
        message(rng, (backend as u32) << 24 | number, length, false)
    });
    messages.collect()
}

/// How many messages it has said whole.
pub fn said_by(backend: &Peer) -> u32 {
    backend.ended.map_or(0, |last| (last & 0xff_ffff) + 1)
}

pub fn lengths(rng: &mut Rng) -> usize {
    match rng.u8(..10) {
        0..6 => rng.usize(..50),
        6..8 => rng.usize(..3000),
        8 => rng.usize(..70_000),
        _ => 2048 + rng.usize(..600_000),
    }
}

impl<'a> World<'a> {
    pub fn new(bench: &'a Bench, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (is_tight, has_tls) = (rng.bool(), rng.bool());
        let (losses, sought) = channel();
        let (asked, doubts) = channel();
        let (client, client_wire) = wire(&mut rng, is_tight, has_tls, &[]);
        let (backend, backend_wire) = wire(&mut rng, is_tight, has_tls, &[]);
        let max_buffer = if rng.u8(..8) == 0 { 2000 } else { 16 << 20 };
        let settle = if rng.bool() {
            LONG
        } else {
            Duration::from_millis(10)
        };
        let (guards, lease) = guards();
        let migrator = Arc::new(Asks {
            losses,
            doubts: asked,
        });
        let address = crate::net::Peer::tcp("192.0.2.1:1".parse().unwrap());
        bench.relay.adopt(NewSession {
            client,
            backend,
            limits: policy(),
            framing: Framing::WebSocket(FramePolicy::default()),
            connecting: false,
            record: ConnectionRecord::new(&bench.counters, address),
            guards,
            connect_handler: None,
            resume_policy: Some(Box::new(ResumePolicy {
                settings: Arc::new(crate::config::Resume {
                    on: crate::config::ResumeOn {
                        drain: true,
                        down: true,
                        close_code: true,
                        burst: true,
                        eof: rng.bool(),
                    },
                    settle,
                    max: crate::config::Rate::per_second(1000),
                    max_buffer,
                    timeout: LONG,
                    header: "evenkeel-resume".into(),
                }),
                migrator: Arc::clone(&migrator) as Arc<dyn Migrator>,
            })),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let session = runtime.block_on(bench.relay.list_all(Filter::default()))[0].handle;
        let mut first = Peer::new(backend_wire, false);
        first.frames = speech(&mut rng, 0);
        let mut world = World {
            bench,
            client: Peer::new(client_wire, true),
            backends: vec![first],
            went: vec![Went::Asked],
            gaps: Vec::new(),
            sought,
            doubts,
            open_gap: None,
            session,
            lease,
            may_end: None,
            settle,
            next: 0,
            is_migrating: false,
            is_tight,
            has_tls,
            migrator,
            at: 0,
            moves: Rng::with_seed(!seed),
            rng,
        };
        for _ in 0..world.rng.usize(1..20) {
            world.compose();
        }
        world
    }

    /// Adds a message of the client.
    pub fn compose(&mut self) {
        let length = lengths(&mut self.rng);
        let frames = message(&mut self.rng, self.next, length, true);
        self.client.frames.extend(frames);
        self.next += 1;
    }

    pub fn backend(&mut self) -> &mut Peer {
        self.backends.last_mut().expect("the first one")
    }

    pub fn piece(&mut self) -> usize {
        match self.rng.u8(..3) {
            0 => self.rng.usize(1..20),
            1 => self.rng.usize(1..5000),
            _ => self.rng.usize(1..400_000),
        }
    }

    pub fn collect(&mut self) {
        match self.sought.try_recv() {
            Ok(sought) => self.note(sought),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
    }

    fn note(&mut self, sought: Sought) {
        if sought.gone.is_counted {
            let before = self.open_gap.as_ref();
            let is_over = before.is_some_and(|before| before.stop.is_cancelled());
            assert!(is_over, "a search goes on where the session has left");
        } else {
            assert!(self.open_gap.is_none(), "two searches at once");
            self.gaps.push(Past {
                lost: sought.gone.lost,
                begun: self.client.begun.map_or(0, |number| number + 1),
            });
        }
        self.open_gap = Some(sought);
    }

    /// Says that a backend is lost, where that is asked.
    pub fn answer(&mut self) {
        for session in self.doubts.try_iter() {
            self.relay().judged(session, true);
        }
    }

    pub fn attach(&mut self) {
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
        self.is_migrating = false;
        self.backends.push(peer);
        self.went.push(Went::Asked);
        self.relay().attach(
            sought.gone.session,
            NewBackend {
                leg,
                install: Box::new(|_, _| {}),
            },
        );
    }

    pub fn act(&mut self) {
        let piece = self.piece();
        let may_die = self.backends.len() < MAX_BACKENDS && self.open_gap.is_none();
        if self.moves.u8(..14) == 0 {
            self.shift();
        }
        match self.rng.u8(..41) {
            0..9 => self.client.write(piece),
            9..15 => self.backend().write(piece),
            15..21 => drop(self.client.read(piece)),
            21..27 => drop(self.backend().read(piece)),
            27..30 => std::thread::park_timeout(Duration::from_micros(self.rng.u64(..1500))),
            30 if may_die => self.die(Went::Reset),
            31 if may_die => self.die(Went::Orderly),
            // Whether one that goes by itself has read all is known by time only, and these read
            // late.
            32 | 33 if may_die && self.settle == LONG && !self.backend().finished => {
                let codes = [1001, 1012, 1013, 1001, 1012, 1000];
                let mut code = codes[self.rng.usize(..codes.len())];
                // It would look like the answer to the Close of ours that it crosses.
                if [1000, close_frame().code].contains(&code) && self.is_migrating {
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
                self.may_end = self.may_end.or(if self.backend().frames.is_empty() {
                    None
                } else {
                    Some("relieved, and answers within a message")
                });
                self.is_migrating = true;
                self.relay().migrate(self.session, &close_frame());
            }
            36 if self.rng.u8(..10) == 0 => {
                self.may_end = Some("forsaken");
                self.relay().give_up_migration(self.session);
            }
            37 if self.rng.u8(..20) == 0 => {
                self.may_end = Some("parted");
                self.relay().close_one(self.session, &close_frame());
            }
            38 if self.rng.u8(..10) == 0 => {
                self.may_end = Some("the client is reset");
                self.client.wire.reset();
                self.client.seen = Some(Seen::Reset);
            }
            39 => self.answer(),
            _ => self.attach(),
        }
        self.collect();
    }

    /// The session goes on in the other relay, or where it was, if it can move now.
    pub fn shift(&mut self) {
        let (mut frozen, from) = self.bench.freeze();
        let Some(frozen) = frozen.pop() else {
            return;
        };
        let state = frozen.export().unwrap();
        let resumes = state.frames.is_some_and(|one| one.resume.is_some());
        if self.moves.u8(..4) == 0 {
            frozen.thaw();
            self.at = from;
        } else {
            let resume = ArrivingResume {
                migrator: Arc::clone(&self.migrator) as Arc<dyn Migrator>,
                settings: None,
            };
            let guards = self.lease.guards_again();
            let resume = resumes.then_some(resume);
            self.bench.land(frozen, from, guards, resume);
            self.at = 1 - from;
        }
        // Its search begins again there.
        let mut is_sought = state.gap.is_none();
        while !is_sought {
            let sought = self.sought.recv_timeout(LONG).expect("no search");
            is_sought = sought.gone.is_counted;
            self.note(sought);
        }
        // Its name is another one from here on.
        let sessions = wait_for(self.relay().list_all(Filter::default()));
        if let Some(session) = sessions.first() {
            self.session = session.handle;
        }
    }

    fn relay(&self) -> &Relay {
        [&self.bench.relay, &self.bench.other][self.at]
    }

    pub fn die(&mut self, how: Went) {
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
    pub fn heard_of(&self, backend: usize) -> u32 {
        let of = |message: &&u32| (**message >> 24) as usize == backend;
        self.client.messages.iter().filter(of).count() as u32
    }

    /// Everybody reads and writes what there is.
    pub fn go_on(&mut self) -> bool {
        let mut moved = false;
        for peer in self.backends.iter_mut().chain([&mut self.client]) {
            moved |= peer.read(70_000);
            peer.write(usize::MAX);
        }
        self.answer();
        self.collect();
        if self.open_gap.is_some() && self.client.seen.is_none() {
            self.attach();
            moved = true;
        }
        moved
    }

    pub fn settle(&mut self) {
        let begun = Instant::now();
        let mut sent = None;
        while self.client.seen.is_none() {
            assert!(begun.elapsed() < LONG, "it hangs: {}", self.describe());
            if !self.go_on() {
                std::thread::park_timeout(Duration::from_micros(300));
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
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        self.client.wire = Wire::Gone;
        let begun = Instant::now();
        while !self.lease.has_come() {
            assert!(begun.elapsed() < LONG, "it never ends: {}", self.describe());
            self.go_on();
        }
        for backend in &mut self.backends {
            while backend.read(1 << 20) {}
        }
    }
}
