//! How many connections the process takes: the file-descriptor budget, `global.max_connections`, and the cap on
//! connections in set-up. At a limit accepting pauses; nothing spins, and the admin endpoint keeps its reserve.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::listener::{ListenerPermit, SourcePermit};
use super::memory::MemoryBound;
use super::silence::SilentConnections;
use crate::base::rate::Bucket;
use crate::base::silence_queue::SilentId;
use crate::base::source_prefix::SourcePrefix;
use crate::config::{Global, Rate};
use crate::net::fds;

/// Descriptors kept free for what is not bounded otherwise: listeners (they are bound after the budget is made), each
/// with one accepted connection that waits for a place, discovery's queries, log and configuration files.
const OTHER_DESCRIPTORS: u64 = 64;
/// The reserve takes at most this part of a small descriptor limit: the proxied connections are what it is for.
const MAX_RESERVE_DIVISOR: u64 = 4;
/// A proxied connection has two legs.
const FDS_PER_CONNECTION: u64 = 2;
/// Where no limit can be read.
const FALLBACK_FD_LIMIT: u64 = 1024;

/// Everything beside the data path at its own bounds at once: the admin and the metrics endpoint, checks, the rest.
const FULL_RESERVE: u64 =
    2 * fds::MAX_ENDPOINT_CONNECTIONS as u64 + fds::MAX_PARALLEL_CHECKS as u64 + OTHER_DESCRIPTORS;

/// Descriptors that no proxied connection gets.
fn reserve(fd_limit: u64) -> u64 {
    FULL_RESERVE.min(fd_limit / MAX_RESERVE_DIVISOR)
}

#[derive(Debug)]
pub struct Limits {
    fd_limit: u64,
    /// What the descriptors allow.
    budget: u64,
    max_connections: AtomicU64,
    max_setup: AtomicU64,
    live: AtomicU64,
    in_setup: AtomicU64,
    /// Of all that is accepted.
    max_rate: ArcSwapOption<Rate>,
    accepted: Bucket,
    epoch: Instant,
    freed: Notify,
    silent: SilentConnections,
    /// The limit that silent ones left for last: `max_connections`, else `max_setup_connections`.
    left_for_live: AtomicBool,
    memory: MemoryBound,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one and computes the budget from what is open already.
    /// `relay_descriptors` are those that the relay takes beside its sessions' own.
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
            left_for_live: AtomicBool::new(false),
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

    /// Of these, not yet routed.
    pub fn in_setup(&self) -> u64 {
        self.in_setup.load(Ordering::Relaxed)
    }

    /// Waits until another connection may be accepted; a silent one leaves its place for it.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub async fn room(&self) {
        self.until(|| self.has_room().then_some(())).await;
    }

    /// Counts one accepted connection, once there is room.
    ///
    /// # Cancel safety
    /// Takes nothing until it is done.
    pub async fn enter(self: &Arc<Self>) -> SetupPermit {
        self.until(|| self.try_slot()).await
    }

    /// Waits until no connection is left.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub async fn emptied(&self) {
        let is_empty = || (self.live() == 0).then_some(());
        self.look_until(is_empty, || None).await;
    }

    /// Looks again whenever a place is freed, until there is what is looked for.
    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        // Over the rate nobody has to leave for the next one to come.
        let wait = || match self.rate_wait() {
            Duration::ZERO => self.make_room(),
            wait => Some(wait),
        };
        self.look_until(look, wait).await
    }

    /// Tells a silent connection to leave where a limit lets nobody in. How long until there is one
    /// that may be told, or no time where no limit is in the way.
    fn make_room(&self) -> Option<Duration> {
        let (live, setup) = (
            self.max_connections(),
            self.max_setup.load(Ordering::Relaxed),
        );
        let is_full = self.live() >= live;
        if !is_full && self.in_setup() < setup {
            return Some(Duration::ZERO);
        }
        self.left_for_live.store(is_full, Ordering::Relaxed);
        self.silent.evict(setup.min(live), Instant::now())
    }

    /// The limit, by its key, for which a silent connection was told to leave last.
    pub(super) fn left_for(&self) -> &'static str {
        match self.left_for_live.load(Ordering::Relaxed) {
            true => "max_connections",
            false => "max_setup_connections",
        }
    }

    /// Looks again whenever a place is freed, or after the time that `wait` gives.
    async fn look_until<T>(
        &self,
        look: impl Fn() -> Option<T>,
        wait: impl Fn() -> Option<Duration>,
    ) -> T {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Listening before looking: a place freed in between is not missed.
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

    pub fn has_room(&self) -> bool {
        self.has_room_to_reserve() && self.in_setup() < self.max_setup.load(Ordering::Relaxed)
    }

    fn has_room_to_reserve(&self) -> bool {
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

    /// Time since these limits were made: the clock of all buckets.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// How long the rate lets nobody in; zero: it does.
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

    /// Counts one whether there is room or not.
    fn owe_rate(&self) {
        if let Some(rate) = &*self.max_rate.load() {
            self.accepted.owe(**rate, self.now());
        }
    }

    /// Waits until any connection ends.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Counts one accepted connection, whether there is room or not.
    pub fn slot(self: &Arc<Self>) -> SetupPermit {
        self.owe_rate();
        self.live.fetch_add(1, Ordering::Relaxed);
        self.in_setup.fetch_add(1, Ordering::Relaxed);
        self.counted()
    }

    /// Listeners ask at the same time, so each count is compared and raised in one step.
    fn try_slot(self: &Arc<Self>) -> Option<SetupPermit> {
        if !raise(&self.live, self.max_connections()) {
            return None;
        }
        if !raise(&self.in_setup, self.max_setup.load(Ordering::Relaxed)) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if !self.take_rate() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.in_setup.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(self.counted())
    }

    /// Counts one connection that needs no set-up, if there is room; [`Place::reserved`] makes it a place.
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

    /// Counts one such connection whether there is room or not.
    pub(crate) fn reserve_anyway(&self) {
        self.owe_rate();
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection that was counted did not come.
    pub(crate) fn unreserve(&self) {
        if let Some(rate) = &*self.max_rate.load() {
            self.accepted.give_back(**rate);
        }
        self.release();
    }

    /// A connection that was counted has ended.
    pub(crate) fn release(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Waits until a connection that needs no set-up may be accepted.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped at any time.
    pub(crate) async fn room_to_reserve(&self) {
        self.until(|| self.has_room_to_reserve().then_some(()))
            .await;
    }

    fn counted(self: &Arc<Self>) -> SetupPermit {
        SetupPermit {
            limits: Arc::clone(self),
            in_setup: AtomicBool::new(true),
            admitted: OnceLock::new(),
            silent: Mutex::new(None),
            leave: CancellationToken::new(),
        }
    }
}

/// Adds one unless `max` is reached.
fn raise(count: &AtomicU64, max: u64) -> bool {
    let next = |now| (now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}

/// The place of one client connection that has left set-up, for the hours it lasts; dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPermit(ListenerPermit);

// A live connection holds one for hours.
const _: () = assert!(size_of::<ConnectionPermit>() == size_of::<usize>());

impl ConnectionPermit {
    /// Of a connection that the process has counted already.
    pub(crate) fn reserved(admitted: ListenerPermit) -> Self {
        Self(admitted)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.limits().release();
    }
}

/// One client connection's place from accept on; dropping it frees the place.
#[derive(Debug)]
pub struct SetupPermit {
    limits: Arc<Limits>,
    in_setup: AtomicBool,
    /// Its count at its listener and its source, once these are known.
    admitted: OnceLock<ListenerPermit>,
    /// While set-up waits for a word of its client.
    silent: Mutex<Option<SilentId>>,
    /// Cancelled when it is to leave its place.
    leave: CancellationToken,
}

impl SetupPermit {
    /// Set-up waits for the client, which counts for `source`.
    pub(crate) fn fall_silent(&self, source: SourcePrefix) {
        self.speak();
        let silents = &self.limits.silent;
        *self.silent() = Some(silents.enter(source, &self.leave, Instant::now()));
    }

    /// Set-up waits for the client no more, or not at the moment.
    pub(crate) fn speak(&self) {
        if let Some(silent) = self.silent().take() {
            self.limits.silent.leave(silent);
        }
    }

    /// Waits until the connection has to leave its place in set-up.
    ///
    /// # Cancel safety
    /// Takes nothing.
    pub(crate) async fn evicted(&self) {
        self.leave.cancelled().await;
        // It was routed meanwhile.
        if !self.in_setup.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// It had to leave its place.
    pub(crate) fn is_evicted(&self) -> bool {
        self.leave.is_cancelled() && self.in_setup.load(Ordering::Relaxed)
    }

    fn silent(&self) -> MutexGuard<'_, Option<SilentId>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listener lets the connection in, and counts it. Only the first one counts.
    pub(crate) fn admit(&self, admitted: ListenerPermit) {
        let _ = self.admitted.set(admitted);
    }

    /// The place of the session that this connection becomes: the slot is about to be dropped.
    pub fn place(&self) -> ConnectionPermit {
        self.place_of(None)
    }

    /// As [`Slot::place`], of a session that counts for another source than the connection has.
    pub(crate) fn place_of(&self, source: Option<SourcePermit>) -> ConnectionPermit {
        self.limits.live.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit(match (source, self.admitted.get()) {
            (Some(source), _) => ListenerPermit::of(source),
            (None, Some(admitted)) => admitted.again(),
            (None, None) => ListenerPermit::unlimited(&self.limits),
        })
    }

    /// The connection is routed and has left set-up: whatever waits from here on waits for one pool, and must not
    /// keep other pools' clients out. What a pool lets wait is bounded by its `max_queue`. Connections in connect tries
    /// need no bound of their own: each holds a lease, which counts for its backend's `max_connections`, and no more
    /// descriptors than the session it is to become, which the process's connection budget has room for; it ends
    /// within `connect_timeout` for each try.
    pub fn adopted(&self) {
        if self.in_setup.swap(false, Ordering::Relaxed) {
            self.speak();
            self.limits.in_setup.fetch_sub(1, Ordering::Relaxed);
            self.limits.freed.notify_waiters();
        }
    }
}

impl Drop for SetupPermit {
    fn drop(&mut self) {
        self.adopted();
        self.limits.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let slot = limits.slot();
        assert!(!limits.has_room());
        let (_, ()) = tokio::join!(async { drop(slot) }, limits.room());
        assert_eq!(limits.live(), 0);
    }

    // The reserve was 32 while checks alone may take 256.
    #[test]
    fn the_reserve_holds_all_that_is_bounded_elsewhere_unless_the_limit_is_small() {
        assert_eq!(reserve(1 << 20), 2 * 64 + 256 + OTHER_DESCRIPTORS);
        assert_eq!(reserve(2048), reserve(1 << 20));
        assert_eq!(reserve(100), 25);
    }

    #[tokio::test]
    async fn listeners_that_ask_at_once_get_no_place_more_than_there_are() {
        let limits = limits(3, 2);
        let first = limits.enter().await;
        let second = limits.enter().await;
        assert!(limits.try_slot().is_none(), "set-up is full");
        first.adopted();
        let third = limits.enter().await;
        second.adopted();
        assert!(limits.try_slot().is_none(), "the process is full");
        let (_, fourth) = tokio::join!(async { drop(first) }, limits.enter());
        assert_eq!((limits.live(), limits.in_setup()), (3, 2));
        drop((second, third, fourth));
        assert_eq!((limits.live(), limits.in_setup()), (0, 0));
    }

    #[tokio::test]
    async fn above_the_rate_nobody_gets_in_until_it_gives_back() {
        let limits = limits(10, 10);
        limits.max_rate.store(Some(Arc::new(Rate::per_second(2))));
        let held = (limits.enter().await, limits.enter().await);
        assert!(!limits.has_room() && !limits.reserve());
        assert_eq!(limits.reached(), "max_connection_rate");
        limits.max_rate.store(None);
        let third = tokio::time::timeout(Duration::from_secs(1), limits.enter()).await;
        assert!(third.is_ok(), "no rate any more");
        drop(held);
    }

    #[test]
    fn adoption_frees_the_place_in_set_up_but_not_the_connection() {
        let limits = limits(10, 1);
        let slot = limits.slot();
        assert!(!limits.has_room());
        slot.adopted();
        assert!(limits.has_room());
        assert_eq!((limits.live(), limits.in_setup()), (1, 0));
    }
}
