//! A session on its way to another relay, of this process or of another one.
//!
//! [`Relay::freeze_others`](super::Relay::freeze_others) takes sessions out of a worker's care:
//! their sockets leave its epoll, and nobody reads or writes them. A [`FrozenSession`] owns
//! its session until it is given up for good ([`FrozenSession::commit`]) or goes on where it was
//! ([`FrozenSession::thaw`], or by dropping it). [`Relay::adopt_moved`](super::Relay::adopt_moved)
//! takes one in whose state has come as [`MovedSession`](crate::wire::moved::MovedSession). No
//! worker knows how the state and the sockets travel.
//!
//! The sockets are duplicated on their way, so while the old side holds its copies, a close of the
//! new one's sends neither FIN nor RST: commit as soon as the new side has the session.

mod arriving;
mod export;
mod frozen;
mod import;

use std::fmt;

pub(super) use self::arriving::Adoption;
pub(crate) use self::arriving::{ArrivalError, ArrivingParts, ArrivingResume, ArrivingSession};
#[cfg(test)]
pub(crate) use self::frozen::Ghost;
pub(super) use self::frozen::{Freeze, FreezeReply, Thawing};
pub(crate) use self::frozen::{FrozenBatch, FrozenSession};

/// Sessions that are frozen at once. The last of them waits for the states of all to be written.
/// With fewer the messages cost more than the states. A prototype moved 9,000 sessions between two
/// processes so in 0.1 s, each frozen for 0.2 ms on average.
pub(crate) const MAX_BATCH: usize = 16;

/// Reason for which a session stays where it is, for a bounded time or for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum StayReason {
    /// The backend is being connected: at most `connect_timeout`.
    Connecting,
    /// Whether its backend is lost is being asked: at most `resume.settle` and a second.
    InDoubt,
    /// The session leaves its backend: at most about 15 seconds.
    LeavingBackend,
    /// Closed by us, and its peers may answer: at most 10 seconds.
    Closing,
    /// A reset waits for the bytes before it: at most `fin_timeout`.
    Resetting,
    /// The keys of a TLS leg cannot be exported, or its peer broke the protocol.
    Keys,
    /// The other relay has declined it.
    Declined,
    /// Bytes in a pipe could not be taken out of it.
    Pipe,
}

impl StayReason {
    /// Word for logs and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            StayReason::Connecting => "connecting",
            StayReason::InDoubt => "in_doubt",
            StayReason::LeavingBackend => "leaving_backend",
            StayReason::Closing => "closing",
            StayReason::Resetting => "resetting",
            StayReason::Keys => "keys",
            StayReason::Declined => "declined",
            StayReason::Pipe => "pipe",
        }
    }
}

impl fmt::Display for StayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
