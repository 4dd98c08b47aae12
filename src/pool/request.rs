//! A request for a backend, and why it may be refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Backend;

/// A request for a backend: facts of the connection that needs one.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackendRequest<'a> {
    /// The client's address; `None` on a unix socket. A v4-mapped one counts as its IPv4 address.
    pub client: Option<IpAddr>,
    /// The value of the pool's `hash_key`; `None` where the connection has none: its address is
    /// hashed then.
    pub key: Option<&'a [u8]>,
    /// The client's last backend, by its sticky cookie. Taken first, while it is ready or kept open
    /// in its drain, and has room. No request waits for it in the queue.
    pub preferred: Option<&'a Arc<Backend>>,
    /// Picks by this hash, whatever the pool's algorithm is: for a client that affinity cannot look
    /// up now.
    pub by_hash: Option<u64>,
    /// Backends that this connection already failed to reach. One of them is picked again only when
    /// no other backend can be used at all.
    pub tried: &'a [Arc<Backend>],
}

/// Why a pool gave no backend. Nothing was sent anywhere: each may be answered with a 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// Every backend is down, draining, ejected, unresolved or of weight 0.
    #[error("no backend can be used")]
    NoBackend,
    /// Every usable backend is at its `max_connections`, and the pool has no queue.
    #[error("every backend is at its max_connections")]
    Full,
    /// As `Full`, and the queue is full, too.
    #[error("every backend is at its max_connections and the queue is full")]
    QueueFull,
    /// No backend had room within `queue_timeout`, given here.
    #[error("no backend had room within {0:?}")]
    QueueTimeout(Duration),
}
