//! From a pool to a connected backend: pick, queue, dial, and try another when that fails.
//!
//! [`RetryState`] decides what comes next, whom to charge, and when it is over. Two drivers carry
//! that out: [`connect`] may wait, [`connect_now`] runs on a relay thread and may not. A search may
//! begin in one and go on in the other. Nothing of the client is sent here, so every failure may be
//! tried again elsewhere.

pub(super) mod connector;
mod error;
pub(super) mod idle;
pub(super) mod outgoing_proxy_header;
pub(super) mod repeat;
mod retry;
pub(super) mod session;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use self::connector::Connector;
use self::idle::{IdleConnections, TakesIdle};
use self::outgoing_proxy_header::OutgoingProxyHeader;
use super::client::maybe_tls::MaybeTlsStream;
use crate::net::{ConnectError, Peer};
use crate::observe::ConnectionRecord;
use crate::pool::{Backend, Lease, Pool};
use crate::relay::ConnectFailure;

pub(super) use error::BackendUnavailable;
pub(super) use retry::{ConnectAttempt, RetryState, RetryStep};

/// The way in which a backend is connected.
#[derive(Clone, Copy, Default)]
pub(super) struct ConnectBy<'a> {
    /// For a pool with `send_proxy`.
    pub header: Option<&'a OutgoingProxyHeader>,
    /// Connections that wait for a request.
    pub idle: Option<&'a IdleConnections>,
    /// Those that may serve in place of a new one.
    pub takes_idle: TakesIdle,
}

impl ConnectBy<'_> {
    /// An idle connection of a backend that may serve. Where none does, a new one gets its place.
    fn take(&self, backend: &Arc<Backend>) -> Option<MaybeTlsStream> {
        let idle = self.idle?;
        let taken = match self.takes_idle {
            TakesIdle::Never => None,
            takes => idle.take(backend, takes),
        };
        if taken.is_none() {
            idle.make_room(backend);
        }
        taken
    }
}

/// A connected backend.
pub(super) struct Connected {
    pub stream: MaybeTlsStream,
    pub lease: Lease,
    /// The connection has served before.
    pub is_reused: bool,
}

/// Takes a search from `step` to a connected backend.
///
/// # Errors
/// See [`BackendUnavailable`]. Nothing was sent to any backend.
///
/// # Cancel safety
/// Dropping the future gives the lease back and closes a socket that is connecting.
pub(super) async fn connect(
    search: &mut RetryState,
    mut step: RetryStep,
    pool: &Pool,
    by: ConnectBy<'_>,
    record: &mut ConnectionRecord,
) -> Result<Connected, BackendUnavailable> {
    loop {
        step = match step {
            RetryStep::Refuse(error) => return Err(error),
            RetryStep::Pick => {
                let answer = pool.acquire(&search.request()).await;
                search.picked(pool, answer, record)
            }
            RetryStep::Connect(lease) => {
                if let Some(stream) = by.take(lease.backend()) {
                    record.reused(stream.tls_version());
                    return Ok(Connected {
                        stream,
                        lease,
                        is_reused: true,
                    });
                }
                let mut attempt = ConnectAttempt::new(&lease, Instant::now());
                match dial(search, &mut attempt, pool, by.header, record.id).await {
                    Ok(stream) => {
                        attempt.connected(record, Instant::now());
                        record.encrypted(stream.tls_version());
                        return Ok(Connected {
                            stream,
                            lease,
                            is_reused: false,
                        });
                    }
                    Err(error) => {
                        drop(lease);
                        let why = ConnectFailure::Connect(error);
                        search.failed(pool, attempt, why, record)
                    }
                }
            }
        };
    }
}

/// How far a search comes without a wait.
pub(super) enum ConnectNow {
    /// A connect has begun.
    Begun(OwnedFd, Lease, ConnectAttempt),
    Refused(BackendUnavailable),
    /// The next step waits: in the pool's queue, for a PROXY header or for a handshake.
    Waits(RetryStep),
    /// The next step lacks a descriptor.
    Short(RetryStep),
}

/// Takes a search from `step` as far as it goes without a wait.
pub(super) fn connect_now(
    search: &mut RetryState,
    mut step: RetryStep,
    pool: &Arc<Pool>,
    record: &mut ConnectionRecord,
) -> ConnectNow {
    loop {
        step = match step {
            RetryStep::Refuse(error) => return ConnectNow::Refused(error),
            RetryStep::Pick => match pool.acquire_now(&search.request()) {
                Some(answer) => search.picked(pool, answer, record),
                None => return ConnectNow::Waits(RetryStep::Pick),
            },
            RetryStep::Connect(lease) => {
                let connector = Connector::to(lease.backend(), pool);
                if !connector.is_bare() {
                    return ConnectNow::Waits(RetryStep::Connect(lease));
                }
                let attempt = ConnectAttempt::new(&lease, Instant::now());
                match connector.begin() {
                    Ok(socket) => return ConnectNow::Begun(socket, lease, attempt),
                    // The client took the last descriptor: it waits, and the next accept finds none
                    // and pauses.
                    Err(error) if error.is_ours() => {
                        return ConnectNow::Short(RetryStep::Connect(lease));
                    }
                    Err(error) => {
                        drop(lease);
                        let why = ConnectFailure::Connect(error);
                        search.failed(pool, attempt, why, record)
                    }
                }
            }
        };
    }
}

/// Connects to the backend of `attempt`, with a PROXY header and TLS where its pool has them. An
/// overdue connect is given up where another backend would serve at once.
pub(super) async fn dial(
    search: &RetryState,
    attempt: &mut ConnectAttempt,
    pool: &Pool,
    header: Option<&OutgoingProxyHeader>,
    id: u64,
) -> Result<MaybeTlsStream, ConnectError> {
    let backend = Arc::clone(&attempt.backend);
    let connector = Connector::to(&backend, pool);
    let header = connector.settings.send_proxy.map(|version| match header {
        Some(header) => header.encode(version, id),
        None => OutgoingProxyHeader::plain(Peer::Unix, None).encode(version, id),
    });
    let gives_up = || search.gives_up(pool, attempt, Instant::now());
    connector.dial(&backend, header, gives_up).await
}
