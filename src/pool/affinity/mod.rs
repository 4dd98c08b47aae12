//! Affinity: a client goes back to the backend that it had.
//!
//! Clients that were here lately are in memory. In a cluster the store knows those of the other
//! balancers: a client that is not in memory is looked up there, once and for a bounded time. That
//! is the only wait for the store on the data path. Where the store does not answer in time, or has
//! enough to do, the client's hash says where it goes: all balancers pick alike then, and nothing
//! is learned.

mod link;
mod memory;
pub(in crate::pool) mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use self::memory::Remembered;
use super::backend::Backend;
use super::backend_pool::Pool;
use super::clock::clock;
use super::lease::Lease;
use super::request::{AcquireError, BackendRequest};
use crate::balance::bytes_hash;
use crate::base::rate::Rate;
use crate::config::{self, Learn};

pub(crate) use link::{AffinityAnswer, AffinityAsk, AffinityLink, AffinityQuestion, AffinityStore};

/// All that a connection waits for the store: ten round trips of a near one, and nothing beside a
/// client's own.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(50);
/// Look-ups of one pool. More in a second are a storm: it must not become one of the store's.
const LOOKUP_RATE: Rate = Rate::per_second(500);
/// Time for which memory is believed without a look-up: another balancer may have moved the client.
const FRESH: Duration = Duration::from_secs(30);

/// One client that comes, and what says who it is.
pub(in crate::pool) struct Visit<'a> {
    pool: &'a Pool,
    settings: &'a config::Affinity,
    request: BackendRequest<'a>,
    key: Vec<u8>,
    place: u64,
    now: Duration,
}

/// Knowledge about a client at hand.
enum Knowledge {
    /// All that there is; `None`: the client is new.
    All(Option<Remembered>),
    /// The store may know more.
    Partial(Option<Remembered>),
}

impl Pool {
    /// Sets the link to the cluster's store; `None`: affinity is this balancer's alone.
    pub(crate) fn set_affinity_link(&self, link: Option<Arc<AffinityLink>>) {
        self.affinity.link.store(link);
    }
}

impl<'a> Visit<'a> {
    /// `None`: the pool has no affinity, or nothing says who the client is.
    pub(super) fn new(
        pool: &'a Pool,
        settings: &'a config::Pool,
        request: &BackendRequest<'a>,
    ) -> Option<Visit<'a>> {
        let affinity = settings.affinity.as_ref()?;
        let key = client_key(request)?;
        Some(Visit {
            place: pool.affinity.memory.place(&key),
            now: clock().saturating_duration_since(pool.affinity.epoch),
            pool,
            settings: affinity,
            request: *request,
            key,
        })
    }

    /// As [`Pool::acquire`], at the client's backend as far as it can be.
    pub(super) async fn acquire(&self) -> Result<Lease, AcquireError> {
        let deadline = tokio::time::Instant::now() + LOOKUP_TIMEOUT;
        let known = match self.knowledge() {
            Knowledge::All(known) => known,
            Knowledge::Partial(known) => match self.find(deadline).await {
                Some(Some(backend)) => return self.acquire_found(&backend).await,
                Some(None) if known.is_none() => return self.acquire_first(deadline).await,
                // The entry is gone, or never came there: it is told once more.
                Some(None) => known,
                None => return self.acquire_unheard(known).await,
            },
        };
        let backend = self.backend(known.as_ref());
        let lease = self.pool.pick(&self.preferring(backend.as_ref())).await?;
        self.note(&lease, known);
        Ok(lease)
    }

    /// As [`Pool::acquire_now`].
    pub(super) fn acquire_now(&self) -> Option<Result<Lease, AcquireError>> {
        let known = match self.knowledge() {
            Knowledge::All(known) => known,
            Knowledge::Partial(_) if self.may_ask() => return None,
            Knowledge::Partial(known) => {
                let backend = self.backend(known.as_ref());
                return self.pool.try_acquire(&self.unheard(backend.as_ref()));
            }
        };
        let backend = self.backend(known.as_ref());
        let answer = self.pool.try_acquire(&self.preferring(backend.as_ref()))?;
        Some(answer.inspect(|lease| self.note(lease, known)))
    }

    fn knowledge(&self) -> Knowledge {
        let affinity = &self.pool.affinity;
        let since = self.now.saturating_sub(self.settings.ttl);
        let known = affinity.memory.find(self.place, since);
        // A retry goes elsewhere, whatever the store says.
        if affinity.link.load().is_none() || !self.request.tried.is_empty() {
            return Knowledge::All(known);
        }
        let fresh = FRESH.min(self.settings.ttl / 2);
        let is_fresh = |known: &Remembered| self.now.saturating_sub(known.told_at) < fresh;
        if known.as_ref().is_some_and(is_fresh) {
            Knowledge::All(known)
        } else {
            Knowledge::Partial(known)
        }
    }

    /// Whether a look-up would be made now.
    fn may_ask(&self) -> bool {
        let affinity = &self.pool.affinity;
        let link = affinity.link.load();
        link.as_ref().is_some_and(|link| link.is_there())
            && affinity.asked.wait(LOOKUP_RATE, self.now).is_zero()
    }

    /// Looks the client up. The outer `None`: the store did not say.
    async fn find(&self, deadline: tokio::time::Instant) -> Option<AffinityAnswer> {
        let counters = &self.pool.counters;
        let answer = if self.pool.affinity.asked.take(LOOKUP_RATE, self.now) {
            self.wait(AffinityAsk::Find, deadline).await
        } else {
            None
        };
        counters.looked_up(answer.as_ref());
        answer
    }

    /// Waits for an answer of the store until `deadline`.
    async fn wait(
        &self,
        ask: AffinityAsk,
        deadline: tokio::time::Instant,
    ) -> Option<AffinityAnswer> {
        timeout_at(deadline, self.ask(ask)?).await.ok()?.ok()
    }

    fn ask(&self, ask: AffinityAsk) -> Option<oneshot::Receiver<AffinityAnswer>> {
        let link = self.pool.affinity.link.load_full()?;
        link.ask(self.pool.name(), &self.key, ask)
    }

    /// Goes where the store says, and prolongs the entry.
    async fn acquire_found(&self, name: &str) -> Result<Lease, AcquireError> {
        let backend = self.pool.find(|one| one == name);
        let lease = self.pool.pick(&self.preferring(backend.as_ref())).await?;
        self.tell(&lease, Some(name.into()));
        Ok(lease)
    }

    /// Picks for a client that no balancer knows. Of two that pick at once the first to tell wins.
    pub(super) async fn acquire_first(
        &self,
        deadline: tokio::time::Instant,
    ) -> Result<Lease, AcquireError> {
        let lease = self.pool.pick(&self.request).await?;
        let name = lease.backend().name();
        if self.is_home(name) {
            self.keep(None);
            return Ok(lease);
        }
        let claim = self.claim(name, None);
        let winner = self.wait(claim, deadline).await.flatten();
        let other = winner.filter(|winner| **winner != **name);
        let lease = match other
            .as_deref()
            .and_then(|other| self.pool.find(|one| one == other))
        {
            // The first lease is given back.
            Some(backend) => Lease::take_returning(&backend).unwrap_or(lease),
            None => lease,
        };
        self.keep(Some(Arc::clone(lease.backend().name())));
        Ok(lease)
    }

    /// Goes on without the store: where the client was, or else by its hash.
    async fn acquire_unheard(&self, known: Option<Remembered>) -> Result<Lease, AcquireError> {
        let backend = self.backend(known.as_ref());
        self.pool.pick(&self.unheard(backend.as_ref())).await
    }

    /// The request that takes this backend first.
    fn preferring<'b>(&'b self, backend: Option<&'b Arc<Backend>>) -> BackendRequest<'b> {
        BackendRequest {
            preferred: backend,
            ..self.request
        }
    }

    /// As [`Visit::preferring`], else by hash.
    fn unheard<'b>(&'b self, backend: Option<&'b Arc<Backend>>) -> BackendRequest<'b> {
        BackendRequest {
            by_hash: Some(bytes_hash(&self.key)),
            ..self.preferring(backend)
        }
    }

    fn backend(&self, known: Option<&Remembered>) -> Option<Arc<Backend>> {
        let name = known?.backend.as_deref()?;
        self.pool.find(|one| one == name)
    }

    /// Remembers that the client is here now, and tells the store if that is news.
    fn note(&self, lease: &Lease, known: Option<Remembered>) {
        match known {
            Some(known) if self.is_at(lease, known.backend.as_ref()) => {
                self.remember(self.remembered(known.backend, known.told_at));
            }
            known => self.tell(lease, known.and_then(|known| known.backend)),
        }
    }

    /// Remembers where the client is now, and tells the store, which had `before`. Nobody waits for
    /// its answer.
    fn tell(&self, lease: &Lease, before: Option<Arc<str>>) {
        let name = lease.backend().name();
        if before.is_none() && self.is_home(name) {
            return self.keep(None);
        }
        drop(self.ask(self.claim(name, before)));
        self.keep(Some(Arc::clone(name)));
    }

    /// Whether a lease is of the client's backend; `None`: of that of its hash.
    fn is_at(&self, lease: &Lease, backend: Option<&Arc<str>>) -> bool {
        let name = lease.backend().name();
        backend.map_or_else(|| self.is_home(name), |backend| backend == name)
    }

    fn claim(&self, backend: &Arc<str>, instead_of: Option<Arc<str>>) -> AffinityAsk {
        AffinityAsk::Claim {
            backend: Arc::clone(backend),
            instead_of,
            ttl: self.settings.ttl,
        }
    }

    /// Whether the hash says this backend, and only exceptions are kept.
    fn is_home(&self, name: &str) -> bool {
        self.settings.learn == Learn::Exceptions && self.pool.is_home(&self.request, name)
    }

    fn keep(&self, backend: Option<Arc<str>>) {
        self.remember(self.remembered(backend, self.now));
    }

    fn remember(&self, client: Remembered) {
        self.pool.affinity.memory.keep(self.place, client);
    }

    fn remembered(&self, backend: Option<Arc<str>>, told_at: Duration) -> Remembered {
        Remembered {
            backend,
            seen_at: self.now,
            told_at,
        }
    }
}

/// The bytes that say who the client is; keys and addresses cannot be taken for each other.
fn client_key(request: &BackendRequest<'_>) -> Option<Vec<u8>> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    if let Some(key) = request.key {
        return Some(tagged(b'k', key));
    }
    Some(match request.client?.to_canonical() {
        std::net::IpAddr::V4(address) => tagged(b'4', &address.octets()),
        std::net::IpAddr::V6(address) => tagged(b'6', &address.octets()),
    })
}
