//! Counts of the connections of one listener, and of those of one source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
    /// Balancers among which the limits of sources are divided.
    divisor: AtomicU32,
}

impl ListenerCount {
    pub(super) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::clone(limits),
            live: AtomicU64::new(0),
            accepted: Bucket::default(),
            divisor: AtomicU32::new(1),
        })
    }

    fn divisor(&self) -> u64 {
        self.divisor.load(Ordering::Relaxed).into()
    }

    pub(super) fn set_divisor(&self, divisor: u32) {
        self.divisor.store(divisor.max(1), Ordering::Relaxed);
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
    /// Connections at the other balancers of the cluster, as they told last.
    others: AtomicU32,
    accepted: Bucket,
}

impl SourceCount {
    pub(super) fn new(listener: &Arc<ListenerCount>, others: u32) -> Self {
        Self {
            listener: Arc::clone(listener),
            live: AtomicU64::new(0),
            others: AtomicU32::new(others),
            accepted: Bucket::default(),
        }
    }

    /// Counts one connection of no listener.
    #[cfg(any(test, fuzzing))]
    pub fn unlisted(limits: &Arc<Limits>) -> Arc<Self> {
        let count = Self::new(&ListenerCount::new(limits), 0);
        count.listener.live.fetch_add(1, Ordering::Relaxed);
        count.live.fetch_add(1, Ordering::Relaxed);
        Arc::new(count)
    }

    /// Counts one more, unless a limit of the source keeps it out.
    pub(super) fn enter(&self, limits: Option<&PerSource>, now: Duration) -> Result<(), Refusal> {
        let max = limits.map_or(0, |limits| limits.max_connections);
        if !self.raise(max) {
            return Err(Refusal::SourceMaxConnections);
        }
        let rate = limits.and_then(|limits| limits.max_connection_rate);
        if rate.is_some_and(|rate| !self.accepted.take(rate, now)) {
            self.leave();
            return Err(Refusal::SourceMaxConnectionRate);
        }
        Ok(())
    }

    /// Counts one more, unless there are as many over all balancers as may be.
    fn raise(&self, max: u64) -> bool {
        if max == 0 {
            return raise(&self.live, 0);
        }
        let others = u64::from(self.others.load(Ordering::Relaxed));
        let part = max.div_ceil(self.listener.divisor());
        // 0 would be no limit.
        let left = part.saturating_sub(others);
        left > 0 && raise(&self.live, left)
    }

    pub(super) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn set_others(&self, others: u32) {
        self.others.store(others, Ordering::Relaxed);
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
