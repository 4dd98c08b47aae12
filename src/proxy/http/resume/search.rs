//! The search of one session for another backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::{sleep, timeout};

use super::handshake::agreement;
use super::kept::{More, PoolMigrator};
use crate::base::backoff::Backoff;
use crate::config;
use crate::pool::{Backend, Pool};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::repeat::{Repeat, unanswered};
use crate::proxy::connect::{ConnectAttempt, RetryState, dial};
use crate::proxy::http::backend::{self, KEPT, RequestBody};
use crate::proxy::http::gate_state::GateState;
use crate::proxy::http::headers;
use crate::relay::NewBackend;
use crate::wire::websocket;

/// Between two attempts for one session: the first after a moment in which a restarting node may
/// have come back.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(50);
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// A search for a backend that takes a session over.
pub(in crate::proxy) struct NewBackendSearch {
    migrator: Arc<PoolMigrator>,
    note: HeaderValue,
    search: RetryState,
}

/// Reason for which a backend did not take a session.
enum ResumeRefusal {
    /// Another one may, or the same one later.
    ForNow(String),
    /// The backend got the handshake and did not answer: another may get it as [`Repeat`] allows.
    Unanswered(Repeat, String),
    /// No other will.
    ForGood(String),
}

impl ResumeRefusal {
    fn for_now(error: impl std::fmt::Display) -> ResumeRefusal {
        ResumeRefusal::ForNow(error.to_string())
    }
}

impl NewBackendSearch {
    pub(crate) fn new(
        migrator: Arc<PoolMigrator>,
        note: HeaderValue,
        lost: Option<Arc<Backend>>,
    ) -> NewBackendSearch {
        let key = migrator.more.as_ref().and_then(|more| more.key.clone());
        NewBackendSearch {
            search: RetryState::of_session(migrator.client.ip(), key, lost),
            migrator,
            note,
        }
    }

    /// Goes on until it is dropped: the relay bounds it. `None`: there will be no other backend.
    pub(crate) async fn run(&mut self) -> Option<NewBackend> {
        let mut spacing = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        let id = self.migrator.id;
        loop {
            // Looked up each time: a reload may have removed it.
            let pool = self.migrator.pool.upgrade()?;
            match self.try_one(&pool).await {
                Ok(backend) => return Some(backend),
                Err(ResumeRefusal::ForNow(why)) => {
                    tracing::debug!(id, pool = %pool.name(), why, "not resumed yet");
                }
                Err(ResumeRefusal::Unanswered(_, why) | ResumeRefusal::ForGood(why)) => {
                    tracing::debug!(id, pool = %pool.name(), why, "not resumed");
                    return None;
                }
            }
            sleep(jittered(spacing.next())).await;
        }
    }

    /// Picks, connects and shakes hands with one backend.
    async fn try_one(&mut self, pool: &Arc<Pool>) -> Result<NewBackend, ResumeRefusal> {
        let lease = pool.acquire(&self.search.request()).await;
        let lease = lease.map_err(ResumeRefusal::for_now)?;
        let backend = Arc::clone(lease.backend());
        // After the pick: a session that waits in the queue must not keep others from their turn.
        let turn = pool.migration_permit().await;
        let attempt = ConnectAttempt::new(&lease, Instant::now());
        let taken = self.take(pool, attempt).await;
        drop(turn);
        let taken = match taken {
            Err(ResumeRefusal::Unanswered(repeat, why))
                if self.search.repeats(pool, &backend, repeat) =>
            {
                Err(ResumeRefusal::ForNow(why))
            }
            taken => taken,
        };
        let (stream, read, connect_time) = taken.inspect_err(|_| self.search.skip(&backend))?;
        let tls = stream.tls_version();
        let leg = stream.into_handoff(read).map_err(ResumeRefusal::for_now)?;
        Ok(NewBackend {
            leg,
            install: Box::new(move |guards, record| {
                record.reassigned(lease.backend().counters());
                record.connected(connect_time);
                record.encrypted(tls);
                guards.lease = Some(lease);
            }),
        })
    }

    /// Connects and shakes hands: the stream, what was read of it behind its 101, and how long the
    /// connect took.
    async fn take(
        &mut self,
        pool: &Pool,
        mut attempt: ConnectAttempt,
    ) -> Result<(MaybeTlsStream, Vec<u8>, Duration), ResumeRefusal> {
        let migrator = &self.migrator;
        let backend = Arc::clone(&attempt.backend);
        let more: Option<&More> = migrator.more.as_deref();
        let header = more.and_then(|more| more.proxy_header.as_ref());
        let dialled = dial(&self.search, &mut attempt, pool, header, migrator.id).await;
        let stream = match dialled {
            Ok(stream) => stream,
            Err(error) => {
                let why = format!("connect to {}: {error}", backend.name());
                attempt.charge(&error, Instant::now());
                return Err(ResumeRefusal::ForNow(why));
            }
        };
        let connect_time = attempt.succeeded(Instant::now());
        let limit = Duration::from_millis(migrator.upgrade_timeout.into());
        let shaken = timeout(limit, self.shake(stream, &pool.settings(), &backend)).await;
        let (stream, read) = shaken.unwrap_or_else(|_| {
            let why = "no 101 in time".to_owned();
            // It has the handshake, and may hang of it.
            Err(if backend.is_leaving() {
                ResumeRefusal::ForNow(why)
            } else {
                ResumeRefusal::ForGood(why)
            })
        })?;
        Ok((stream, read, connect_time))
    }

    async fn shake(
        &self,
        stream: MaybeTlsStream,
        settings: &config::Pool,
        backend: &Backend,
    ) -> Result<(MaybeTlsStream, Vec<u8>), ResumeRefusal> {
        let kept = &self.migrator.handshake;
        let begun = Instant::now();
        let gate_state = Arc::new(GateState::new(settings.idle_timeout));
        let connection = backend::open(stream, &gate_state, settings, KEPT).await;
        let mut connection = connection.map_err(ResumeRefusal::for_now)?;
        let mut parts = kept.request().ok_or_else(lost_head)?;
        let offer = websocket::check_request(&parts.method, parts.version, &parts.headers);
        let offer = offer.map_err(|_| lost_head())?;
        let field = HeaderName::try_from(&*self.migrator.header).map_err(|_| lost_head())?;
        parts.headers.insert(field, self.note.clone());
        headers::set_backend_name(&mut parts.headers, settings, backend);
        let request = Request::from_parts(parts, RequestBody::new(None, &gate_state));
        let response = connection.sender.send_request(request).await;
        let response = response.map_err(|error| {
            let repeat = unanswered(&connection.contact, backend, begun, settings);
            ResumeRefusal::Unanswered(repeat, error.to_string())
        })?;
        backend.answered();
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let why = format!("the answer is {status}");
            return Err(if status.is_client_error() && !may_change(status) {
                ResumeRefusal::ForGood(why)
            } else {
                ResumeRefusal::ForNow(why)
            });
        }
        websocket::check_response(status, response.headers(), &offer)
            .map_err(ResumeRefusal::for_now)?;
        let (agreed, before) = (agreement(response.headers()), kept.agreed());
        if *agreed != *before {
            let why = format!("it agrees to {agreed:?} in place of {before:?}");
            return Err(ResumeRefusal::ForGood(why));
        }
        drop((response, connection.sender));
        match connection.driver.await {
            Ok(Some(parts)) => Ok((parts.io.into_inner().into_inner(), parts.read_buf.to_vec())),
            _ => Err(ResumeRefusal::ForNow("it ended behind its 101".to_owned())),
        }
    }
}

/// The kept handshake cannot be read: a defect of ours.
fn lost_head() -> ResumeRefusal {
    ResumeRefusal::ForGood("what was kept of the handshake cannot be read".to_owned())
}

/// Whether a client's error may be none at the next attempt: 408, 425, 429 (RFC 9110, 8470, 6585).
fn may_change(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}

/// A random time around `wait`, so that sessions that were lost together do not come back together.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}
