//! One node of a pool, as its users see it: what it is, how it does, and the words of its three writers.
//!
//! A backend outlives its place in the pool: live connections hold it, and a reload finds it again by its name.
//! Every change goes through the pool, so that the very next pick sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::config::{self, Address};
use crate::net::Endpoint;
use crate::observe::BackendCounters;
use crate::pool::connection_counter::{AdmitMode, ConnectionCounter};
use crate::pool::losses::Losses;
use crate::pool::queue::Queue;
use crate::pool::status::BackendStatus;
use crate::pool::{BackendState, OperatorState, Pool, clock};

/// One node of a pool: its identity is (pool, name).
#[derive(Debug)]
pub struct Backend {
    /// They know its name and its pool's.
    counters: Arc<BackendCounters>,
    connections: ConnectionCounter,
    /// Notified when `live` reaches 0.
    idle: Notify,
    /// Notified when a check is wanted before its time.
    check_wanted: Notify,
    /// Whether a success has failures to clear: spares the lock on every other one.
    failing: AtomicBool,
    /// It accepted and reset, and has served nobody since.
    unanswering: AtomicBool,
    losses: Losses,
    /// See [`Backend::take_fall`].
    has_fallen: AtomicBool,
    status: Mutex<BackendStatus>,
    /// Gone when the server let the pool go.
    owner: Weak<Pool>,
    queue: Arc<Queue>,
}

impl Backend {
    /// Closed until the pool has it in its view.
    pub(super) fn new(home: &PoolLink, status: BackendStatus) -> Arc<Self> {
        let name = Arc::from(status.settings().name.as_str());
        Arc::new(Backend {
            counters: BackendCounters::new(home.name.clone(), name),
            connections: ConnectionCounter::new(status.settings().max_connections),
            idle: Notify::new(),
            check_wanted: Notify::new(),
            failing: AtomicBool::new(false),
            unanswering: AtomicBool::new(false),
            losses: Losses::default(),
            has_fallen: AtomicBool::new(false),
            status: Mutex::new(status),
            owner: home.pool.clone(),
            queue: home.queue.clone(),
        })
    }

    /// The name of its pool.
    pub fn pool(&self) -> &Arc<str> {
        &self.counters.pool
    }

    pub fn name(&self) -> &Arc<str> {
        &self.counters.name
    }

    pub fn counters(&self) -> &Arc<BackendCounters> {
        &self.counters
    }

    /// As configured or discovered.
    pub fn address(&self) -> Address {
        self.status().settings().address.clone()
    }

    /// What it is called by those who verify its certificate: its host name, else its IP address.
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

    /// The answer to a lookup of a `Name` address; an error keeps the last good one. For another kind of address it does
    /// nothing.
    pub fn resolved(&self, answer: Result<Endpoint, String>) {
        let mut moved = false;
        self.write(clock(), |status| moved = status.resolved(answer));
        if let Some(home) = self.owner.upgrade().filter(|_| moved) {
            home.notify_changed();
        }
    }

    /// A connect succeeded. Counts it.
    pub fn connected(&self, now: Instant) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        match self.unanswering.load(Ordering::Relaxed) {
            // It is not back yet, and it may be long until it shows: others may try meanwhile.
            true => self.connections.renew_probe(),
            false => self.succeeded(now),
        }
    }

    /// It accepted and reset in place of serving. Counts as a failed connect, and until it serves no mere connect makes up
    /// for it: whoever accepts and resets would never be ejected.
    pub fn failed_to_answer(&self, now: Instant, why: &str) {
        self.unanswering.store(true, Ordering::Relaxed);
        self.connect_failed(now, why);
    }

    /// It has answered a request, or a raw connection to it has moved a byte.
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

    /// Clears what failed before a success; whether that was the first one of an ejected backend, or of one that was taken
    /// back for want of others.
    fn has_recovered(&self) -> bool {
        let mut status = self.status();
        let counts = status.outlier.succeeded();
        // Under the lock, as it is set: no failure is left behind without it.
        self.failing.store(!counts, Ordering::Relaxed);
        counts && (status.outlier.is_ejected() || status.outlier.is_last_resort())
    }

    /// A connect failed by the backend's fault: never call it for an error that is ours (`ConnectError::is_ours`).
    /// Counts it and holds it against the backend.
    pub fn connect_failed(&self, now: Instant, why: &str) {
        self.count_connect_failure(why);
        self.charge_failure(now, why);
    }

    /// A connect failed, and nothing more is held against the backend for it. Counts it.
    pub fn count_connect_failure(&self, why: &str) {
        self.counters
            .connect_failures
            .fetch_add(1, Ordering::Relaxed);
        self.status().last_error = Some((SystemTime::now(), why.to_owned()));
    }

    /// Holds a connect against the backend, one that has failed or that is overdue. Enough of them
    /// within the window eject it for a while, if the pool can spare it.
    pub fn charge_failure(&self, now: Instant, why: &str) {
        let Some(home) = self.owner.upgrade() else {
            return;
        };
        let settings = home.settings();
        let enough = {
            let mut status = self.status();
            self.failing.store(true, Ordering::Relaxed);
            status.outlier.failed(now, &settings.outlier)
        };
        if enough {
            home.eject(self, now, why);
        }
    }

    /// Connects to it that have succeeded so far.
    pub fn connects(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// When a connect failed last, and why.
    pub fn last_error(&self) -> Option<(SystemTime, String)> {
        self.status().last_error.clone()
    }

    /// The active check's verdict, after `rise` and `fall` were counted.
    ///
    /// It may be told after every check: only another verdict than the last one changes the pool.
    pub fn set_check(&self, up: bool, reason: &str, now: Instant) {
        if self.status().repeat_check(up, reason) {
            return;
        }
        self.write(now, |status| status.set_check(up, reason));
        self.losses.notify();
        if !up && let Some(home) = self.owner.upgrade() {
            self.has_fallen.store(true, Ordering::Relaxed);
            home.falls.send_replace(());
        }
    }

    /// Whether a check has taken it down since the last time this was asked.
    pub fn take_fall(&self) -> bool {
        self.has_fallen.swap(false, Ordering::Relaxed)
    }

    /// A check could not be made for a reason of our own: that decides nothing, and is told while no check has been made.
    pub fn check_skipped(&self, why: &str) {
        self.status().check_hindered(why);
    }

    /// The last verdict; true before the first one unless `init_state` says otherwise.
    pub fn check_up(&self) -> bool {
        self.status().check_up()
    }

    /// Whether a check has said so: not before the first one, nor since maintenance or at another address. Then the next
    /// check decides alone.
    pub fn is_checked(&self) -> bool {
        self.status().is_checked()
    }

    /// Whether a check has succeeded since the first one. While none has, one success brings it up.
    pub fn is_proven(&self) -> bool {
        self.status().is_proven()
    }

    /// Grows when a running check is about what has been: maintenance has ended, or the address is another one.
    pub fn check_epoch(&self) -> u64 {
        self.status().check_epoch()
    }

    /// Returns when a check is wanted before its time: the backend has left maintenance. For the one task that checks it.
    ///
    /// # Cancel safety
    /// What is wanted stays until it is taken.
    pub async fn check_wanted(&self) {
        self.check_wanted.notified().await;
    }

    pub fn set_operator(&self, operator: OperatorState) {
        let mut left_maintenance = false;
        self.write(clock(), |status| {
            left_maintenance = status.set_operator(operator);
        });
        if left_maintenance {
            self.check_wanted.notify_one();
        }
        self.losses.notify();
    }

    /// The operator ends its connections, or has ended them: while it is drained, a sticky cookie brings nobody back.
    pub fn set_emptying(&self, emptying: bool) {
        self.write(clock(), |status| status.emptying = emptying);
    }

    pub fn operator(&self) -> OperatorState {
        self.status().operator
    }

    /// The operator's weight, 0..=256; kept over reloads. `None` = the configured one.
    pub fn set_weight(&self, weight: Option<u16>) {
        self.write(clock(), |status| status.weight = weight);
    }

    /// In force: the operator's or the configured one.
    pub fn weight(&self) -> u16 {
        self.status().weight()
    }

    /// The operator's weight, if one is set.
    pub fn weight_override(&self) -> Option<u16> {
        self.status().weight
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

    /// Why it is in its state.
    pub fn reason(&self) -> String {
        self.settle(clock());
        self.status().reason().to_owned()
    }

    /// When its state changed last.
    pub fn since(&self) -> SystemTime {
        self.settle(clock());
        self.status().since()
    }

    /// Connections now, those being set up included.
    pub fn live(&self) -> u64 {
        self.connections.live()
    }

    /// Whether its leave is announced: drained, in maintenance or removed.
    pub fn is_leaving(&self) -> bool {
        let status = self.status();
        status.retired || status.operator != OperatorState::Ready
    }

    /// Sessions that it ended without a Close, and what tells whether they are lost.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Whether it takes connections of new clients, as far as its state goes.
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

    /// Puts it out for a while.
    pub(super) fn eject(&self, now: Instant, settings: &config::Outlier, why: &str) {
        self.counters.ejections.fetch_add(1, Ordering::Relaxed);
        let mut status = self.status();
        status.eject(now, settings, why);
        // The success of its probe must find that there is something to end.
        self.failing.store(true, Ordering::Relaxed);
    }

    pub(super) fn gate(&self) -> &ConnectionCounter {
        &self.connections
    }

    pub(super) fn status(&self) -> MutexGuard<'_, BackendStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn configure(&self, settings: config::Backend, checked: bool) {
        self.connections.set_max(settings.max_connections);
        self.status().configure(settings, checked);
    }

    /// From now on nobody enters; the operator sees it until it is empty.
    pub(super) fn retire(&self) {
        self.connections.set_mode(AdmitMode::Closed);
        self.status().retired = true;
        self.losses.notify();
    }

    /// One connection left.
    fn released(&self) {
        if self.connections.leave() == 0 {
            self.idle.notify_waiters();
        }
        if self.queue.is_empty() {
            return;
        }
        if let Some(home) = self.owner.upgrade() {
            home.serve_queue();
        }
    }

    fn write(&self, now: Instant, change: impl FnOnce(&mut BackendStatus)) {
        match self.owner.upgrade() {
            Some(home) => home.update(now, || change(&mut self.status())),
            None => {
                let mut status = self.status();
                change(&mut status);
                status.settle(now);
            }
        }
    }

    /// Lets time do its work: an ejection that is over.
    fn settle(&self, now: Instant) {
        if let Some(home) = self.owner.upgrade() {
            home.refresh(now);
        }
    }
}

/// What a backend knows of its pool.
#[derive(Debug)]
pub(super) struct PoolLink {
    pub(super) name: Arc<str>,
    pub(super) pool: Weak<Pool>,
    pub(super) queue: Arc<Queue>,
}

/// Counts one connection on one backend, from before its connect; dropping it uncounts, lets the queue move on and
/// wakes who waits in `emptied`.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// `None` when the backend is closed or full.
    pub(super) fn take(backend: &Arc<Backend>) -> Option<Lease> {
        backend.connections.enter().then(|| Lease {
            backend: backend.clone(),
        })
    }

    /// The same for a client that comes back, which a drain may let in.
    pub(super) fn take_returning(backend: &Arc<Backend>) -> Option<Lease> {
        backend.connections.enter_returning().then(|| Lease {
            backend: backend.clone(),
        })
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.released();
    }
}
