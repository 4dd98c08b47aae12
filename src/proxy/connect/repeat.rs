//! The rule for a request that a backend got and did not answer: whether another backend is asked
//! with it, and whether the backend is charged. A request that kills its backend must not go round
//! the pool.

use std::io;
use std::task::Poll;
use std::time::Instant;

use crate::config;
use crate::pool::Backend;

/// Record of what has passed on one connection to a backend.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Contact {
    has_sent: bool,
    has_heard: bool,
    has_reset: bool,
}

impl Contact {
    /// A connection on which something has passed before.
    pub(crate) fn going_on(has_sent: bool, has_heard: bool, has_reset: bool) -> Contact {
        Contact {
            has_sent,
            has_heard,
            has_reset,
        }
    }

    /// Whether a byte of the request has left.
    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether a byte of the backend has come.
    pub(crate) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Whether the backend has reset the connection in place of an answer.
    pub(crate) fn was_reset(&self) -> bool {
        self.has_reset && !self.has_heard
    }

    /// Notes writes and what has become of the last of them. `has_sent`: bytes were taken.
    pub(crate) fn note_write(&mut self, has_sent: bool, poll: &Poll<io::Result<usize>>) {
        self.has_sent |= has_sent;
        self.has_reset |= is_reset(poll);
    }

    pub(crate) fn note_read(&mut self, poll: &Poll<io::Result<usize>>) {
        self.has_heard |= matches!(poll, Poll::Ready(Ok(1..)));
        self.has_reset |= is_reset(poll);
    }
}

fn is_reset(poll: &Poll<io::Result<usize>>) -> bool {
    matches!(poll, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
}

/// Whether a request that one backend did not answer may be sent to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Repeat {
    /// Nothing of it was sent, or the backend's leave was announced: that is no death.
    Free,
    /// The backend may have died of it, and the pool's `retry_on` has `empty_response`.
    Chosen,
    Never,
}

/// Charges a backend for a request that it got at `begun` and did not answer, and says whether that
/// may be repeated. Charged is a reset so early that it can be no answer to a client's silence, as
/// on a `tcp` listener. A FIN is an orderly end and charged to no backend: many servers refuse a
/// handshake so.
pub(in crate::proxy) fn unanswered(
    contact: &Contact,
    backend: &Backend,
    begun: Instant,
    pool: &config::Pool,
) -> Repeat {
    let now = Instant::now();
    let is_early = now.duration_since(begun) <= pool.connect_timeout;
    if contact.was_reset() && is_early && !backend.is_leaving() {
        backend.failed_to_answer(now, "reset in place of an answer");
    }
    if contact.has_heard() {
        Repeat::Never
    } else if !contact.has_sent() || backend.is_leaving() {
        Repeat::Free
    } else if pool.retry_on.empty_response {
        Repeat::Chosen
    } else {
        Repeat::Never
    }
}
