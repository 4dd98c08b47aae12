//! Phases of a session, each with its data, and the outcomes of a turn.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::DropGuard;

use super::clock::{Tick, Ticks};
use super::connect_handler::{ConnectFailure, ConnectHandler};
use super::info::SessionState;
use super::resume_policy::LostMessages;
use super::websocket::close_frame::CloseFrame;
use crate::observe::{Cause, Termination};

/// The wait for a boundary between two frames; a frame that takes longer is cut off.
pub(super) const BOUNDARY_WAIT: Duration = Duration::from_secs(5);
/// The wait for the answer to a Close, as the closing handshake wants it (RFC 6455 section 7.1.1).
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Beyond `settle`, for an answer about a loss that was given and has not come.
const LATE_VERDICT: Duration = Duration::from_secs(1);

/// Outcome of a turn: the worker's next step with the session.
#[derive(Debug)]
pub(super) enum TurnOutcome {
    /// Wait for an event.
    Wait,
    /// Give it another turn.
    Again,
    /// Look again soon: it waits for something of which no event tells.
    Soon,
    Ended(Termination),
    /// Ask whether its backend is lost: it has ended the session without a Close.
    QueryLoss,
    /// Look for another backend: its own is lost.
    BackendLost,
    /// The backend could not serve it, and nothing was lost: the client goes back to its handler.
    ConnectFailed(ConnectFailure),
}

/// Phase of a session. Only `Open` lasts for hours, so the data of all others is boxed.
#[derive(Default)]
pub(super) enum SessionPhase {
    /// Bytes pass both ways.
    #[default]
    Open,
    /// The connect to the backend is under way.
    Connecting(Box<Handler>),
    /// The backend is connected, and no byte and no FIN of the client has gone either way.
    Unserved(Box<Handler>),
    /// The backend has ended a WebSocket without a Close: whether that is a loss is being asked.
    InDoubt(Box<LossQuery>),
    /// A WebSocket is taken from its backend by our decision.
    Migrating(Box<Migration>),
    /// A WebSocket is between two backends.
    Gap(Box<BackendGap>),
    /// The client of a WebSocket did wrong: its backend's last answers are waited for.
    Refusing(Box<ClientRefusal>),
    /// The sides of a WebSocket are sent a Close, and have a while to answer it.
    Closing(Box<ClosingHandshake>),
    /// A leg is broken. The other, which is this one, gets a RST as soon as its queue is sent, at
    /// the latest `fin_timeout` after the last activity.
    Resetting { side: u8, end: Termination },
}

/// A session has one, for hours.
const _: () = assert!(size_of::<SessionPhase>() <= 16);

/// Takes the client back if the backend does not serve.
pub(super) type Handler = Box<dyn ConnectHandler>;

/// A question whether a backend is lost.
pub(super) struct LossQuery {
    /// When the backend's leg ended.
    pub since: Tick,
    pub is_lost: Option<bool>,
    /// Ends the wait for the answer; there as soon as it was begun.
    pub wait: Option<DropGuard>,
}

impl LossQuery {
    pub(super) fn new(since: Tick) -> LossQuery {
        LossQuery {
            since,
            is_lost: None,
            wait: None,
        }
    }
}

/// A move away from the present backend.
pub(super) struct Migration {
    /// The begin of its present step.
    pub since: Tick,
    pub step: MigrationStep,
    /// For both sides where the session cannot be moved; for the backend where it can.
    pub frame: Arc<CloseFrame>,
}

/// Progress of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationStep {
    /// The present message of the client passes.
    Boundary,
    /// The client's messages are left to the kernel, and the backend answers those before.
    Answers,
    /// The backend was sent a Close. `was_quiet`: it had been sent nothing for `settle`.
    Closing { was_quiet: bool },
}

impl Migration {
    pub(super) fn new(frame: &Arc<CloseFrame>, now: Tick) -> Migration {
        Migration {
            since: now,
            step: MigrationStep::Boundary,
            frame: Arc::clone(frame),
        }
    }

    pub(super) fn go_on(&mut self, step: MigrationStep, now: Tick) {
        self.step = step;
        self.since = now;
    }

    /// Whether the backend was sent a Close.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.step, MigrationStep::Closing { .. })
    }
}

/// The time between two backends.
pub(super) struct BackendGap {
    /// The begin of its time.
    pub since: Tick,
    /// When the backend's leg ended: before that was known to be a loss.
    pub ended: Tick,
    /// Bytes of the client since then.
    pub held: Vec<u8>,
    /// Messages that went with the backend.
    pub lost: LostMessages,
    /// How the backend's leg ended.
    pub cause: Cause,
    /// The backend went as soon as it came.
    pub was_short: bool,
    /// Ends the search for another backend; there as soon as it was begun.
    pub search: Option<DropGuard>,
}

/// The wait for the last answers of a backend whose client is refused.
pub(super) struct ClientRefusal {
    pub began: Tick,
    /// For the client, behind those answers.
    pub frame: CloseFrame,
    /// The backend is sent a Close, too.
    pub notifies_backend: bool,
    pub end: Termination,
}

/// A Close that we send.
pub(super) struct ClosingHandshake {
    pub began: Tick,
    /// When the last side was sent its Close.
    pub sent: Option<Tick>,
    /// Sides that are sent one.
    pub notifies: [bool; 2],
    pub end: Termination,
}

impl ClosingHandshake {
    /// The time that is left.
    pub(super) fn left(&self, now: Tick) -> Duration {
        let (since, wait) = match self.sent {
            None => (self.began, BOUNDARY_WAIT),
            Some(sent) => (sent, ANSWER_WAIT),
        };
        Ticks::from(wait).left(now.since(since))
    }
}

impl SessionPhase {
    /// Whether its connect is under way.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self, SessionPhase::Connecting(_))
    }

    /// Whether it is being ended with a Close.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, SessionPhase::Refusing(_) | SessionPhase::Closing(_))
    }

    /// Whether it is between two backends, or about to be.
    pub(super) fn is_changing_backend(&self) -> bool {
        matches!(
            self,
            SessionPhase::InDoubt(_) | SessionPhase::Migrating(_) | SessionPhase::Gap(_)
        )
    }

    /// The phase as others see it.
    pub(super) fn state(&self) -> SessionState {
        if self.is_closing() {
            SessionState::Closing
        } else if self.is_changing_backend() {
            SessionState::ChangingBackend
        } else {
            SessionState::Relaying
        }
    }

    /// Time left of a change of the backend.
    pub(super) fn change_left(
        &self,
        settle: Duration,
        timeout: Duration,
        now: Tick,
    ) -> Option<Duration> {
        let (since, wait) = match self {
            SessionPhase::InDoubt(query) => (query.since, settle.saturating_add(LATE_VERDICT)),
            SessionPhase::Migrating(migration) => (
                migration.since,
                match migration.step {
                    MigrationStep::Boundary => BOUNDARY_WAIT,
                    MigrationStep::Answers => settle,
                    MigrationStep::Closing { .. } => ANSWER_WAIT,
                },
            ),
            SessionPhase::Gap(gap) => (gap.since, timeout),
            _ => return None,
        };
        Some(Ticks::from(wait).left(now.since(since)))
    }
}
