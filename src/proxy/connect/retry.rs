//! One client's search for a backend: from what has happened, what is to be done next. Every
//! decision is made here, once: what to pick, whom to charge, whether to try again, when it is
//! over.
//!
//! It has no socket and no wait, so that the set-up plane and a relay thread can drive it, and a
//! search may begin on one and go on on the other with all it has counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::error::BackendUnavailable;
use super::repeat::Repeat;
use crate::base::log_throttle::LogThrottle;
use crate::base::units::format_duration;
use crate::net::{ConnectError, OVERDUE_AFTER};
use crate::observe::{Cause, ConnectionRecord, Phase};
use crate::pool::{AcquireError, Backend, BackendRequest, Lease, Pool};
use crate::relay::ConnectFailure;

/// Between two warnings of a shortage: it hits every connection.
const SHORTAGE_SPACING: Duration = Duration::from_secs(10);

/// The next step of a search.
#[derive(Debug)]
#[must_use = "it may hold a lease"]
pub(in crate::proxy) enum RetryStep {
    /// Ask the pool with [`RetryState::request`], at once or in its queue; then
    /// [`RetryState::picked`].
    Pick,
    /// Connect to the backend of this lease; then [`ConnectAttempt::connected`] or
    /// [`RetryState::failed`].
    Connect(Lease),
    /// The end: there is no backend for the client.
    Refuse(BackendUnavailable),
}

/// The request of one client for a backend, and what was tried.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RetryState {
    /// The client's address, for `ip_hash`, and for `hash` without a key.
    pub client: Option<IpAddr>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
    /// The backend of the client's sticky cookie.
    pub preferred: Option<Arc<Backend>>,
    /// Backends that did not serve, in order.
    tried: Vec<Arc<Backend>>,
    bound: RetryBound,
}

/// How often a search may try again.
#[derive(Debug, Default)]
enum RetryBound {
    /// The pool's `retries`: a client in set-up waits.
    #[default]
    Retries,
    /// Until the search is dropped: a live session waits for another backend. Only requests that a
    /// backend may have died of are bounded by `retries`; so many were not answered.
    Time { unanswered: u8 },
}

/// A connect attempt that is under way, or was connected and has not served yet.
#[derive(Debug)]
pub(in crate::proxy) struct ConnectAttempt {
    pub backend: Arc<Backend>,
    /// When its connect began.
    pub begun: Instant,
    /// Connects to its backend that had succeeded by then, modulo 2^32.
    connects_before: u32,
    /// Its backend was charged when it was overdue.
    is_blamed: bool,
}

impl RetryState {
    /// A search for a client in set-up.
    pub(crate) fn new(
        client: Option<IpAddr>,
        key: Option<Box<[u8]>>,
        preferred: Option<Arc<Backend>>,
    ) -> RetryState {
        RetryState {
            client,
            key,
            preferred,
            ..RetryState::default()
        }
    }

    /// A search for a live session that has lost its backend.
    pub(crate) fn of_session(
        client: Option<IpAddr>,
        key: Option<Box<[u8]>>,
        lost: Option<Arc<Backend>>,
    ) -> RetryState {
        RetryState {
            tried: lost.into_iter().collect(),
            bound: RetryBound::Time { unanswered: 0 },
            ..RetryState::new(client, key, None)
        }
    }

    pub(crate) fn begin(record: &mut ConnectionRecord) -> RetryStep {
        record.enter(Phase::Queue);
        RetryStep::Pick
    }

    /// The request to the pool.
    pub(crate) fn request(&self) -> BackendRequest<'_> {
        BackendRequest {
            client: self.client,
            key: self.key.as_deref(),
            preferred: self.preferred.as_ref(),
            by_hash: None,
            tried: &self.tried,
        }
    }

    /// Goes on with the pool's answer.
    pub(crate) fn picked(
        &self,
        pool: &Pool,
        answer: Result<Lease, AcquireError>,
        record: &mut ConnectionRecord,
    ) -> RetryStep {
        let lease = match answer {
            Ok(lease) => lease,
            Err(error) => return refuse(pool, error.into()),
        };
        let other = |tried: &Arc<Backend>| !Arc::ptr_eq(tried, lease.backend());
        if self.tried.last().is_some_and(other) {
            pool.counters().redispatches.fetch_add(1, Ordering::Relaxed);
        }
        record.enter(Phase::Connect);
        record.assigned(lease.backend().counters());
        RetryStep::Connect(lease)
    }

    /// Goes on after an attempt whose backend did not serve: charges it, and picks another one
    /// where that is allowed. Its lease is given back before: an ejection serves the queue.
    pub(crate) fn failed(
        &mut self,
        pool: &Pool,
        attempt: ConnectAttempt,
        why: ConnectFailure,
        record: &mut ConnectionRecord,
    ) -> RetryStep {
        let error = attempt.failed(why, record.id, pool.settings().connect_timeout);
        record.note_failure(&error);
        if error.is_ours() || !self.repeats(pool, &attempt.backend, Repeat::Free) {
            return refuse(pool, error);
        }
        Self::begin(record)
    }

    /// Whether what failed at `backend` is tried at another one, as `repeat` and the bound of this
    /// search allow. Counts it then.
    pub(crate) fn repeats(&mut self, pool: &Pool, backend: &Arc<Backend>, repeat: Repeat) -> bool {
        let retries = pool.settings().retries;
        let allowed = match (&mut self.bound, repeat) {
            (_, Repeat::Never) => false,
            (RetryBound::Time { unanswered }, Repeat::Chosen) => {
                *unanswered = unanswered.saturating_add(1);
                u32::from(*unanswered) <= retries
            }
            _ => self.allows_another(pool),
        };
        if allowed && matches!(self.bound, RetryBound::Retries) {
            pool.counters().retries.fetch_add(1, Ordering::Relaxed);
        }
        self.skip(backend);
        allowed
    }

    /// Picks other backends before this one from now on.
    pub(crate) fn skip(&mut self, backend: &Arc<Backend>) {
        let is_known = || self.tried.iter().any(|one| Arc::ptr_eq(one, backend));
        if matches!(self.bound, RetryBound::Retries) || !is_known() {
            self.tried.push(Arc::clone(backend));
        }
    }

    /// Whether another backend might serve where `backend` does not.
    pub(crate) fn has_other(&self, pool: &Pool, backend: &Arc<Backend>) -> bool {
        self.allows_another(pool) && pool.has_other(&self.tried_with(backend))
    }

    /// Notes that the connect of `attempt` is overdue. True: it is given up, as another backend
    /// would take the connection at once.
    pub(crate) fn gives_up(&self, pool: &Pool, attempt: &mut ConnectAttempt, now: Instant) -> bool {
        attempt.overdue(now);
        let backend = &attempt.backend;
        self.allows_another(pool) && pool.has_room_elsewhere(&self.tried_with(backend))
    }

    /// Whether the bound allows another attempt after one that fails now.
    fn allows_another(&self, pool: &Pool) -> bool {
        match self.bound {
            RetryBound::Retries => self.tried.len() < pool.settings().retries as usize,
            RetryBound::Time { .. } => true,
        }
    }

    fn tried_with(&self, backend: &Arc<Backend>) -> Vec<Arc<Backend>> {
        let mut tried = self.tried.clone();
        tried.push(Arc::clone(backend));
        tried
    }
}

impl ConnectAttempt {
    pub(crate) fn new(lease: &Lease, now: Instant) -> Self {
        let backend = Arc::clone(lease.backend());
        Self {
            connects_before: backend.connects() as u32,
            backend,
            begun: now,
            is_blamed: false,
        }
    }

    /// Charges the backend with an overdue connect. While others succeed a packet was lost, and no
    /// backend is to blame.
    pub(crate) fn overdue(&mut self, now: Instant) {
        if !self.is_blamed && !self.is_overtaken() {
            self.is_blamed = true;
            let why = format!(
                "no answer to a connect within {}",
                format_duration(OVERDUE_AFTER)
            );
            self.backend.charge_failure(now, &why);
        }
    }

    /// Whether a connect to its backend has succeeded since its own began.
    fn is_overtaken(&self) -> bool {
        self.backend.connects() as u32 != self.connects_before
    }

    /// Charges the backend with a failed connect; a shortage of our own is logged for the operator.
    /// No backend is charged twice, nor for a connect without an answer while others succeed.
    pub(crate) fn charge(&self, error: &ConnectError, id: u64, now: Instant) {
        static SHORTAGE: LogThrottle = LogThrottle::new(SHORTAGE_SPACING);
        let backend = &self.backend;
        if error.is_ours() {
            if SHORTAGE.is_due(now) {
                tracing::warn!(id, pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
            }
            return;
        }
        tracing::debug!(id, pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
        if error.is_refusal() {
            backend.losses().record_refusal(now);
        }
        let is_silent = matches!(error, ConnectError::TimedOut(_));
        if is_silent && (self.is_blamed || self.is_overtaken()) {
            backend.count_connect_failure(&error.to_string());
        } else {
            backend.connect_failed(now, &error.to_string());
        }
    }

    /// Notes that the connect has succeeded, and returns how long it took.
    pub(crate) fn succeeded(&self, now: Instant) -> Duration {
        self.backend.connected(now);
        now.duration_since(self.begun)
    }

    /// As [`ConnectAttempt::succeeded`], in the record too.
    pub(crate) fn connected(&self, record: &mut ConnectionRecord, now: Instant) {
        record.connected(self.succeeded(now));
    }

    /// Charges the backend with a failed connect, and with a reset so early that it can be no
    /// answer to a client's silence: that would let silent clients eject good backends. A FIN is an
    /// orderly end and charged to no backend.
    fn failed(
        &self,
        why: ConnectFailure,
        id: u64,
        connect_timeout: Duration,
    ) -> BackendUnavailable {
        let now = Instant::now();
        let backend = Arc::clone(self.backend.name());
        let source = match why {
            ConnectFailure::Connect(error) => error,
            ConnectFailure::ConnectTimeout => ConnectError::TimedOut(connect_timeout),
            ConnectFailure::Reset => {
                if now.duration_since(self.begun) <= connect_timeout {
                    let why = "reset before the first byte";
                    self.backend.failed_to_answer(now, why);
                }
                let how = Cause::Rst;
                return BackendUnavailable::Ended { backend, how };
            }
            ConnectFailure::Fin => {
                let how = Cause::Fin;
                return BackendUnavailable::Ended { backend, how };
            }
        };
        self.charge(&source, id, now);
        BackendUnavailable::Connect { backend, source }
    }
}

/// Refuses the client. Without the line in the log a pool whose only backend is dead, and has no
/// check, would turn everybody away in silence.
fn refuse(pool: &Pool, error: BackendUnavailable) -> RetryStep {
    if pool.may_log_refusal(Instant::now()) {
        tracing::warn!(pool = %pool.name(), %error, "clients are turned away");
    }
    RetryStep::Refuse(error)
}
