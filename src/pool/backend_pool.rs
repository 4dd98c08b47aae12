//! A pool: its members, the view that picks read, and the notices of its changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::affinity::state::Affinity;
use super::backend::{Backend, BackendOwner, PoolLink};
use super::clock::clock;
use super::cluster_load::Peers;
use super::counters::PoolCounters;
use super::discovered::DiscoveredBackend;
use super::members::Members;
use super::queue::Queue;
use super::view::View;
use crate::base::log_throttle::LogThrottle;
use crate::config;
use crate::observe::PoolTimes;
use crate::tls::BackendTlsConfig;
use crate::wire::sticky::StickyKeys;

/// Sessions of one pool that move to another backend at the same time. The thousands that a lost
/// backend leaves must not reach the others in one moment, and each takes a few milliseconds.
const MAX_MIGRATIONS: usize = 128;

/// Between two log lines about refused clients: a storm of them must not fill a disk.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A named set of backends with one balancing algorithm, its checks and limits.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    members: Mutex<Members>,
    pub(super) view: ArcSwap<View>,
    pub(super) queue: Arc<Queue>,
    pub(super) peers: Peers,
    pub(super) affinity: Affinity,
    tls: ArcSwapOption<BackendTlsConfig>,
    /// The view's, for requests that wait in the queue.
    pub(super) refresh_at: watch::Sender<Option<Instant>>,
    pub(super) counters: PoolCounters,
    pub(super) times: Arc<PoolTimes>,
    pub(super) sticky_keys: ArcSwapOption<StickyKeys>,
    changed: watch::Sender<u64>,
    /// Sent when a check takes a backend down.
    falls: watch::Sender<()>,
    refusal_log: LogThrottle,
    migrations: Semaphore,
}

impl Pool {
    pub fn new(config: &config::Pool) -> Arc<Pool> {
        Arc::new_cyclic(|pool: &Weak<Pool>| {
            let name: Arc<str> = Arc::from(config.name.as_str());
            let queue = Arc::new(Queue::default());
            let peers = Peers::default();
            let times = Arc::new(PoolTimes::default());
            let link = PoolLink {
                name: name.clone(),
                owner: pool.clone(),
                waiting: queue.waiting().clone(),
                peers: peers.clone(),
                times: times.clone(),
            };
            let now = clock();
            let members = Members::new(link, config, now);
            let (view, _) = members.view(None, now);
            Pool {
                name,
                members: Mutex::new(members),
                view: ArcSwap::from_pointee(view),
                queue,
                peers,
                affinity: Affinity::new(),
                tls: ArcSwapOption::empty(),
                refresh_at: watch::Sender::new(None),
                counters: PoolCounters::default(),
                times,
                sticky_keys: ArcSwapOption::empty(),
                changed: watch::Sender::new(0),
                falls: watch::Sender::new(()),
                refusal_log: LogThrottle::new(REFUSAL_LOG_INTERVAL),
                migrations: Semaphore::new(MAX_MIGRATIONS),
            }
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The present configuration of the pool.
    pub fn settings(&self) -> Arc<config::Pool> {
        self.view.load().settings.clone()
    }

    /// TLS of every connection to a backend; `None`: plain TCP.
    pub fn tls(&self) -> Option<Arc<BackendTlsConfig>> {
        self.tls.load_full()
    }

    /// Sets the TLS read from the files of the settings' `tls`. To be set before the pool serves.
    /// An equal one changes nothing, and keeps the sessions that can be resumed.
    pub fn set_tls(&self, tls: Option<Arc<BackendTlsConfig>>) {
        if self.tls() != tls {
            self.tls.store(tls);
            self.notify_changed();
        }
    }

    /// True when another log line about refused clients of this pool is due.
    pub fn may_log_refusal(&self, now: Instant) -> bool {
        self.refusal_log.is_due(now)
    }

    pub(crate) fn counters(&self) -> &PoolCounters {
        &self.counters
    }

    pub(crate) fn times(&self) -> &Arc<PoolTimes> {
        &self.times
    }

    /// Waits for a permit to move a session to another backend.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub async fn migration_permit(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.migrations.acquire().await.ok()
    }

    /// Applies a reload's configuration. Backends found again by name keep their counters, live
    /// connections, check verdict, ejection and operator state; the others are retired. Undoes
    /// `retire`.
    pub fn apply(&self, config: &config::Pool) {
        self.change_members(|members, now| members.configure(config, now));
    }

    /// Retires every backend: a reload removed the whole pool.
    pub fn retire(&self) {
        self.change_members(|members, now| {
            members.retire(now);
            true
        });
    }

    /// Applies a whole snapshot from discovery, beside the configured backends; true if it differs
    /// from the last one. An empty one, or one for a pool without `discover`, changes nothing.
    pub fn apply_discovered(&self, found: Vec<DiscoveredBackend>) -> bool {
        self.change_members(|members, now| members.discover(found, now))
    }

    /// The last snapshot of discovery, by name.
    pub(crate) fn found(&self) -> Vec<DiscoveredBackend> {
        self.members().found().to_vec()
    }

    /// Adds a backend that only ends its connections. It is in the next view.
    pub(super) fn add_retired(&self, settings: config::Backend, now: Instant) -> Arc<Backend> {
        self.members().add_retired(settings, now)
    }

    /// Recomputes the view after a change of several backends.
    pub(super) fn recompute_view(&self, now: Instant) {
        self.publish(self.members(), now);
    }

    /// Present backends, in file order; discovered ones follow, by name.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.view.load().present.clone()
    }

    /// Removed backends that still have live connections.
    pub fn retired(&self) -> Vec<Arc<Backend>> {
        let view = self.view.load();
        let live = view.retired.iter().filter(|backend| backend.live() > 0);
        live.cloned().collect()
    }

    /// The backend of a name, present or retired.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        let mut all = self.backends().into_iter().chain(self.retired());
        all.find(|backend| **backend.name() == *name)
    }

    /// Connections in the queue now.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Notified when membership, an address or a setting changes; not of states.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notified when a check takes a backend down; [`Backend::take_fall`] says which one.
    pub fn falls(&self) -> watch::Receiver<()> {
        self.falls.subscribe()
    }

    fn change_members(&self, change: impl FnOnce(&mut Members, Instant) -> bool) -> bool {
        let now = clock();
        let mut members = self.members();
        let has_changed = change(&mut members, now);
        if has_changed {
            self.publish(members, now);
            self.notify_changed();
        }
        has_changed
    }

    /// Swaps in the view of `members`; then, unlocked, logs its changes and serves the queue.
    fn publish(&self, members: MutexGuard<'_, Members>, now: Instant) {
        let (view, transitions) = members.view(Some(&self.view.load()), now);
        let refresh_at = view.refresh_at;
        let view = Arc::new(view);
        self.view.store(view.clone());
        view.settle();
        self.refresh_at.send_if_modified(|at| {
            let modified = *at != refresh_at;
            *at = refresh_at;
            modified
        });
        drop(members);
        transitions.iter().for_each(|transition| transition.log());
        self.serve_queue();
    }

    /// Recomputes the view when its time has come: an ejection is over.
    pub(super) fn refresh(&self, now: Instant) {
        let due = || self.view.load().refresh_at.is_some_and(|at| at <= now);
        if !due() {
            return;
        }
        let members = self.members();
        if due() {
            self.publish(members, now);
        }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendOwner for Pool {
    fn settings(&self) -> Arc<config::Pool> {
        Pool::settings(self)
    }

    fn recompute(&self, now: Instant) {
        self.publish(self.members(), now);
    }

    fn refresh(&self, now: Instant) {
        Pool::refresh(self, now);
    }

    fn eject(&self, backend: &Backend, now: Instant, why: &str) {
        let members = self.members();
        let outlier = &Pool::settings(self).outlier;
        // A probe's success does not wait for the members: whether it is probed is asked and acted
        // upon in one step. A probed one is out already, so the pool does without it.
        let is_ejected = backend.eject_probed(now, outlier, why) || {
            let can_spare = members.can_spare(backend);
            if can_spare {
                backend.eject(now, outlier, why);
            }
            can_spare
        };
        if is_ejected {
            self.publish(members, now);
        }
    }

    fn count_changed(&self, backend: &Backend) {
        self.view.load().update(backend);
    }

    fn serve_queue(&self) {
        Pool::serve_queue(self);
    }

    fn notify_changed(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn notify_fall(&self) {
        self.falls.send_replace(());
    }
}
