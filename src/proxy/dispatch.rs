//! From a pool to a connected backend: pick, queue, reach, and try another when that fails.
//!
//! Nothing of the client is sent here, so every failure may be tried again elsewhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::Introduction;
use super::SetupLeg;
use super::reach::reach;
use crate::base::pace::Pace;
use crate::net::{ConnectError, Peer};
use crate::observe::{End, How, Phase, Record, Side};
use crate::pool::{AcquireError, Backend, Lease, Pick, Pool};

/// Between two warnings of a shortage: it hits every connection.
const SHORTAGE_SPACING: Duration = Duration::from_secs(10);

/// Why a connection got no backend.
#[derive(Debug, Error)]
pub enum DispatchError {
    /// The pool gave none; after failed connects, because no other is left.
    #[error("{0}")]
    Acquire(#[from] AcquireError),
    /// The last of the tries allowed failed.
    #[error("connect to {backend}: {source}")]
    Connect {
        backend: Arc<str>,
        #[source]
        source: ConnectError,
    },
}

impl DispatchError {
    /// As the record tells it.
    pub fn end(&self) -> End {
        let (side, phase, how) = match self {
            Self::Acquire(AcquireError::NoBackend) => {
                (Side::Evenkeel, Phase::Connect, How::Refused)
            }
            Self::Acquire(AcquireError::QueueTimeout(_)) => {
                (Side::Evenkeel, Phase::Queue, How::Timeout)
            }
            Self::Acquire(AcquireError::Full | AcquireError::QueueFull) => {
                (Side::Evenkeel, Phase::Queue, How::Full)
            }
            Self::Connect { source, .. } => match source {
                ConnectError::TimedOut(_) => (Side::Backend, Phase::Connect, How::Timeout),
                ConnectError::Refused(_) => (Side::Backend, Phase::Connect, How::Refused),
                ConnectError::Tls(error) => (Side::Backend, Phase::Connect, how(error)),
                ConnectError::Local(_) => (Side::Evenkeel, Phase::Connect, How::Error),
            },
        };
        End::new(side, phase, how)
    }
}

/// How a handshake with a backend ended.
fn how(error: &io::Error) -> How {
    match error.kind() {
        io::ErrorKind::TimedOut => How::Timeout,
        io::ErrorKind::UnexpectedEof => How::Fin,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => How::Invalid,
        _ => How::Rst,
    }
}

/// What the connection wants of its pool.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// For `ip_hash`, and for `hash` without a key.
    pub client: Option<std::net::IpAddr>,
    /// The value of the pool's `hash_key`.
    pub key: Option<&'a [u8]>,
    /// What a pool with `send_proxy` tells of the client.
    pub introduction: Option<&'a Introduction>,
    /// Where the client was before, by its sticky cookie.
    pub preferred: Option<Arc<Backend>>,
    /// Backends that failed this connection already; a failed try adds to it. Its length bounds the tries.
    pub tried: Vec<Arc<Backend>>,
}

/// Picks a backend and connects to it, with at most `retries` further tries, each on another backend.
///
/// # Errors
/// See [`DispatchError`]. Nothing was sent to any backend.
///
/// # Cancel safety
/// Dropping the future gives the lease back and closes a socket half connected.
pub async fn dispatch(
    pool: &Arc<Pool>,
    wanted: &mut Wanted<'_>,
    record: &mut Record,
) -> Result<(SetupLeg, Lease), DispatchError> {
    let dispatched = seek(pool, wanted, record).await;
    dispatched.inspect_err(|error| tell_of_refusal(pool, error))
}

/// Without this a pool whose only backend is dead, and has no check, would turn everybody away in silence.
pub(super) fn tell_of_refusal(pool: &Pool, error: &DispatchError) {
    if pool.may_tell_of_refusal(Instant::now()) {
        tracing::warn!(pool = %pool.name(), %error, "clients are turned away");
    }
}

/// A connect to `backend` has failed, or what amounts to it: charges whoever is to blame, and counts another try.
///
/// # Errors
/// There is to be no other try.
pub(super) fn failed(
    pool: &Pool,
    tried: &mut Vec<Arc<Backend>>,
    backend: Arc<Backend>,
    source: ConnectError,
) -> Result<(), DispatchError> {
    charge(&backend, &source);
    let name = Arc::clone(backend.name());
    if !source.is_ours() && try_another(pool, tried, backend) {
        return Ok(());
    }
    Err(DispatchError::Connect {
        backend: name,
        source,
    })
}

/// Counts a try beside `backend`, which did not serve; false when all tries are used up.
pub(super) fn try_another(
    pool: &Pool,
    tried: &mut Vec<Arc<Backend>>,
    backend: Arc<Backend>,
) -> bool {
    tried.push(backend);
    let allowed = tried.len() <= pool.settings().retries as usize;
    if allowed {
        pool.counters().retries.fetch_add(1, Ordering::Relaxed);
    }
    allowed
}

async fn seek(
    pool: &Arc<Pool>,
    wanted: &mut Wanted<'_>,
    record: &mut Record,
) -> Result<(SetupLeg, Lease), DispatchError> {
    loop {
        record.phase = Phase::Queue;
        let lease = pool
            .acquire(&Pick {
                client: wanted.client,
                key: wanted.key,
                preferred: wanted.preferred.as_ref(),
                tried: &wanted.tried,
            })
            .await?;
        let backend = Arc::clone(lease.backend());
        // Behind a wait, and in this order: a reload sets the TLS before the addresses, so that none is reached without it.
        let (settings, endpoint) = (pool.settings(), backend.endpoint());
        let tls = pool.tls();
        count_redispatch(pool, wanted, &backend);
        record.phase = Phase::Connect;
        record.assigned(backend.counters());
        let begun = Instant::now();
        let header = settings.send_proxy.map(|version| {
            let nobody = || Introduction::plain(Peer::Unix, None);
            let known = wanted.introduction.cloned().unwrap_or_else(nobody);
            known.header(version, record.id)
        });
        let source = match reach(&backend, endpoint, tls.as_deref(), &settings, header).await {
            Ok(leg) => {
                let now = Instant::now();
                backend.connected(now);
                record.connected(now - begun);
                record.encrypted(leg.tls_version());
                return Ok((leg, lease));
            }
            Err(source) => source,
        };
        drop(lease);
        failed(pool, &mut wanted.tried, backend, source)?;
    }
}

/// Charges the backend with its failure; a shortage of our own is the operator's to know.
pub(super) fn charge(backend: &Backend, error: &ConnectError) {
    static SHORTAGE: Pace = Pace::new(SHORTAGE_SPACING);
    let now = Instant::now();
    if !error.is_ours() {
        tracing::debug!(pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
        backend.connect_failed(now, &error.to_string());
    } else if SHORTAGE.is_due(now) {
        tracing::warn!(pool = %backend.pool(), backend = %backend.name(), %error, "connect failed");
    }
}

fn count_redispatch(pool: &Pool, wanted: &Wanted<'_>, backend: &Arc<Backend>) {
    let other = |tried: &Arc<Backend>| !Arc::ptr_eq(tried, backend);
    if wanted.tried.last().is_some_and(other) {
        pool.counters().redispatches.fetch_add(1, Ordering::Relaxed);
    }
}
