//! A node of a pool, as its users see it: identity, state, counts, and the input of its writers.
//!
//! A backend outlives its membership: live connections hold it, and a reload finds it again by its
//! name. After every change the pool recomputes its view, so that the next pick sees it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use super::clock::clock;
use super::cluster_load::{ClusterLoad, Peers};
use super::connection_counter::{AdmitMode, ConnectionCounter};
use super::discovered::DiscoveryState;
use super::elsewhere::Elsewhere;
use super::losses::Losses;
use super::standing::Standing;
use super::states::{BackendState, OperatorState};
use super::status::BackendStatus;
use super::waiting::WaitingCount;
use crate::balance::SharedLoad;
use crate::config::{self, Address};
use crate::net::Endpoint;
use crate::observe::{BackendCounters, PoolTimes};

/// The pool of a backend, for events that concern more than the backend itself.
pub(super) trait BackendOwner: fmt::Debug + Send + Sync {
    fn settings(&self) -> Arc<config::Pool>;

    /// Recomputes the pool's view after a change of a backend.
    fn recompute(&self, now: Instant);

    /// Recomputes the view if its time has come: an ejection is over.
    fn refresh(&self, now: Instant);

    /// Ejects a backend that has failed, if the pool can spare it.
    fn eject(&self, backend: &Backend, now: Instant, why: &str);

    /// Updates the backend's place in the order of picks, after a change of its count.
    fn count_changed(&self, backend: &Backend);

    fn serve_queue(&self);

    /// Tells followers of the membership that an address has changed.
    fn notify_changed(&self);

    /// Tells that a check has taken a backend down.
    fn notify_fall(&self);
}

/// A backend's links to its pool.
#[derive(Debug)]
pub(super) struct PoolLink {
    pub(super) name: Arc<str>,
    /// Gone once the server has dropped the pool.
    pub(super) owner: Weak<dyn BackendOwner>,
    pub(super) waiting: WaitingCount,
    pub(super) peers: Peers,
    pub(super) times: Arc<PoolTimes>,
}

/// A node of a pool, identified by (pool, name).
#[derive(Debug)]
pub struct Backend {
    /// With the backend's name and the pool's.
    counters: Arc<BackendCounters>,
    connections: ConnectionCounter,
    cluster: ClusterLoad,
    standing: Standing,
    /// Those of `connections` that the process before still has.
    elsewhere: Elsewhere,
    /// Those that have moved to the next process. They keep their places here: the limit is of
    /// both.
    handed_over: Elsewhere,
    /// Notified when `live` reaches 0.
    idle: Notify,
    /// Notified when a check is due before its time.
    pub(super) check_wanted: Notify,
    /// Whether a success has failures to clear: others need no lock.
    failing: AtomicBool,
    /// True after a connection was accepted and reset, until one is answered.
    unanswering: AtomicBool,
    losses: Losses,
    /// See [`Backend::take_fall`].
    has_fallen: AtomicBool,
    status: Mutex<BackendStatus>,
    owner: Weak<dyn BackendOwner>,
    waiting: WaitingCount,
}

impl Backend {
    /// Closed until the pool has it in its view.
    pub(super) fn new(link: &PoolLink, status: BackendStatus) -> Arc<Self> {
        let name = Arc::from(status.settings().name.as_str());
        Arc::new(Backend {
            counters: BackendCounters::new(link.name.clone(), name, link.times.clone()),
            connections: ConnectionCounter::new(status.settings().max_connections),
            cluster: ClusterLoad::new(&link.peers),
            standing: Standing::default(),
            elsewhere: Elsewhere::default(),
            handed_over: Elsewhere::default(),
            idle: Notify::new(),
            check_wanted: Notify::new(),
            failing: AtomicBool::new(false),
            unanswering: AtomicBool::new(false),
            losses: Losses::default(),
            has_fallen: AtomicBool::new(false),
            status: Mutex::new(status),
            owner: link.owner.clone(),
            waiting: link.waiting.clone(),
        })
    }

    /// The name of its pool.
    pub fn pool(&self) -> &Arc<str> {
        &self.counters.pool
    }

    pub fn name(&self) -> &Arc<str> {
        &self.counters.name
    }

    pub(crate) fn counters(&self) -> &Arc<BackendCounters> {
        &self.counters
    }

    /// The address as configured or discovered.
    pub fn address(&self) -> Address {
        self.status().settings().address.clone()
    }

    /// The name that its certificate is verified against: its host name, else its IP address.
    pub fn host(&self) -> String {
        let status = self.status();
        let settings = status.settings();
        match (&settings.host, &settings.address) {
            (Some(host), _) => host.clone(),
            (None, Address::Name(host, _)) => host.trim_end_matches('.').to_owned(),
            (None, Address::Tcp(address)) => address.ip().to_string(),
            (None, Address::Unix(_)) => String::new(),
        }
    }

    /// Where to connect; `None` until its name has been resolved.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.status().endpoint().cloned()
    }

    /// Takes the answer to a lookup of a `Name` address; an error keeps the last good one. Other
    /// kinds of address ignore it.
    pub fn resolved(&self, answer: Result<Endpoint, String>) {
        let moved = self.write(clock(), |status| status.resolved(answer));
        if let Some(owner) = self.owner.upgrade().filter(|_| moved) {
            owner.notify_changed();
        }
    }

    /// Counts a connect that succeeded.
    pub fn connected(&self, now: Instant) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        if self.unanswering.load(Ordering::Relaxed) {
            // Not proven yet, and that may take long: other connections may probe meanwhile.
            if self.connections.renew_probe() {
                self.count_changed();
            }
        } else {
            self.succeeded(now);
        }
    }

    /// Counts a connection that was accepted and reset in place of an answer as a failed connect.
    /// Until the backend answers, no mere connect makes up for it: a node that accepts and resets
    /// would never be ejected.
    pub fn failed_to_answer(&self, now: Instant, why: &str) {
        self.unanswering.store(true, Ordering::Relaxed);
        self.connect_failed(now, why);
    }

    /// Notes an answer to a request, or a byte of a raw connection.
    pub fn answered(&self) {
        if self.unanswering.load(Ordering::Relaxed) {
            self.unanswering.store(false, Ordering::Relaxed);
            self.succeeded(clock());
        }
    }

    fn succeeded(&self, now: Instant) {
        if self.failing.load(Ordering::Relaxed) && self.has_recovered() {
            self.write(now, |status| status.readmit(now));
        }
    }

    /// Clears earlier failures; true for the first success of an ejected backend, or of one that
    /// was readmitted as a last resort.
    fn has_recovered(&self) -> bool {
        let mut status = self.status();
        let counts = status.outlier.succeeded();
        // Under the lock, as where it is set: no failure is left without it.
        self.failing.store(!counts, Ordering::Relaxed);
        counts && (status.outlier.is_ejected() || status.outlier.is_last_resort())
    }

    /// Counts a connect that failed by the backend's fault and charges it to the backend. Never
    /// call it for an error that is ours (`ConnectError::is_ours`).
    pub fn connect_failed(&self, now: Instant, why: &str) {
        self.count_connect_failure(why);
        self.charge_failure(now, why);
    }

    /// Counts a failed connect that has been charged already.
    pub fn count_connect_failure(&self, why: &str) {
        self.counters
            .connect_failures
            .fetch_add(1, Ordering::Relaxed);
        self.status().last_error = Some((SystemTime::now(), why.to_owned()));
    }

    /// Charges a connect to the backend that has failed or is overdue. Enough of them within the
    /// window eject it for a while, if the pool can spare it.
    pub fn charge_failure(&self, now: Instant, why: &str) {
        let Some(owner) = self.owner.upgrade() else {
            return;
        };
        let settings = owner.settings();
        let enough = {
            let mut status = self.status();
            self.failing.store(true, Ordering::Relaxed);
            status.outlier.failed(now, &settings.outlier)
        };
        if enough {
            owner.eject(self, now, why);
        }
    }

    /// Connects that have succeeded so far.
    pub fn connects(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// The last failed connect: when, and why.
    pub fn last_error(&self) -> Option<(SystemTime, String)> {
        self.status().last_error.clone()
    }

    /// Takes the active check's verdict, after `rise` and `fall` were counted. May be called after
    /// every check: only a change of the verdict changes the pool.
    pub fn set_check(&self, up: bool, reason: &str, now: Instant) {
        if self.status().repeat_check(up, reason) {
            return;
        }
        self.write(now, |status| status.set_check(up, reason));
        self.losses.notify();
        if !up && let Some(owner) = self.owner.upgrade() {
            self.has_fallen.store(true, Ordering::Relaxed);
            owner.notify_fall();
        }
    }

    /// Whether a check has taken it down since the last call.
    pub fn take_fall(&self) -> bool {
        self.has_fallen.swap(false, Ordering::Relaxed)
    }

    /// Notes that a check could not be made for a local reason. The verdict stays; the reason is
    /// shown while no check has been made.
    pub fn check_skipped(&self, why: &str) {
        self.status().check_hindered(why);
    }

    /// The last verdict; true before the first one unless `init_state` says otherwise.
    pub fn check_up(&self) -> bool {
        self.status().check_up()
    }

    /// Why the check's verdict is what it is.
    pub fn check_reason(&self) -> String {
        self.status().check_reason().to_owned()
    }

    /// Whether a check has decided: false before the first one, and after maintenance or a change
    /// of address. The next check decides alone then.
    pub fn is_checked(&self) -> bool {
        self.status().is_checked()
    }

    /// Whether a check has succeeded since the first one. While none has, one success brings the
    /// backend up.
    pub fn is_proven(&self) -> bool {
        self.status().is_proven()
    }

    /// Grows when the result of a running check is outdated: maintenance has ended, or the address
    /// has changed.
    pub fn check_epoch(&self) -> u64 {
        self.status().check_epoch()
    }

    /// Returns when a check is due before its time: the backend has left maintenance. For the one
    /// task that checks it.
    ///
    /// # Cancel safety
    /// A notice stays until it is taken.
    pub async fn check_wanted(&self) {
        self.check_wanted.notified().await;
    }

    /// 0 = no own limit.
    pub fn max_connections(&self) -> u64 {
        self.connections.max()
    }

    pub fn backup(&self) -> bool {
        self.status().settings().backup
    }

    /// Removed by a reload or by discovery; listed until its last connection is gone.
    pub fn is_retired(&self) -> bool {
        self.status().retired
    }

    /// The effective state.
    pub fn state(&self, now: Instant) -> BackendState {
        self.settle(now);
        self.status().state()
    }

    /// The reason of the state.
    pub fn reason(&self) -> String {
        self.settle(clock());
        self.status().reason().to_owned()
    }

    /// When the state changed last.
    pub fn since(&self) -> SystemTime {
        self.settle(clock());
        self.status().since()
    }

    /// Connections now, those being set up included.
    pub fn live(&self) -> u64 {
        self.connections.live()
    }

    /// Connections here and at the other balancers of the cluster.
    pub fn shared_load(&self) -> SharedLoad {
        self.cluster.shared(self.live())
    }

    /// Connections of which a paced drain ends this balancer's part.
    pub fn drain_load(&self) -> SharedLoad {
        self.cluster.draining(self.live())
    }

    /// Counts the connections that the process before has on it, in place of those told before.
    pub(super) fn set_elsewhere(&self, count: u64) {
        let before = self.elsewhere.set(count);
        self.connections
            .enter_elsewhere(count.saturating_sub(before));
        self.entered_beside_picks();
        for _ in count..before {
            self.released();
        }
    }

    /// One of the connections that the process before had on it is counted by itself now.
    pub(super) fn forget_elsewhere(&self) {
        if self.elsewhere.take_one() {
            self.released();
        }
    }

    /// Keeps the place of a connection that moves to the next process.
    pub(super) fn note_handed_over(&self) {
        self.handed_over.add_one();
        self.connections.enter_anyway();
    }

    /// Frees the places of connections that have moved to the next process: it has ended.
    pub(super) fn forget_handed_over(&self) {
        for _ in 0..self.handed_over.set(0) {
            self.released();
        }
    }

    /// Live connections without those that the next process has and counts itself.
    pub(super) fn live_before_next(&self) -> u64 {
        self.live().saturating_sub(self.handed_over.count())
    }

    pub(super) fn is_unanswering(&self) -> bool {
        self.unanswering.load(Ordering::Relaxed)
    }

    /// Notes what the process before knew of its failures.
    pub(super) fn note_failing(&self, failing: bool, unanswering: bool) {
        self.failing.store(failing, Ordering::Relaxed);
        self.unanswering.store(unanswering, Ordering::Relaxed);
    }

    /// Whether it is leaving service: drained, in maintenance, not listed any more or removed.
    pub fn is_leaving(&self) -> bool {
        let status = self.status();
        let is_wanted = status.operator.state == OperatorState::Ready
            && status.discovery == DiscoveryState::Ready;
        status.retired || !is_wanted
    }

    /// Whether discovery does not list it any more.
    pub fn is_absent(&self) -> bool {
        self.discovery() == DiscoveryState::Absent
    }

    /// What discovery says of it; `Ready` of a configured backend.
    pub fn discovery(&self) -> DiscoveryState {
        self.status().discovery
    }

    /// Sessions that the backend ended without a Close, and the signs that they are lost.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Whether it takes new clients, as far as its state goes.
    pub fn takes_new(&self) -> bool {
        self.connections.is_open()
    }

    /// Returns when no connection is live, at once if none is now.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn emptied(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Ejects it for a while.
    pub(super) fn eject(&self, now: Instant, settings: &config::Outlier, why: &str) {
        self.eject_locked(&mut self.status(), now, settings, why);
    }

    /// Ejects it for a while if it is being probed; false if it is not.
    pub(super) fn eject_probed(&self, now: Instant, settings: &config::Outlier, why: &str) -> bool {
        let mut status = self.status();
        let is_probed = status.outlier.is_probed();
        if is_probed {
            self.eject_locked(&mut status, now, settings, why);
        }
        is_probed
    }

    fn eject_locked(
        &self,
        status: &mut BackendStatus,
        now: Instant,
        settings: &config::Outlier,
        why: &str,
    ) {
        self.counters.ejections.fetch_add(1, Ordering::Relaxed);
        status.eject(now, settings, why);
        // The success of its probe must find an ejection to end.
        self.failing.store(true, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> &ConnectionCounter {
        &self.connections
    }

    pub(super) fn cluster(&self) -> &ClusterLoad {
        &self.cluster
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn status(&self) -> MutexGuard<'_, BackendStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn configure(&self, settings: config::Backend, has_check: bool) {
        self.connections.set_max(settings.max_connections);
        self.status().configure(settings, has_check);
    }

    /// Closes it to new connections; it is listed until it is empty.
    pub(crate) fn retire(&self) {
        self.connections.set_mode(AdmitMode::Closed);
        self.status().retired = true;
        self.losses.notify();
    }

    /// Uncounts a connection that has ended.
    pub(super) fn released(&self) {
        let left = self.connections.leave();
        if left.live == 0 {
            self.idle.notify_waiters();
        }
        if left.made_room || self.standing.follows_load() {
            self.count_changed();
        }
        if self.waiting.get() == 0 {
            return;
        }
        if let Some(owner) = self.owner.upgrade() {
            owner.serve_queue();
        }
    }

    /// Counts a connection that was picked.
    pub(super) fn enter_picked(&self) -> bool {
        let entered = self.connections.enter();
        if entered {
            self.cluster.picked();
        }
        entered
    }

    /// Counts a connection beside the picks: of a returning client.
    pub(super) fn enter_returning(&self) -> bool {
        let entered = self.connections.enter_returning();
        if entered {
            self.entered_beside_picks();
        }
        entered
    }

    /// Counts a connection that another process has let in, whatever the state and the limit.
    pub(super) fn enter_anyway(&self) {
        self.connections.enter_anyway();
        self.entered_beside_picks();
    }

    /// Tells the picks of connections that they have not counted themselves.
    fn entered_beside_picks(&self) {
        if self.standing.follows_load() || !self.connections.has_room() {
            self.count_changed();
        }
    }

    fn count_changed(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.count_changed(self);
        }
    }

    pub(super) fn write<T>(&self, now: Instant, change: impl FnOnce(&mut BackendStatus) -> T) -> T {
        let changed = change(&mut self.status());
        match self.owner.upgrade() {
            Some(owner) => owner.recompute(now),
            None => drop(self.status().settle(now)),
        }
        changed
    }

    /// Applies the passing of time: an ejection that is over.
    fn settle(&self, now: Instant) {
        if let Some(owner) = self.owner.upgrade() {
            owner.refresh(now);
        }
    }
}
