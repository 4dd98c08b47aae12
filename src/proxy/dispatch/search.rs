//! The search of one connection for a backend: from what has happened, what is to be done next. Every decision of dispatch
//! is made here, once: what to pick, whom to charge, whether to try again, when it is over.
//!
//! It has no socket, no clock and no wait, so that it can be driven by the set-up plane (`dispatch`) and by a relay thread
//! (`errand`), and may begin on one and go on on the other with all it has counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::DispatchError;
use crate::base::log_throttle::LogThrottle;
use crate::base::units::format_duration;
use crate::net::{ConnectError, OVERDUE_AFTER};
use crate::observe::{Cause, ConnectionRecord, Phase};
use crate::pool::{AcquireError, Backend, BackendRequest, Lease, Pool};
use crate::relay::ConnectFailure;

/// Between two warnings of a shortage: it hits every connection.
const SHORTAGE_SPACING: Duration = Duration::from_secs(10);

/// What is to be done next.
#[derive(Debug)]
#[must_use = "it may hold a lease"]
pub(in crate::proxy) enum RetryStep {
    /// Ask the pool for [`Search::pick`], at once or in its queue, and tell [`Search::picked`].
    Pick,
    /// Connect to the backend of this lease, and tell [`Attempt::connected`] or [`Search::unserved`].
    Connect(Lease),
    /// The end: there is no backend for it.
    Refuse(DispatchError),
}

/// One connection's search.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RetryState {
    /// For `ip_hash`, and for `hash` without a key.
    pub client: Option<IpAddr>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
    /// Where the client was before, by its sticky cookie.
    pub preferred: Option<Arc<Backend>>,
    /// Backends that did not serve this connection, in order. Their number bounds the tries.
    pub tried: Vec<Arc<Backend>>,
}

/// A try that is under way, or was connected and has not served yet.
#[derive(Debug)]
pub(in crate::proxy) struct ConnectAttempt {
    pub backend: Arc<Backend>,
    /// When its connect began.
    pub begun: Instant,
    /// Connects to its backend that had succeeded by then, modulo 2^32.
    connects_before: u32,
    /// That it is overdue was held against its backend.
    is_blamed: bool,
}

impl RetryState {
    pub fn begin(record: &mut ConnectionRecord) -> RetryStep {
        record.phase = Phase::Queue;
        RetryStep::Pick
    }

    /// What is asked of the pool.
    pub fn pick(&self) -> BackendRequest<'_> {
        BackendRequest {
            client: self.client,
            key: self.key.as_deref(),
            preferred: self.preferred.as_ref(),
            tried: &self.tried,
        }
    }

    /// The pool has answered.
    pub fn picked(
        &self,
        pool: &Pool,
        answer: Result<Lease, AcquireError>,
        record: &mut ConnectionRecord,
        now: Instant,
    ) -> RetryStep {
        let lease = match answer {
            Ok(lease) => lease,
            Err(error) => return refuse(pool, error.into(), now),
        };
        let other = |tried: &Arc<Backend>| !Arc::ptr_eq(tried, lease.backend());
        if self.tried.last().is_some_and(other) {
            pool.counters().redispatches.fetch_add(1, Ordering::Relaxed);
        }
        record.phase = Phase::Connect;
        record.assigned(lease.backend().counters());
        RetryStep::Connect(lease)
    }

    /// The backend of `attempt` did not serve; `lease` is what held its place.
    pub fn unserved(
        &mut self,
        pool: &Pool,
        attempt: ConnectAttempt,
        lease: Option<Lease>,
        why: ConnectFailure,
        record: &mut ConnectionRecord,
        now: Instant,
    ) -> RetryStep {
        // Before it is charged: an ejection serves the queue.
        drop(lease);
        let settings = pool.settings();
        let error = attempt.failed(why, settings.connect_timeout, now);
        if !error.is_ours() {
            self.tried.push(attempt.backend);
            if self.tried.len() <= settings.retries as usize {
                pool.counters().retries.fetch_add(1, Ordering::Relaxed);
                return Self::begin(record);
            }
        }
        refuse(pool, error, now)
    }

    /// Whether another backend might serve where `backend` does not.
    pub fn has_other(&self, pool: &Pool, backend: &Arc<Backend>) -> bool {
        let tried = self.tried_with(backend);
        tried.len() <= pool.settings().retries as usize && pool.has_other(&tried)
    }

    /// Notes that the connect of `attempt` is overdue. True: it is given up, as another backend would
    /// take the connection at once.
    pub fn gives_up(&self, pool: &Pool, attempt: &mut ConnectAttempt, now: Instant) -> bool {
        attempt.overdue(now);
        let tried = self.tried_with(&attempt.backend);
        tried.len() <= pool.settings().retries as usize && pool.has_room_elsewhere(&tried)
    }

    fn tried_with(&self, backend: &Arc<Backend>) -> Vec<Arc<Backend>> {
        let mut tried = self.tried.clone();
        tried.push(Arc::clone(backend));
        tried
    }
}

impl ConnectAttempt {
    pub fn new(lease: &Lease, now: Instant) -> Self {
        let backend = Arc::clone(lease.backend());
        Self {
            connects_before: backend.connects() as u32,
            backend,
            begun: now,
            is_blamed: false,
        }
    }

    /// Holds an overdue connect against the backend. While others succeed a packet was lost, and
    /// nobody is to blame.
    pub fn overdue(&mut self, now: Instant) {
        if !self.is_blamed && !self.is_overtaken() {
            self.is_blamed = true;
            let why = format!(
                "no answer to a connect within {}",
                format_duration(OVERDUE_AFTER)
            );
            self.backend.charge_failure(now, &why);
        }
    }

    /// A connect to its backend has succeeded since its own began.
    fn is_overtaken(&self) -> bool {
        self.backend.connects() as u32 != self.connects_before
    }

    /// Charges the backend with its failure; a shortage of our own is the operator's to know. Nobody
    /// is charged twice, nor for a connect without an answer while others succeed.
    pub fn charge(&self, error: &ConnectError, now: Instant) {
        static SHORTAGE: LogThrottle = LogThrottle::new(SHORTAGE_SPACING);
        let backend = &self.backend;
        if error.is_ours() {
            if SHORTAGE.is_due(now) {
                tracing::warn!(pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
            }
            return;
        }
        tracing::debug!(pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
        if error.is_refusal() {
            backend.losses().record_refusal(now);
        }
        let is_silent = matches!(error, ConnectError::TimedOut(_));
        match is_silent && (self.is_blamed || self.is_overtaken()) {
            true => backend.count_connect_failure(&error.to_string()),
            false => backend.connect_failed(now, &error.to_string()),
        }
    }

    /// The connect has succeeded.
    pub fn connected(&self, record: &mut ConnectionRecord, now: Instant) {
        self.backend.connected(now);
        record.connected(now.duration_since(self.begun));
    }

    /// Charges the backend with a failed connect, and with a reset so early that it can be no answer to a client's silence:
    /// that would let silent clients eject good backends. A FIN is its orderly word and charged to nobody.
    fn failed(
        &self,
        why: ConnectFailure,
        connect_timeout: Duration,
        now: Instant,
    ) -> DispatchError {
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
                return DispatchError::Ended { backend, how };
            }
            ConnectFailure::Fin => {
                let how = Cause::Fin;
                return DispatchError::Ended { backend, how };
            }
        };
        self.charge(&source, now);
        DispatchError::Connect { backend, source }
    }
}

/// Without the line in the log a pool whose only backend is dead, and has no check, would turn everybody away in silence.
fn refuse(pool: &Pool, error: DispatchError, now: Instant) -> RetryStep {
    if pool.may_log_refusal(now) {
        tracing::warn!(pool = %pool.name(), %error, "clients are turned away");
    }
    RetryStep::Refuse(error)
}
