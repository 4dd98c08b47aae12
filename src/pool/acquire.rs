//! From a request to a lease: a pick at once, or a wait in the queue.

use std::sync::Arc;
use std::time::Instant;

use super::affinity::Visit;
use super::backend::Backend;
use super::backend_pool::Pool;
use super::clock::clock;
use super::lease::Lease;
use super::request::{AcquireError, BackendRequest};
use super::view::{PickError, PickRequest, View};
use crate::balance::{address_hash, bytes_hash};
use crate::config::{self, Balance};
use crate::observe::PoolTimes;

impl Pool {
    /// Picks a backend and counts the connection on it; waits in the queue, in order, while all are
    /// full.
    ///
    /// Backends in `request.tried` are avoided: another primary comes first, then a backup, and
    /// only when every usable backend was tried, one of them again.
    ///
    /// # Errors
    /// `NoBackend` at once when none can be used, also for those who wait when the last one goes;
    /// `Full` without a queue, `QueueFull`, and `QueueTimeout` after `queue_timeout`.
    ///
    /// # Cancel safety
    /// A dropped future leaves the queue; a lease it was given meanwhile is freed for the next.
    pub async fn acquire(&self, request: &BackendRequest<'_>) -> Result<Lease, AcquireError> {
        let settings = self.affine_settings();
        let settings = settings.as_deref();
        let answer = match settings.and_then(|settings| Visit::new(self, settings, request)) {
            Some(visit) => Box::pin(visit.acquire()).await,
            None => self.pick(request).await,
        };
        answer.inspect_err(|error| self.counters.refused(*error))
    }

    /// As [`Pool::acquire`] for callers that cannot wait. `None`: it would have to wait, and
    /// nothing is counted.
    pub fn acquire_now(&self, request: &BackendRequest<'_>) -> Option<Result<Lease, AcquireError>> {
        let settings = self.affine_settings();
        let settings = settings.as_deref();
        let answer = match settings.and_then(|settings| Visit::new(self, settings, request)) {
            Some(visit) => visit.acquire_now(),
            None => self.try_acquire(request),
        }?;
        Some(answer.inspect_err(|error| self.counters.refused(*error)))
    }

    /// The settings of a pool with affinity.
    fn affine_settings(&self) -> Option<Arc<config::Pool>> {
        let view = self.view.load();
        let is_affine = view.settings.affinity.is_some();
        is_affine.then(|| Arc::clone(&view.settings))
    }

    /// Picks at once or in the queue.
    pub(super) async fn pick(&self, request: &BackendRequest<'_>) -> Result<Lease, AcquireError> {
        match self.try_acquire(request) {
            Some(answer) => answer,
            None => self.acquire_queued(request).await,
        }
    }

    /// Whether this is the backend that the pool's hash says, in whatever state it is.
    pub(super) fn is_home(&self, request: &BackendRequest<'_>, name: &str) -> bool {
        let view = self.view.load();
        let hash = pick_request(&view, request).hash;
        let home = hash.and_then(|hash| view.home(hash));
        home.is_some_and(|home| **home.name() == *name)
    }

    /// Whether a backend that is not among `tried` can be used.
    pub fn has_other(&self, tried: &[Arc<Backend>]) -> bool {
        self.refresh(clock());
        self.view.load().has_other(tried)
    }

    /// Whether a backend that is not among `tried` would take a connection at once.
    pub fn has_room_elsewhere(&self, tried: &[Arc<Backend>]) -> bool {
        self.refresh(clock());
        self.queue.is_empty() && self.view.load().has_room_elsewhere(tried)
    }

    /// Picks without waiting. `None`: the request must wait.
    pub(super) fn try_acquire(
        &self,
        request: &BackendRequest<'_>,
    ) -> Option<Result<Lease, AcquireError>> {
        let now = clock();
        self.refresh(now);
        if let Some(lease) = returning_lease(request) {
            return Some(Ok(lease));
        }
        loop {
            let view = self.view.load();
            if !self.queue.is_empty() {
                return None;
            }
            let error = match view.pick(&pick_request(&view, request), now) {
                Ok(lease) => return Some(Ok(lease)),
                Err(error) => error,
            };
            if !Arc::ptr_eq(&view, &self.view_of_members()) {
                continue;
            }
            return match error {
                PickError::NoBackend => Some(Err(AcquireError::NoBackend)),
                PickError::Full if view.settings.max_queue == 0 => Some(Err(AcquireError::Full)),
                PickError::Full => None,
            };
        }
    }

    /// The view once no change is under way. A change closes the backends that leave before the
    /// others are in the view: who picks meanwhile finds none of either.
    fn view_of_members(&self) -> arc_swap::Guard<Arc<View>> {
        let _members = self.members();
        self.view.load()
    }

    async fn acquire_queued(&self, request: &BackendRequest<'_>) -> Result<Lease, AcquireError> {
        let mut refresh_at = self.refresh_at.subscribe();
        let (mut wait, timeout) = {
            let view = self.view.load();
            let (max, request) = (view.settings.max_queue, pick_request(&view, request));
            let joined = self.queue.join(max, &request);
            let wait = joined.ok_or(AcquireError::QueueFull)?;
            (wait, view.settings.queue_timeout)
        };
        self.serve_queue();
        let _measured = MeasuredWait::begin(&self.times);
        let mut deadline = std::pin::pin!(tokio::time::sleep(timeout));
        loop {
            let refresh = *refresh_at.borrow_and_update();
            // Every branch may be dropped: the answer stays in the queue, the others carry nothing.
            let answer = tokio::select! {
                biased;
                answer = wait.answer() => answer,
                () = &mut deadline => match wait.give_up() {
                    Some(answer) => answer,
                    None => return Err(AcquireError::QueueTimeout(timeout)),
                },
                () = sleep_until(refresh) => {
                    self.refresh(clock());
                    continue;
                }
                _ = refresh_at.changed() => continue,
            };
            return answer.map_err(|_| AcquireError::NoBackend);
        }
    }

    /// Offers the room there is to the requests in the queue, in order.
    pub(super) fn serve_queue(&self) {
        let now = clock();
        self.queue
            .serve(|request| self.view.load().pick(request, now));
    }
}

/// Wait in the queue. Dropping it notes how long it was, of a client that has left, too.
struct MeasuredWait<'a> {
    times: &'a PoolTimes,
    begun: Instant,
}

impl MeasuredWait<'_> {
    fn begin(times: &PoolTimes) -> MeasuredWait<'_> {
        MeasuredWait {
            times,
            begun: Instant::now(),
        }
    }
}

impl Drop for MeasuredWait<'_> {
    fn drop(&mut self) {
        self.times.queue_wait.observe(self.begun.elapsed());
    }
}

/// A lease of the client's last backend. The connection counter alone decides: it knows the
/// backend's state and room.
fn returning_lease(request: &BackendRequest<'_>) -> Option<Lease> {
    let failed = |one: &&Arc<Backend>| request.tried.iter().any(|tried| Arc::ptr_eq(tried, one));
    let preferred = request.preferred.filter(|one| !failed(one))?;
    Lease::take_returning(preferred)
}

fn pick_request<'a>(view: &View, request: &BackendRequest<'a>) -> PickRequest<'a> {
    let by_address = || request.client.map(address_hash);
    let hash = match view.settings.balance {
        Balance::IpHash => by_address(),
        Balance::Hash(_) => request.key.map(bytes_hash).or_else(by_address),
        Balance::RoundRobin | Balance::LeastConn | Balance::Random => request.by_hash,
    };
    PickRequest {
        hash,
        tried: request.tried,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
