//! The seam to the cluster's store: which backend a client has there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::oneshot;

/// Bytes of a key's hash: a collision would send a client to another one's backend, no more.
const HASH_BYTES: usize = 16;

/// A question to the store about one client of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AffinityQuestion {
    pub pool: Arc<str>,
    /// The client, by a hash under the cluster's secret.
    pub client: [u8; HASH_BYTES],
    pub ask: AffinityAsk,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AffinityAsk {
    /// The client's backend.
    Find,
    /// Set the client's backend, for so long, unless it has one other than this and `instead_of`.
    /// The first balancer that sets one wins.
    Claim {
        backend: Arc<str>,
        instead_of: Option<Arc<str>>,
        ttl: Duration,
    },
}

/// Answer: the backend that the client has in the store now.
pub(crate) type AffinityAnswer = Option<String>;

/// The store, as affinity asks it.
pub(crate) trait AffinityStore: Send + Sync {
    /// Whether a question would be put now.
    fn is_there(&self) -> bool;

    /// Puts a question and returns at once. The store works on it whether the answer is waited for
    /// or not; a receiver without an answer means that there is none. `None`: the store is not
    /// there, or has enough to do.
    fn ask(&self, question: AffinityQuestion) -> Option<oneshot::Receiver<AffinityAnswer>>;
}

/// The store of a cluster and the secret that hides clients from its readers.
pub(crate) struct AffinityLink {
    secret: hmac::Key,
    store: Box<dyn AffinityStore>,
}

impl AffinityLink {
    pub(crate) fn new(secret: &[u8], store: Box<dyn AffinityStore>) -> AffinityLink {
        AffinityLink {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            store,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.store.is_there()
    }

    pub(super) fn ask(
        &self,
        pool: &Arc<str>,
        key: &[u8],
        ask: AffinityAsk,
    ) -> Option<oneshot::Receiver<AffinityAnswer>> {
        let client = self.hash(pool, key);
        let pool = Arc::clone(pool);
        self.store.ask(AffinityQuestion { pool, client, ask })
    }

    fn hash(&self, pool: &str, key: &[u8]) -> [u8; HASH_BYTES] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"affinity\0");
        context.update(pool.as_bytes());
        context.update(b"\0");
        context.update(key);
        let mut hash = [0; HASH_BYTES];
        let tag = context.sign();
        for (byte, of_tag) in hash.iter_mut().zip(tag.as_ref()) {
            *byte = *of_tag;
        }
        hash
    }
}

impl fmt::Debug for AffinityLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AffinityLink").finish_non_exhaustive()
    }
}
