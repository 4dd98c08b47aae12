//! Counts of the connections of one listener, and of those of one source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::limits::Limits;
use super::sources::Tracked;
use crate::base::rate::Bucket;
use crate::config::{Admission, PerSource};
use crate::observe::Refusal;

/// Count of all connections of one listener.
#[derive(Debug)]
pub(super) struct ListenerCount {
    pub limits: Arc<Limits>,
    live: AtomicU64,
    accepted: Bucket,
}

impl ListenerCount {
    pub(super) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::clone(limits),
            live: AtomicU64::new(0),
            accepted: Bucket::default(),
        })
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts a connection, unless a limit of the listener keeps it out.
    pub(super) fn enter(&self, limits: &Admission, now: Duration) -> Result<(), Refusal> {
        if !raise(&self.live, limits.max_connections) {
            return Err(Refusal::MaxConnections);
        }
        let rate = limits.max_connection_rate;
        if rate.is_some_and(|rate| !self.accepted.take(rate, now)) {
            self.leave();
            return Err(Refusal::MaxConnectionRate);
        }
        Ok(())
    }

    /// Counts a connection that was let in elsewhere, whatever the limits.
    pub(super) fn enter_anyway(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Count of the connections, or the sessions, of one source.
#[derive(Debug)]
pub(super) struct SourceCount {
    pub listener: Arc<ListenerCount>,
    live: AtomicU64,
    accepted: Bucket,
}

impl SourceCount {
    pub(super) fn new(listener: &Arc<ListenerCount>) -> Self {
        Self {
            listener: Arc::clone(listener),
            live: AtomicU64::new(0),
            accepted: Bucket::default(),
        }
    }

    /// Counts one connection of no listener.
    #[cfg(any(test, fuzzing))]
    pub fn unlisted(limits: &Arc<Limits>) -> Arc<Self> {
        let count = Self::new(&ListenerCount::new(limits));
        count.listener.live.fetch_add(1, Ordering::Relaxed);
        count.live.fetch_add(1, Ordering::Relaxed);
        Arc::new(count)
    }

    /// Counts one more, unless a limit of the source keeps it out.
    pub(super) fn enter(&self, limits: Option<&PerSource>, now: Duration) -> Result<(), Refusal> {
        let max = limits.map_or(0, |limits| limits.max_connections);
        if !raise(&self.live, max) {
            return Err(Refusal::SourceMaxConnections);
        }
        let rate = limits.and_then(|limits| limits.max_connection_rate);
        if rate.is_some_and(|rate| !self.accepted.take(rate, now)) {
            self.leave();
            return Err(Refusal::SourceMaxConnectionRate);
        }
        Ok(())
    }

    /// As [`ListenerCount::enter_anyway`].
    pub(super) fn enter_anyway(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tracked for SourceCount {
    fn forgotten_at(&self) -> Duration {
        self.accepted.full_at()
    }
}

/// Adds one unless `max` is reached; 0 is no limit.
fn raise(count: &AtomicU64, max: u64) -> bool {
    let next = |now| (max == 0 || now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}
