//! The limits of the process: its file descriptors, `global.max_connections`,
//! `max_setup_connections`, `max_connection_rate` and `max_memory`. At a limit accepting pauses;
//! nothing spins, and the admin endpoint keeps its reserve of descriptors.
//!
//! Connections are counted here and uncounted by the permits that stand for them (`permits`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::memory::MemoryBound;
use super::silence::SilentConnections;
use crate::base::rate::Bucket;
use crate::config::{Global, Rate};
use crate::net::fds;

/// Descriptors kept free for what is not bounded otherwise: listeners (they are bound after the
/// budget is made), each with one accepted connection that waits for a permit, discovery's queries,
/// log and configuration files.
const OTHER_DESCRIPTORS: u64 = 64;
/// The reserve takes at most this part of a small descriptor limit: that is for proxied
/// connections.
const MAX_RESERVE_DIVISOR: u64 = 4;
/// Descriptors of a proxied connection: it has two legs.
const FDS_PER_CONNECTION: u64 = 2;
/// Assumed where no limit can be read.
const FALLBACK_FD_LIMIT: u64 = 1024;

/// Descriptors of everything beside the data path at its own bounds at once: the admin and the
/// metrics endpoint, viewers of events, checks, the rest.
const FULL_RESERVE: u64 = 2 * fds::MAX_ENDPOINT_CONNECTIONS as u64
    + fds::MAX_EVENT_VIEWERS as u64
    + fds::MAX_PARALLEL_CHECKS as u64
    + OTHER_DESCRIPTORS;

/// Descriptors that no proxied connection gets.
fn reserve(fd_limit: u64) -> u64 {
    FULL_RESERVE.min(fd_limit / MAX_RESERVE_DIVISOR)
}

/// The process's limits, and what counts for them.
#[derive(Debug)]
pub struct Limits {
    fd_limit: u64,
    /// Connections that the descriptors allow.
    budget: u64,
    max_connections: AtomicU64,
    max_setup: AtomicU64,
    live: AtomicU64,
    in_setup: AtomicU64,
    /// Bounds all that is accepted.
    max_rate: ArcSwapOption<Rate>,
    accepted: Bucket,
    epoch: Instant,
    freed: Notify,
    pub(super) silent: SilentConnections,
    /// The limit for which a silent connection was evicted last: `max_connections`, else
    /// `max_setup_connections`.
    evicted_for_live: AtomicBool,
    memory: MemoryBound,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one and computes the budget from what is open
    /// already. `relay_descriptors` are those that the relay takes beside its sessions' own.
    pub fn new(global: &Global, relay_descriptors: u64) -> Arc<Self> {
        let fd_limit = fds::raise_limit().unwrap_or_else(|error| {
            tracing::warn!(%error, "file descriptor limit cannot be raised");
            FALLBACK_FD_LIMIT
        });
        let reserve = reserve(fd_limit);
        if reserve < FULL_RESERVE {
            tracing::warn!(
                descriptors = fd_limit,
                reserve,
                wanted = FULL_RESERVE,
                "few file descriptors: checks and the admin endpoint may lack some when many are in use"
            );
        }
        let taken = fds::open_count().unwrap_or(0) + reserve + relay_descriptors;
        let budget = (fd_limit.saturating_sub(taken) / FDS_PER_CONNECTION).max(1);
        let limits = Self::of_budget(fd_limit, budget);
        limits.apply(global);
        tracing::info!(
            descriptors = fd_limit,
            reserve,
            max_connections = limits.max_connections(),
            "connection budget"
        );
        Arc::new(limits)
    }

    /// Limits that let everybody in, without a look at the process.
    #[cfg(any(test, fuzzing))]
    pub fn unbounded() -> Arc<Self> {
        Arc::new(Self::of_budget(u64::MAX, u64::MAX))
    }

    fn of_budget(fd_limit: u64, budget: u64) -> Self {
        Self {
            fd_limit,
            budget,
            max_connections: AtomicU64::new(0),
            max_setup: AtomicU64::new(0),
            live: AtomicU64::new(0),
            in_setup: AtomicU64::new(0),
            max_rate: ArcSwapOption::empty(),
            accepted: Bucket::default(),
            epoch: Instant::now(),
            freed: Notify::new(),
            silent: SilentConnections::default(),
            evicted_for_live: AtomicBool::new(false),
            memory: MemoryBound::default(),
        }
    }

    /// Takes over the limits of a configuration.
    pub fn apply(&self, global: &Global) {
        let wanted = match global.max_connections {
            0 => self.budget,
            wanted => wanted.min(self.budget),
        };
        if global.max_connections > self.budget {
            tracing::warn!(
                wanted = global.max_connections,
                budget = self.budget,
                "global.max_connections is more than the file descriptor limit allows"
            );
        }
        let setup = u64::try_from(global.max_setup_connections).unwrap_or(u64::MAX);
        self.max_connections.store(wanted, Ordering::Relaxed);
        self.max_setup.store(setup.max(1), Ordering::Relaxed);
        self.max_rate
            .store(global.max_connection_rate.map(Arc::new));
        self.memory.apply(global.max_memory);
        self.freed.notify_waiters();
    }

    /// Whether the process takes more memory than it should: new connections are refused.
    pub fn is_short_of_memory(&self) -> bool {
        self.memory.is_short(self.now())
    }

    /// Bytes of anonymous memory above which that is; 0: never.
    pub fn max_memory(&self) -> u64 {
        self.memory.max()
    }

    /// The process's descriptor limit.
    pub fn fd_limit(&self) -> u64 {
        self.fd_limit
    }

    /// Client connections that may be open at once.
    pub fn max_connections(&self) -> u64 {
        self.max_connections.load(Ordering::Relaxed)
    }

    /// Client connections open now, in set-up and relayed.
    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Client connections that are not yet routed.
    pub fn in_setup(&self) -> u64 {
        self.in_setup.load(Ordering::Relaxed)
    }

    /// Whether a connection may enter set-up.
    pub fn has_room(&self) -> bool {
        self.has_connection_room() && self.in_setup() < self.max_setup.load(Ordering::Relaxed)
    }

    /// Whether a connection that needs no set-up may be accepted.
    pub(super) fn has_connection_room(&self) -> bool {
        self.live() < self.max_connections() && self.rate_wait().is_zero()
    }

    /// The limit that lets nothing more in, by its key.
    pub(crate) fn reached(&self) -> &'static str {
        if !self.rate_wait().is_zero() {
            "max_connection_rate"
        } else if self.live() >= self.max_connections() {
            "max_connections"
        } else {
            "max_setup_connections"
        }
    }

    /// Time since these limits were made: the clock of all rates.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Time for which the rate lets no connection in.
    fn rate_wait(&self) -> Duration {
        let rate = self.max_rate.load();
        rate.as_ref().map_or(Duration::ZERO, |rate| {
            self.accepted.wait(**rate, self.now())
        })
    }

    /// Counts one connection for the rate; false where that has no room for it.
    fn take_rate(&self) -> bool {
        let rate = self.max_rate.load();
        rate.as_ref()
            .is_none_or(|rate| self.accepted.take(**rate, self.now()))
    }

    /// Waits until a connection may enter set-up; a silent one is evicted for it.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub async fn room(&self) {
        self.until(|| self.has_room().then_some(())).await;
    }

    /// Waits until a connection that needs no set-up may be accepted.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub(crate) async fn connection_room(&self) {
        let has_room = || self.has_connection_room().then_some(());
        self.until(has_room).await;
    }

    /// Waits until any connection ends.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Waits until no connection is left.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub async fn emptied(&self) {
        let is_empty = || (self.live() == 0).then_some(());
        self.look_until(is_empty, || None).await;
    }

    /// Asks `look` whenever a connection ends, until it gives something.
    pub(super) async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        // Above the rate an eviction would not let the next one in.
        let wait = || match self.rate_wait() {
            Duration::ZERO => self.make_room(),
            wait => Some(wait),
        };
        self.look_until(look, wait).await
    }

    /// Evicts a silent connection where a limit is reached. Returns how long it takes until one
    /// may be evicted, zero where no limit is in the way, `None` where one was evicted or none is
    /// silent.
    fn make_room(&self) -> Option<Duration> {
        let (live, setup) = (
            self.max_connections(),
            self.max_setup.load(Ordering::Relaxed),
        );
        let is_full = self.live() >= live;
        if !is_full && self.in_setup() < setup {
            return Some(Duration::ZERO);
        }
        self.evicted_for_live.store(is_full, Ordering::Relaxed);
        self.silent.evict(setup.min(live), Instant::now())
    }

    /// The limit, by its key, for which a silent connection was evicted last.
    pub(super) fn evicted_for(&self) -> &'static str {
        if self.evicted_for_live.load(Ordering::Relaxed) {
            "max_connections"
        } else {
            "max_setup_connections"
        }
    }

    /// Asks `look` whenever a connection ends, and after the time that `wait` gives.
    async fn look_until<T>(
        &self,
        look: impl Fn() -> Option<T>,
        wait: impl Fn() -> Option<Duration>,
    ) -> T {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Listening before looking: a connection that ends in between is not missed.
            freed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            match wait() {
                None => freed.await,
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, freed).await;
                }
            }
        }
    }

    /// Counts a connection that enters set-up; false where there is no room. Listeners ask at the
    /// same time, so each count is compared and raised in one step.
    pub(crate) fn try_enter(&self) -> bool {
        if !raise(&self.in_setup, self.max_setup.load(Ordering::Relaxed)) {
            return false;
        }
        let is_counted = self.reserve();
        if !is_counted {
            self.in_setup.fetch_sub(1, Ordering::Relaxed);
        }
        is_counted
    }

    /// Counts a connection that enters set-up, whether there is room or not.
    pub(crate) fn enter(&self) {
        self.in_setup.fetch_add(1, Ordering::Relaxed);
        self.reserve_anyway();
    }

    /// Uncounts a connection that has left set-up; the process still counts it.
    pub(crate) fn leave_setup(&self) {
        self.in_setup.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Counts a connection that is about to be accepted and needs no set-up; false where there is
    /// no room. [`ListenerAdmission::admit`](super::ListenerAdmission::admit) makes it a permit.
    pub(crate) fn reserve(&self) -> bool {
        if !raise(&self.live, self.max_connections()) {
            return false;
        }
        let has_room = self.take_rate();
        if !has_room {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Counts such a connection whether there is room or not.
    pub fn reserve_anyway(&self) {
        if let Some(rate) = &*self.max_rate.load() {
            self.accepted.owe(**rate, self.now());
        }
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the connections that the process before has, in place of those told `before`.
    pub(crate) fn set_elsewhere(&self, before: u64, now: u64) {
        self.live
            .fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        for _ in now..before {
            self.release();
        }
    }

    /// Counts a connection that another process has accepted: it was in that one's rate.
    pub(super) fn take_over(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Uncounts a reserved connection that did not come.
    pub(crate) fn unreserve(&self) {
        if let Some(rate) = &*self.max_rate.load() {
            self.accepted.give_back(**rate);
        }
        self.release();
    }

    /// Uncounts a connection that has ended.
    pub(super) fn release(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_waiters();
    }
}

/// Adds one unless `max` is reached.
fn raise(count: &AtomicU64, max: u64) -> bool {
    let next = |now| (now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::SetupPermit;

    fn limits(max_connections: u64, max_setup: usize) -> Arc<Limits> {
        Limits::new(
            &Global {
                workers: 1,
                max_connections,
                max_connection_rate: None,
                max_setup_connections: max_setup,
                max_handshakes: 1,
                max_handshake_rate: None,
                max_buffered: 1 << 20,
                max_memory: None,
                hard_stop_after: std::time::Duration::ZERO,
                shutdown_delay: std::time::Duration::ZERO,
                watch: false,
                log_level: crate::config::LogLevel::Info,
                log_format: crate::config::LogFormat::Text,
            },
            0,
        )
    }

    #[tokio::test]
    async fn accepting_goes_on_when_a_connection_ends() {
        let limits = limits(1, 10);
        let permit = SetupPermit::acquire_anyway(&limits);
        assert!(!limits.has_room());
        let (_, ()) = tokio::join!(async { drop(permit) }, limits.room());
        assert_eq!(limits.live(), 0);
    }

    // The reserve was 32 while checks alone may take 256.
    #[test]
    fn the_reserve_holds_all_that_is_bounded_elsewhere_unless_the_limit_is_small() {
        assert_eq!(reserve(1 << 20), 2 * 64 + 128 + 256 + OTHER_DESCRIPTORS);
        assert_eq!(reserve(4096), reserve(1 << 20));
        assert_eq!(reserve(100), 25);
    }

    #[tokio::test]
    async fn listeners_that_ask_at_once_get_no_permit_more_than_there_are() {
        let limits = limits(3, 2);
        let first = SetupPermit::acquire(&limits).await;
        let second = SetupPermit::acquire(&limits).await;
        assert!(!limits.try_enter(), "set-up is full");
        first.routed();
        let third = SetupPermit::acquire(&limits).await;
        second.routed();
        assert!(!limits.try_enter(), "the process is full");
        let (_, fourth) = tokio::join!(async { drop(first) }, SetupPermit::acquire(&limits));
        assert_eq!((limits.live(), limits.in_setup()), (3, 2));
        drop((second, third, fourth));
        assert_eq!((limits.live(), limits.in_setup()), (0, 0));
    }

    #[tokio::test]
    async fn above_the_rate_nobody_gets_in_until_it_gives_back() {
        let limits = limits(10, 10);
        limits.max_rate.store(Some(Arc::new(Rate::per_second(2))));
        let held = (
            SetupPermit::acquire(&limits).await,
            SetupPermit::acquire(&limits).await,
        );
        assert!(!limits.has_room() && !limits.reserve());
        assert_eq!(limits.reached(), "max_connection_rate");
        limits.max_rate.store(None);
        let third =
            tokio::time::timeout(Duration::from_secs(1), SetupPermit::acquire(&limits)).await;
        assert!(third.is_ok(), "no rate any more");
        drop(held);
    }

    #[test]
    fn a_routed_connection_makes_room_in_set_up_and_stays_counted() {
        let limits = limits(10, 1);
        let permit = SetupPermit::acquire_anyway(&limits);
        assert!(!limits.has_room());
        permit.routed();
        assert!(limits.has_room());
        assert_eq!((limits.live(), limits.in_setup()), (1, 0));
    }
}
