//! The search of one session for another backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::handshake::{ResumeHandshake, agreement};
use super::kept::{More, PoolMigrator};
use crate::base::backoff::Backoff;
use crate::config;
use crate::pool::{Backend, Pool};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::repeat::{Repeat, unanswered};
use crate::proxy::connect::{ConnectAttempt, RetryState, dial};
use crate::proxy::http::backend_stream::BackendStream;
use crate::relay::NewBackend;
use crate::wire::http::{Asked, HeadLimits, MAX_FIELDS, RequestReader, ResponseReader};
use crate::wire::websocket::{self, UpgradeOffer};

/// Between two attempts for one session: the first after a moment in which a restarting node may
/// have come back.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(50);
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// A search for a backend that takes a session over.
pub(in crate::proxy) struct NewBackendSearch {
    migrator: Arc<PoolMigrator>,
    note: String,
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
        note: String,
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
                record.reassigned(lease.backend().counters(), connect_time);
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
                attempt.charge(&error, migrator.id, Instant::now());
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
        let offer = offer_of(kept).ok_or_else(lost_head)?;
        let mut connection = BackendStream::new(stream);
        let mut reader = ResponseReader::new(settings.http.head_limits(), Asked::Upgrade);
        let request = self.request(settings, backend);
        let answer = connection.ask(request, &mut reader).await;
        let answer = answer.map_err(|error| {
            let repeat = unanswered(&connection.contact, backend, begun, settings);
            ResumeRefusal::Unanswered(repeat, error.to_string())
        })?;
        backend.answered();
        let head = reader.head(&answer);
        let status = head.status();
        if status != 101 {
            let why = format!("the answer is {status}");
            return Err(if (400..500).contains(&status) && !may_change(status) {
                ResumeRefusal::ForGood(why)
            } else {
                ResumeRefusal::ForNow(why)
            });
        }
        websocket::check_response(status, &head.fields(), &offer)
            .map_err(ResumeRefusal::for_now)?;
        let (agreed, before) = (agreement(&head.fields()), kept.agreed());
        if *agreed != *before {
            let why = format!("it agrees to {agreed:?} in place of {before:?}");
            return Err(ResumeRefusal::ForGood(why));
        }
        Ok((connection.stream, connection.input.into_unread()))
    }

    /// The client's handshake once more, for this backend.
    fn request(&self, settings: &config::Pool, backend: &Backend) -> Vec<u8> {
        let note = (&*self.migrator.header, self.note.as_bytes());
        let name = settings.name_header.as_deref();
        let name = name.map(|field| (field, backend.name().as_bytes()));
        let fields: Vec<_> = [Some(note), name].into_iter().flatten().collect();
        let mut request = Vec::with_capacity(1024);
        self.migrator.handshake.write(&fields, &mut request);
        request
    }
}

/// What the kept handshake has asked for.
fn offer_of(kept: &ResumeHandshake) -> Option<UpgradeOffer> {
    let mut reader = RequestReader::new(HeadLimits {
        max_bytes: usize::MAX,
        max_fields: MAX_FIELDS,
    });
    reader.next(kept.head()).ok()??;
    websocket::check_upgrade(reader.head(kept.head())).ok()
}

/// The kept handshake cannot be read: a defect of ours.
fn lost_head() -> ResumeRefusal {
    ResumeRefusal::ForGood("what was kept of the handshake cannot be read".to_owned())
}

/// Whether a client's error may be none at the next attempt: 408, 425, 429 (RFC 9110, 8470, 6585).
fn may_change(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
}

/// A random time around `wait`, so that sessions that were lost together do not come back together.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}
