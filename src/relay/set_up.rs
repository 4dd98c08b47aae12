//! Connections that a relay thread sets up: a WebSocket's request is read, sent on and answered
//! without a change of threads. The data path says what is to be done, the relay moves the bytes.
//! Whatever takes longer, or is not the usual case, leaves for the set-up plane.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::connect_handler::ConnectFailure;
use super::handoff::{SocketHandoff, Transport};
use super::leg::{Connect, Input, Leg, Readiness};
use super::new_session::NewSession;
use super::scratch::Scratch;
use crate::observe::{Cause, Phase, Side, Termination};

/// Time between two looks at a connection in set-up. A head comes right behind its connection, and
/// most backends answer sooner: whoever waits longer does so on the set-up plane.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(100);
/// Bytes of a head that are read here; a longer one is the set-up plane's.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Decisions on a connection that is set up on a relay thread. Its calls are made there, and must
/// not wait.
pub(crate) trait SetUp: Send {
    /// Looks at all that the client has sent.
    fn request(&mut self, read: &[u8]) -> SetUpStep;

    /// Notes that the backend is connected.
    fn connected(&mut self);

    /// Decides on a connect that has lasted for this long: `None` waits on.
    fn gives_up(&mut self, waited: Duration) -> Option<ConnectFailure>;

    /// Goes on where the backend cannot be connected.
    fn failed(&mut self, failure: ConnectFailure) -> SetUpStep;

    /// Looks at all that the backend has sent.
    fn answer(&mut self, read: &[u8]) -> SetUpStep;

    /// Makes it a session of these ends, once the client was sent the answer.
    fn into_session(
        self: Box<Self>,
        client: SocketHandoff,
        backend: SocketHandoff,
    ) -> Option<NewSession>;

    /// Takes the connection to the set-up plane.
    fn leave(self: Box<Self>, left: LeftSetUp);

    /// Ends the connection.
    fn end(self: Box<Self>, end: Termination);
}

/// Next step of a set-up.
pub(crate) enum SetUpStep {
    /// More bytes are needed.
    Wait,
    /// A connect has begun.
    Connect {
        socket: OwnedFd,
        /// Goes to the backend once it is connected.
        request: Vec<u8>,
        /// Bytes that were taken from the start of the client's.
        taken: usize,
    },
    /// The answer is the client's, and the rest a session's.
    Switch {
        /// Goes to the client.
        answer: Vec<u8>,
        /// Bytes that were taken from the start of the backend's.
        taken: usize,
    },
    /// It goes on on the set-up plane.
    Leave,
}

/// A connection on its way to the set-up plane.
pub(crate) struct LeftSetUp {
    /// With all that it has sent, but for what was taken.
    pub client: SocketHandoff,
    /// It has sent a FIN, and all before it was read.
    pub has_finished: bool,
    /// It has sent a FIN, perhaps behind bytes that are not read.
    pub is_ending: bool,
    pub backend: Option<LeftBackend>,
}

/// A connected backend that has not given a usual answer.
pub(crate) struct LeftBackend {
    pub handoff: SocketHandoff,
    /// The part of the request that is not sent.
    pub unsent: Vec<u8>,
    /// Some of the request was sent.
    pub has_sent: bool,
    pub was_reset: bool,
}

/// A connection in set-up.
pub(super) struct SettingUp {
    pub set_up: Box<dyn SetUp>,
    client: Leg,
    /// Bytes of the client that were not taken.
    read: Vec<u8>,
    backend: Option<BackendSide>,
    /// When the present wait began.
    since: Instant,
    /// The client has sent a FIN, and all before it was read.
    has_finished: bool,
    /// Stands in the worker's list of those that get a turn.
    is_queued: bool,
}

/// A backend that is being connected or has been sent the request.
struct BackendSide {
    leg: Leg,
    request: Vec<u8>,
    sent: usize,
    read: Vec<u8>,
    is_connected: bool,
    is_over: bool,
}

impl BackendSide {
    /// The phase that its set-up has come to.
    fn phase(&self) -> Phase {
        if self.is_connected {
            Phase::Upgrade
        } else {
            Phase::Connect
        }
    }
}

/// Outcome of a turn: the worker's next step with it.
pub(super) enum SetUpOutcome {
    Wait,
    /// The backend's socket is to be watched.
    Watch,
    /// It is a session. The client was sent its answer.
    Session,
    Leave,
    Ended(Termination),
}

impl SettingUp {
    pub(super) fn new(set_up: Box<dyn SetUp>, client: Leg, now: Instant) -> SettingUp {
        SettingUp {
            set_up,
            client,
            read: Vec::new(),
            backend: None,
            since: now,
            has_finished: false,
            is_queued: false,
        }
    }

    /// True unless it waits for a turn already.
    pub(super) fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    pub(super) fn client(&mut self) -> &mut Leg {
        &mut self.client
    }

    pub(super) fn backend(&mut self) -> Option<&mut Leg> {
        self.backend.as_mut().map(|backend| &mut backend.leg)
    }

    /// Goes on after an event.
    pub(super) fn turn(&mut self, scratch: &mut Scratch, now: Instant) -> SetUpOutcome {
        self.is_queued = false;
        let Some(backend) = &mut self.backend else {
            return self.read_request(scratch, now);
        };
        if self.client.is_ending() {
            // There is no session for a client that has left.
            let cause = if self.client.is_broken() {
                Cause::Rst
            } else {
                Cause::Fin
            };
            backend.leg.reset();
            let end = Termination::new(Side::Client, backend.phase(), cause);
            return SetUpOutcome::Ended(end);
        }
        match backend.leg.connect() {
            Connect::UnderWay => SetUpOutcome::Wait,
            Connect::Failed => {
                let failure = ConnectFailure::Connect(backend.leg.connect_error());
                self.fail(failure, now)
            }
            Connect::Done => self.exchange(scratch, now),
        }
    }

    /// Looks at a wait that has lasted for [`LOOK_AFTER`] or longer.
    pub(super) fn look(&mut self, now: Instant) -> SetUpOutcome {
        // One that is reached has an event on its way.
        if self.backend.as_ref().is_none_or(|one| one.is_connected) {
            return SetUpOutcome::Leave;
        }
        let waited = now.saturating_duration_since(self.since);
        match self.set_up.gives_up(waited) {
            None => SetUpOutcome::Wait,
            Some(failure) => {
                // It may be connected this very moment: no FIN is to look like a client's.
                if let Some(leg) = self.backend() {
                    leg.reset();
                }
                self.fail(failure, now)
            }
        }
    }

    fn fail(&mut self, failure: ConnectFailure, now: Instant) -> SetUpOutcome {
        self.backend = None;
        let step = self.set_up.failed(failure);
        self.take_step(step, now)
    }

    fn read_request(&mut self, scratch: &mut Scratch, now: Instant) -> SetUpOutcome {
        loop {
            let room = MAX_HEAD_BYTES.saturating_sub(self.read.len());
            if room == 0 {
                return SetUpOutcome::Leave;
            }
            match self.client.read(scratch, room, false) {
                Input::Data(count) => {
                    let came = scratch.plain.get(..count).unwrap_or_default();
                    self.read.extend_from_slice(came);
                    if self.client.is_ending() {
                        // The set-up plane knows what to do with a client that has finished.
                        continue;
                    }
                    match self.set_up.request(&self.read) {
                        SetUpStep::Wait => {}
                        step => return self.take_step(step, now),
                    }
                }
                Input::Blocked | Input::Short => return SetUpOutcome::Wait,
                Input::Fin => {
                    self.has_finished = true;
                    return SetUpOutcome::Leave;
                }
                Input::Broken => {
                    let end = Termination::new(Side::Client, Phase::Head, Cause::Rst);
                    return SetUpOutcome::Ended(end);
                }
            }
        }
    }

    fn take_step(&mut self, step: SetUpStep, now: Instant) -> SetUpOutcome {
        match step {
            SetUpStep::Wait => SetUpOutcome::Wait,
            SetUpStep::Leave => SetUpOutcome::Leave,
            SetUpStep::Connect {
                socket,
                request,
                taken,
            } => {
                self.read.drain(..taken.min(self.read.len()));
                self.since = now;
                self.backend = Some(BackendSide {
                    leg: Leg::new(socket, Transport::Raw, true),
                    request,
                    sent: 0,
                    read: Vec::new(),
                    is_connected: false,
                    is_over: false,
                });
                SetUpOutcome::Watch
            }
            SetUpStep::Switch { answer, taken } => {
                if let Some(backend) = &mut self.backend {
                    backend.read.drain(..taken.min(backend.read.len()));
                }
                // A fresh socket has room for a head; a leg that breaks takes everything.
                if self.client.write(&answer, &mut []) == answer.len() {
                    return SetUpOutcome::Session;
                }
                self.client.reset();
                let end = Termination::new(Side::Evenkeel, Phase::Upgrade, Cause::Error);
                SetUpOutcome::Ended(end)
            }
        }
    }

    /// Sends the request and reads the answer.
    fn exchange(&mut self, scratch: &mut Scratch, now: Instant) -> SetUpOutcome {
        let Some(backend) = &mut self.backend else {
            return SetUpOutcome::Leave;
        };
        if !std::mem::replace(&mut backend.is_connected, true) {
            self.set_up.connected();
            self.since = now;
        }
        let rest = backend.request.get(backend.sent..).unwrap_or_default();
        if !rest.is_empty() && backend.leg.is_writable() {
            backend.sent += backend.leg.write(rest, &mut []);
        }
        loop {
            let room = MAX_HEAD_BYTES.saturating_sub(backend.read.len());
            if room == 0 {
                return SetUpOutcome::Leave;
            }
            match backend.leg.read(scratch, room, false) {
                Input::Data(count) => {
                    let came = scratch.plain.get(..count).unwrap_or_default();
                    backend.read.extend_from_slice(came);
                    match self.set_up.answer(&backend.read) {
                        SetUpStep::Wait => {}
                        step => return self.take_step(step, now),
                    }
                }
                Input::Blocked | Input::Short => return SetUpOutcome::Wait,
                Input::Fin | Input::Broken => {
                    backend.is_over = true;
                    return SetUpOutcome::Leave;
                }
            }
        }
    }

    /// Makes it a session, and gives back which events its legs have had.
    pub(super) fn into_session(self) -> Option<(NewSession, [Readiness; 2])> {
        let backend = self.backend?;
        let readiness = [self.client.readiness(), backend.leg.readiness()];
        let mut client = self.client.into_handoff()?;
        client.read = self.read;
        let mut handoff = backend.leg.into_handoff()?;
        handoff.read = backend.read;
        let session = self.set_up.into_session(client, handoff)?;
        Some((session, readiness))
    }

    /// Ends it as the process stops.
    pub(super) fn stop(self) {
        self.client.reset();
        let phase = self
            .backend
            .as_ref()
            .map_or(Phase::Head, BackendSide::phase);
        self.end(Termination::new(Side::Evenkeel, phase, Cause::Stop));
    }

    /// Closes both sockets and ends the connection.
    pub(super) fn end(self, end: Termination) {
        drop((self.client, self.backend));
        self.set_up.end(end);
    }

    /// Takes it to the set-up plane. Its sockets are in no epoll any more.
    pub(super) fn leave(self) {
        let is_ending = self.client.is_ending();
        let Some(mut client) = self.client.into_handoff() else {
            return;
        };
        client.read = self.read;
        let backend = self.backend.and_then(|backend| {
            let was_reset = backend.leg.is_broken();
            let mut handoff = backend.leg.into_handoff()?;
            handoff.read = backend.read;
            Some(LeftBackend {
                handoff,
                unsent: backend.request.get(backend.sent..)?.to_vec(),
                has_sent: backend.sent > 0,
                was_reset: was_reset && backend.is_over,
            })
        });
        self.set_up.leave(LeftSetUp {
            client,
            has_finished: self.has_finished,
            is_ending,
            backend,
        });
    }
}
