//! From a pool to a connected backend: pick, queue, reach, and try another when that fails. What comes next is decided by
//! the [`Search`], which is driven here where it may wait.
//!
//! Nothing of the client is sent here, so every failure may be tried again elsewhere.

mod error;
mod search;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::MaybeTlsStream;
use super::OutgoingProxyHeader;
use super::reach::Connector;
use crate::net::Peer;
use crate::observe::ConnectionRecord;
use crate::pool::{Backend, Lease, Pool};
use crate::relay::ConnectFailure;

pub use error::DispatchError;
pub(super) use search::{ConnectAttempt, RetryState, RetryStep};

/// What the connection wants of its pool.
#[derive(Debug, Default)]
pub struct ConnectRequest<'a> {
    /// For `ip_hash`, and for `hash` without a key.
    pub client: Option<IpAddr>,
    /// The value of the pool's `hash_key`.
    pub key: Option<&'a [u8]>,
    /// What a pool with `send_proxy` tells of the client.
    pub introduction: Option<&'a OutgoingProxyHeader>,
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
    wanted: &mut ConnectRequest<'_>,
    record: &mut ConnectionRecord,
) -> Result<(MaybeTlsStream, Lease), DispatchError> {
    let mut search = RetryState {
        client: wanted.client,
        key: wanted.key.map(Box::from),
        preferred: wanted.preferred.clone(),
        tried: std::mem::take(&mut wanted.tried),
    };
    let step = RetryState::begin(record);
    let found = finish(&mut search, step, pool, wanted.introduction, record).await;
    wanted.tried = search.tried;
    found
}

/// Takes a search from `step` to its end.
///
/// # Errors, cancel safety
/// As [`dispatch`].
pub(super) async fn finish(
    search: &mut RetryState,
    mut step: RetryStep,
    pool: &Pool,
    introduction: Option<&OutgoingProxyHeader>,
    record: &mut ConnectionRecord,
) -> Result<(MaybeTlsStream, Lease), DispatchError> {
    loop {
        step = match step {
            RetryStep::Refuse(error) => return Err(error),
            RetryStep::Pick => {
                let answer = pool.acquire(&search.pick()).await;
                search.picked(pool, answer, record, Instant::now())
            }
            RetryStep::Connect(lease) => {
                let approach = Connector::to(lease.backend(), pool);
                let mut attempt = ConnectAttempt::new(&lease, Instant::now());
                let header = approach.settings.send_proxy.map(|version| {
                    let nobody = || OutgoingProxyHeader::plain(Peer::Unix, None);
                    let known = introduction.cloned().unwrap_or_else(nobody);
                    known.header(version, record.id)
                });
                let gives_up = || search.gives_up(pool, &mut attempt, Instant::now());
                match approach.reach(lease.backend(), header, gives_up).await {
                    Ok(leg) => {
                        attempt.connected(record, Instant::now());
                        record.encrypted(leg.tls_version());
                        return Ok((leg, lease));
                    }
                    Err(error) => {
                        let why = ConnectFailure::Connect(error);
                        search.unserved(pool, attempt, Some(lease), why, record, Instant::now())
                    }
                }
            }
        };
    }
}
