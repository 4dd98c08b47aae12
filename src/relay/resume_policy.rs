//! A session that outlives its backend, as the relay sees it: who finds another one, what that one is told, and how it takes
//! its place.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::inbox::WorkerCommand;
use super::{Handle, Relay, SessionGuards, SocketHandoff};
use crate::config;
use crate::observe::ConnectionRecord;

/// What lets a WebSocket go on with another backend.
pub struct ResumePolicy {
    /// As they were when the session began.
    pub settings: Arc<config::Resume>,
    pub migrator: Arc<dyn Migrator>,
}

/// Finds a session another backend. Kept for the session's whole life; its calls are made on a relay thread and must not wait.
pub trait Migrator: Send + Sync {
    /// The backend has ended the session without a Close. `None`: it is lost to the session.
    /// Otherwise a [`Relay::judged`] tells within the settings' `settle` whether it is. Dropping
    /// what is returned ends the wait.
    fn judge_loss(
        &self,
        session: Handle,
        settings: &config::Resume,
        guards: &SessionGuards,
    ) -> Option<DropGuard>;

    /// The session has lost its backend: gives up its lease there, and begins to look for another one. The answer
    /// is a [`Relay::attach`] or a [`Relay::forsake`]. Dropping what is returned ends the search.
    fn find_backend(self: Arc<Self>, gone: LostBackend, guards: &mut SessionGuards) -> DropGuard;
}

/// What is known of a backend's leg that is gone.
#[derive(Debug, Clone)]
pub struct LostBackend {
    pub session: Handle,
    pub lost: LostMessages,
    /// The backend went as soon as it came: the next may do the same, and nothing is gained by haste.
    pub was_short: bool,
    /// The name of its backend.
    pub from: Option<Arc<str>>,
}

/// Messages of the client that the backend may not have taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostMessages {
    /// It was told messages, and did not answer a Close of ours behind them.
    Unknown,
    /// So many at most.
    AtMost(u32),
}

impl LostMessages {
    /// `None`: not known.
    pub fn at_most(self) -> Option<u32> {
        match self {
            LostMessages::Unknown => None,
            LostMessages::AtMost(count) => Some(count),
        }
    }
}

impl LostMessages {
    /// With two backends, one after the other.
    pub fn and(self, other: LostMessages) -> LostMessages {
        match (self.at_most(), other.at_most()) {
            (Some(one), Some(other)) => LostMessages::AtMost(one.saturating_add(other)),
            _ => LostMessages::Unknown,
        }
    }
}

impl fmt::Display for LostMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostMessages::Unknown => f.write_str("unknown"),
            LostMessages::AtMost(count) => write!(f, "{count}"),
        }
    }
}

/// The leg of another backend, after its handshake.
pub struct NewBackend {
    pub leg: SocketHandoff,
    /// Puts its lease into the session's, and writes to the record.
    pub install: Install,
}

/// What is done to a session's guards and record as it changes its backend.
pub type Install = Box<dyn FnOnce(&mut SessionGuards, &mut ConnectionRecord) + Send>;

impl Relay {
    /// Tells whether the backend that ended a session without a Close is lost to it.
    pub fn judged(&self, session: Handle, is_lost: bool) {
        self.tell(session, |key| WorkerCommand::Judged(key, is_lost));
    }

    /// Gives a session that has lost its backend another one. If the session is gone meanwhile, the leg is closed.
    pub fn attach(&self, session: Handle, successor: NewBackend) {
        self.tell(session, |key| {
            WorkerCommand::Attach(key, Box::new(successor))
        });
    }

    /// There is no other backend for the session: it is ended.
    pub fn give_up_migration(&self, session: Handle) {
        self.tell(session, WorkerCommand::Forsake);
    }
}
