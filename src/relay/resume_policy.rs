//! The data path's part in a session that outlives its backend: it finds another backend, and hands
//! its socket to the relay.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::handoff::{SessionGuards, SocketHandoff};
use super::key::Handle;
use crate::config;
use crate::observe::ConnectionRecord;
use crate::wire::moved::MovedMigrator;

/// Means by which a WebSocket goes on with another backend.
pub(crate) struct ResumePolicy {
    /// The pool's when the session began.
    pub settings: Arc<config::Resume>,
    pub migrator: Arc<dyn Migrator>,
}

/// Finds a session another backend. Kept for the session's whole life; its calls are made on a
/// relay thread and must not wait.
pub(crate) trait Migrator: Send + Sync {
    /// Finds out whether a backend that has ended the session without a Close is lost to it.
    /// `None`: it is. Otherwise [`Relay::judged`](super::Relay::judged) tells within the settings'
    /// `settle`. Dropping the guard ends the wait.
    fn judge_loss(
        &self,
        session: Handle,
        settings: &config::Resume,
        guards: &SessionGuards,
    ) -> Option<DropGuard>;

    /// Gives up the lease of a session that has lost its backend, and begins to look for another
    /// one. The answer is [`Relay::attach`](super::Relay::attach) or
    /// [`Relay::give_up_migration`](super::Relay::give_up_migration). Dropping the guard ends the
    /// search.
    fn find_backend(self: Arc<Self>, lost: LostBackend, guards: &mut SessionGuards) -> DropGuard;

    /// Everything that it keeps, for a session that moves to another process.
    fn export(&self) -> MovedMigrator;
}

/// A backend that is gone, and the session that it left.
#[derive(Debug, Clone)]
pub(crate) struct LostBackend {
    pub session: Handle,
    pub lost: LostMessages,
    /// The backend went as soon as it came: the next may do the same, and nothing is gained by
    /// haste.
    pub was_short: bool,
    /// The name of its backend.
    pub from: Option<Arc<str>>,
    /// The search was begun before, by a relay that the session has left: the loss is counted
    /// already.
    pub is_counted: bool,
}

/// Messages of the client that the backend may not have taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostMessages {
    /// The backend was sent messages, and did not answer a Close of ours behind them.
    Unknown,
    /// This many at most.
    AtMost(u32),
}

impl LostMessages {
    /// `None`: not known.
    pub(super) fn of_count(count: Option<u32>) -> LostMessages {
        count.map_or(LostMessages::Unknown, LostMessages::AtMost)
    }

    /// `None`: not known.
    pub(crate) fn at_most(self) -> Option<u32> {
        match self {
            LostMessages::Unknown => None,
            LostMessages::AtMost(count) => Some(count),
        }
    }

    /// Lost with two backends, one after the other.
    pub(crate) fn and(self, other: LostMessages) -> LostMessages {
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

/// Another backend, after its handshake.
pub(crate) struct NewBackend {
    pub leg: SocketHandoff,
    /// Puts its lease into the session's guards, and writes to the record.
    pub install: Install,
}

/// Change of a session's guards and record as it gets another backend.
pub(super) type Install = Box<dyn FnOnce(&mut SessionGuards, &mut ConnectionRecord) + Send>;
