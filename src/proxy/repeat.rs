//! The rule for a request that a backend took and did not answer: whether another backend is asked with it, and whether the
//! backend is charged. A request that kills its backend must not go round the pool.

use std::time::{Duration, Instant};

use super::backend_line::Contact;
use crate::config;
use crate::pool::Backend;

/// Whether a handshake that failed at `backend` may be sent to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing of it was sent, or the backend's leave was announced: that is no death.
    Free,
    /// The backend may have died of it, and the pool's `retry_on` has `empty_response`.
    Chosen,
    Never,
}

impl Repeat {
    pub(super) fn of(contact: &Contact, backend: &Backend, pool: &config::Pool) -> Repeat {
        match () {
            () if contact.has_heard() => Repeat::Never,
            () if !contact.has_sent() || backend.is_leaving() => Repeat::Free,
            () if pool.retry_on.empty_response => Repeat::Chosen,
            () => Repeat::Never,
        }
    }
}

/// Charges a backend that has reset a request so early that it can be no answer to a client's silence, as on a `tcp`
/// listener. A FIN is its orderly word and charged to nobody: many servers refuse a handshake so.
pub(super) fn charge_reset(
    contact: &Contact,
    backend: &Backend,
    begun: Instant,
    connect_timeout: Duration,
) {
    let now = Instant::now();
    let is_early = now.duration_since(begun) <= connect_timeout;
    if contact.was_reset() && is_early && !backend.is_leaving() {
        backend.failed_to_answer(now, "reset in place of an answer");
    }
}
