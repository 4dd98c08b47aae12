//! Another backend for a WebSocket that has lost its own: pick, reach, the client's handshake once more with a header that
//! says what is taken over, and a 101 that agrees to the same as the first one did.
//!
//! The client knows nothing of it, so nothing of the second 101 is told to it.

mod handshake;
mod loss_check;

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::HeaderName;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::handshake::ResumeHandshake;
use self::handshake::agreement;
use self::loss_check::LossCheck;
use super::backend_line::{self, KEPT, RequestBody};
use super::dialogue::GateState;
use super::dispatch::ConnectAttempt;
use super::reach::Connector;
use super::repeat::{Repeat, charge_reset};
use super::{MaybeTlsStream, OutgoingProxyHeader, Proxy};
use crate::base::backoff::Backoff;
use crate::config;
use crate::net::Peer;
use crate::pool::{Backend, BackendRequest, Lease, Pool};
use crate::relay::{Handle, LostBackend, Migrator, NewBackend, ResumePolicy, SessionGuards};
use crate::wire::websocket;

/// Between two tries of one session: the first after a moment in which a restarting node may have come back.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// A session's way to another backend: what is kept for it as long as the session lives.
pub(super) struct PoolMigrator {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Peer,
    pub handshake: ResumeHandshake,
    /// The name of the field that tells what is taken over.
    pub header: Arc<str>,
    /// Bounds the wait for a 101; milliseconds.
    pub upgrade_timeout: u32,
    /// The record's.
    pub id: u64,
    /// What few pools need.
    pub more: Option<Box<More>>,
    /// Backends that it has lost.
    pub count: AtomicU32,
    /// Of them the latest that went as soon as they had come.
    pub short: AtomicU8,
}

pub(super) struct More {
    /// For a pool that sends PROXY headers.
    pub introduction: Option<OutgoingProxyHeader>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
}

/// What a live session costs for it beside its head.
const _: () = assert!(size_of::<PoolMigrator>() <= 104);

impl PoolMigrator {
    /// As the relay takes it.
    pub(super) fn into_resumption(self, resume: &Arc<config::Resume>) -> Box<ResumePolicy> {
        Box::new(ResumePolicy {
            settings: Arc::clone(resume),
            migrator: Arc::new(self),
        })
    }
}

impl Migrator for PoolMigrator {
    fn judge_loss(
        &self,
        session: Handle,
        settings: &config::Resume,
        held: &SessionGuards,
    ) -> Option<DropGuard> {
        // Without a lease there is nobody to ask about, and no way for that to be.
        let lease = held.lease.as_ref()?;
        let loss_check = LossCheck {
            pool: self.pool.clone(),
            backend: Arc::clone(lease.backend()),
            on: settings.on,
            settle: settings.settle,
            ended: Instant::now(),
        };
        loss_check.begin(Arc::clone(&self.proxy), session)
    }

    fn find_backend(self: Arc<Self>, gone: LostBackend, held: &mut SessionGuards) -> DropGuard {
        let before = held.lease.take().map(|lease| Arc::clone(lease.backend()));
        let count = self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let short = match gone.was_short {
            true => self.short.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.short.store(short, Ordering::Relaxed);
        let wait = wait_before(short);
        let stop = CancellationToken::new();
        let runtime = self.proxy.runtime.clone();
        let search = NewBackendSearch {
            way: self,
            note: note(count, &gone),
        };
        let stopped = stop.clone();
        runtime.spawn(async move {
            let tried = before.into_iter().collect();
            // Dropping the search closes what it has begun.
            let found = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                found = async {
                    sleep(wait).await;
                    search.run(tried).await
                } => found,
            };
            let relay = &search.way.proxy.relay;
            match found {
                Some(successor) => relay.attach(gone.session, successor),
                None => relay.give_up_migration(gone.session),
            }
        });
        stop.drop_guard()
    }
}

/// A backend that goes as soon as it comes is not asked again and again without a pause.
fn wait_before(short: u8) -> Duration {
    match short {
        0 => Duration::ZERO,
        short => {
            let doubled = RETRY_AFTER.saturating_mul(1 << short.min(8));
            jittered((doubled / 2).min(RETRY_AFTER_MAX))
        }
    }
}

/// What the next backend is told: how many there were, the latest of them, and how many messages of the client may be lost.
/// In the form of parameters (RFC 9110 section 5.6.6).
fn note(count: u32, gone: &LostBackend) -> HeaderValue {
    let from = gone.from.as_deref().unwrap_or("");
    let escaped = from.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("count={count}; from=\"{escaped}\"; lost={}", gone.lost);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("count=1; lost=unknown"))
}

/// One search for a backend.
struct NewBackendSearch {
    way: Arc<PoolMigrator>,
    note: HeaderValue,
}

/// Why a backend did not take it.
enum ResumeRefusal {
    /// Another one may, or the same one later.
    ForNow(String),
    /// It took the handshake, and ended without an answer: another may within the pool's `retries`.
    Unanswered(String),
    /// No other will.
    ForGood(String),
}

impl NewBackendSearch {
    fn more(&self) -> Option<&More> {
        self.way.more.as_deref()
    }

    /// Goes on until it is dropped: the relay bounds it. `None`: there will be no other.
    async fn run(&self, mut tried: Vec<Arc<Backend>>) -> Option<NewBackend> {
        let mut spacing = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        let id = self.way.id;
        let mut unanswered = 0;
        loop {
            // Looked up each time: a reload may have removed it.
            let pool = self.way.pool.upgrade()?;
            let refused = match self.try_one(&pool, &mut tried).await {
                Ok(successor) => return Some(successor),
                Err(refused) => refused,
            };
            match refused {
                ResumeRefusal::ForNow(why) => {
                    tracing::debug!(id, pool = %pool.name(), why, "not resumed yet");
                }
                ResumeRefusal::Unanswered(why) if unanswered < pool.settings().retries => {
                    unanswered += 1;
                    tracing::debug!(id, pool = %pool.name(), why, unanswered, "not resumed yet");
                }
                ResumeRefusal::Unanswered(why) | ResumeRefusal::ForGood(why) => {
                    tracing::debug!(id, pool = %pool.name(), why, "not resumed");
                    return None;
                }
            }
            sleep(jittered(spacing.next())).await;
        }
    }

    /// One pick, one connect and one handshake.
    async fn try_one(
        &self,
        pool: &Arc<Pool>,
        tried: &mut Vec<Arc<Backend>>,
    ) -> Result<NewBackend, ResumeRefusal> {
        let pick = BackendRequest {
            client: self.way.client.ip(),
            key: self.more().and_then(|more| more.key.as_deref()),
            preferred: None,
            tried,
        };
        let lease = pool.acquire(&pick).await;
        let lease = lease.map_err(|error| ResumeRefusal::ForNow(error.to_string()))?;
        let backend = Arc::clone(lease.backend());
        // Behind the pick: who waits in the queue must not keep from their turn those who do not.
        let turn = pool.migration_permit().await;
        let taken = self.take(pool, &lease, tried).await;
        drop(turn);
        if taken.is_err() && !tried.iter().any(|one| Arc::ptr_eq(one, &backend)) {
            tried.push(Arc::clone(&backend));
        }
        let (leg, read, connect_time) = taken?;
        let tls = leg.tls_version();
        let leg = leg
            .into_leg(read)
            .map_err(|error| ResumeRefusal::ForNow(error.to_string()))?;
        Ok(NewBackend {
            leg,
            install: Box::new(move |held, record| {
                record.reassigned(lease.backend().counters());
                record.connected(connect_time);
                record.encrypted(tls);
                held.lease = Some(lease);
            }),
        })
    }

    /// Connects and shakes hands: the leg, what was read of it behind its 101, and how long the connect took.
    async fn take(
        &self,
        pool: &Pool,
        lease: &Lease,
        tried: &[Arc<Backend>],
    ) -> Result<(MaybeTlsStream, Vec<u8>, Duration), ResumeRefusal> {
        let backend = lease.backend();
        let approach = Connector::to(backend, pool);
        let settings = &approach.settings;
        let begun = Instant::now();
        let header = settings.send_proxy.map(|version| {
            let nobody = || OutgoingProxyHeader::plain(Peer::Unix, None);
            let known = self.more().and_then(|more| more.introduction.clone());
            known.unwrap_or_else(nobody).header(version, self.way.id)
        });
        let mut attempt = ConnectAttempt::new(lease, begun);
        let gives_up = || {
            attempt.overdue(Instant::now());
            let one = std::slice::from_ref(backend);
            pool.has_room_elsewhere(&[tried, one].concat())
        };
        let leg = match approach.reach(backend, header, gives_up).await {
            Ok(leg) => leg,
            Err(error) => {
                attempt.charge(&error, Instant::now());
                return Err(ResumeRefusal::ForNow(format!(
                    "connect to {}: {error}",
                    backend.name()
                )));
            }
        };
        let now = Instant::now();
        backend.connected(now);
        let patience = Duration::from_millis(self.way.upgrade_timeout.into());
        let shaken = timeout(patience, self.shake(leg, settings, backend)).await;
        let (leg, read) = shaken.unwrap_or_else(|_| {
            let why = "no 101 in time".to_owned();
            // It has the handshake, and may hang of it.
            Err(match backend.is_leaving() {
                true => ResumeRefusal::ForNow(why),
                false => ResumeRefusal::ForGood(why),
            })
        })?;
        Ok((leg, read, now - begun))
    }

    async fn shake(
        &self,
        leg: MaybeTlsStream,
        settings: &config::Pool,
        backend: &Backend,
    ) -> Result<(MaybeTlsStream, Vec<u8>), ResumeRefusal> {
        let begun = Instant::now();
        let for_now = |error: &dyn std::fmt::Display| ResumeRefusal::ForNow(error.to_string());
        let dialogue = Arc::new(GateState::new(settings.idle_timeout));
        let line = backend_line::open(leg, &dialogue, settings, KEPT).await;
        let mut line = line.map_err(|error| for_now(&error))?;
        let mut parts = self.way.handshake.request().ok_or_else(lost_head)?;
        let offer = websocket::check_request(&parts.method, parts.version, &parts.headers);
        let offer = offer.map_err(|_| lost_head())?;
        let header = HeaderName::try_from(&*self.way.header).map_err(|_| lost_head())?;
        parts.headers.insert(header, self.note.clone());
        super::forward::tell_name(&mut parts.headers, settings, backend);
        let request = Request::from_parts(parts, RequestBody::new(None, &dialogue));
        let response = line.sender.send_request(request).await;
        let response = response.map_err(|error| {
            charge_reset(&line.contact, backend, begun, settings.connect_timeout);
            let why = error.to_string();
            match Repeat::of(&line.contact, backend, settings) {
                Repeat::Free => ResumeRefusal::ForNow(why),
                Repeat::Chosen => ResumeRefusal::Unanswered(why),
                Repeat::Never => ResumeRefusal::ForGood(why),
            }
        })?;
        backend.answered();
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match status.is_client_error() && !may_change(status) {
                true => ResumeRefusal::ForGood(format!("the answer is {status}")),
                false => ResumeRefusal::ForNow(format!("the answer is {status}")),
            });
        }
        websocket::check_response(status, response.headers(), &offer)
            .map_err(|error| for_now(&error))?;
        let (agreed, before) = (agreement(response.headers()), self.way.handshake.agreed());
        if *agreed != *before {
            let why = format!("it agrees to {agreed:?} in place of {before:?}");
            return Err(ResumeRefusal::ForGood(why));
        }
        drop((response, line.sender));
        match line.driver.await {
            Ok(Some(parts)) => Ok((parts.io.into_inner().into_inner(), parts.read_buf.to_vec())),
            _ => Err(ResumeRefusal::ForNow("it ended behind its 101".to_owned())),
        }
    }
}

/// What was kept is no handshake: a defect of ours.
fn lost_head() -> ResumeRefusal {
    ResumeRefusal::ForGood("what was kept of the handshake cannot be read".to_owned())
}

/// So that what was lost together does not come together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}

/// A client's error that may be none at the next try: 408, 425, 429 (RFC 9110, 8470, 6585).
fn may_change(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429)
}
