//! Pools and their backends: choosing and counting.
//!
//! Writers (reload, discovery, checks, operator, outlier detection) change one thing under the pool's lock, compute the
//! next `View` and swap it in; a pick reads the view and the live counts, and takes no lock but its algorithm's.
//! What a pool gives is a [`Lease`]: as long as it lives, the connection counts.

mod acquire;
mod backend;
mod connection_counter;
mod counters;
mod discovered;
mod follow;
mod loads;
mod losses;
mod members;
mod outlier;
mod queue;
mod remembered;
mod request;
mod state;
mod status;
mod sticky;
mod supervise;
#[cfg(test)]
mod tests;
mod transitions;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::base::log_throttle::LogThrottle;
use crate::config;
use crate::pool::backend::Home;
use crate::pool::members::Members;
use crate::pool::queue::Queue;
use crate::pool::view::View;
use crate::tls::BackendTlsConfig;
use crate::wire::sticky::StickyKeys;

pub use backend::{Backend, Lease};
pub use counters::{PoolCounters, PoolValues};
pub use discovered::DiscoveredBackend;
pub use follow::follow;
pub use loads::{BackendLoad, TrafficShift};
pub use losses::Losses;
pub use request::{AcquireError, BackendRequest};
pub use state::{BackendState, OperatorState};
pub use supervise::supervise;

/// A named set of backends with one balancing algorithm, its checks and limits.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    members: Mutex<Members>,
    view: ArcSwap<View>,
    queue: Arc<Queue>,
    tls: ArcSwapOption<BackendTlsConfig>,
    /// The view's own, for those who wait in the queue.
    refresh_at: watch::Sender<Option<Instant>>,
    counters: PoolCounters,
    sticky_keys: ArcSwapOption<StickyKeys>,
    changed: watch::Sender<u64>,
    /// Told when a check takes a backend down.
    falls: watch::Sender<()>,
    /// Of log lines that tell of clients turned away.
    refusals: LogThrottle,
    takeovers: Semaphore,
}

/// Sessions of one pool that are given another backend at once: what a backend of thousands leaves behind must not come to the
/// others in one moment, and each takes a few milliseconds.
const MAX_TAKEOVERS: usize = 128;

/// Between two log lines that tell of clients turned away: a storm of them must not fill a disk.
const REFUSAL_SPACING: Duration = Duration::from_secs(10);

impl Pool {
    /// Waits for a turn to give a session another backend; it is over when it is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its place in the row.
    pub async fn takeover(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.takeovers.acquire().await.ok()
    }

    pub fn new(config: &config::Pool) -> Arc<Pool> {
        Arc::new_cyclic(|pool| {
            let name: Arc<str> = Arc::from(config.name.as_str());
            let queue = Arc::new(Queue::default());
            let home = Home {
                name: name.clone(),
                pool: pool.clone(),
                queue: queue.clone(),
            };
            let now = clock();
            let members = Members::new(home, config, now);
            let (view, _) = members.view(None, now);
            Pool {
                name,
                members: Mutex::new(members),
                view: ArcSwap::from_pointee(view),
                queue,
                tls: ArcSwapOption::empty(),
                refresh_at: watch::Sender::new(None),
                counters: PoolCounters::default(),
                sticky_keys: ArcSwapOption::empty(),
                changed: watch::Sender::new(0),
                falls: watch::Sender::new(()),
                refusals: LogThrottle::new(REFUSAL_SPACING),
                takeovers: Semaphore::new(MAX_TAKEOVERS),
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

    /// What every connection to a backend is encrypted with; `None`: it is plain.
    pub fn tls(&self) -> Option<Arc<BackendTlsConfig>> {
        self.tls.load_full()
    }

    pub fn has_tls(&self) -> bool {
        self.tls.load().is_some()
    }

    /// What the files of the settings' `tls` hold now. To be set before the pool serves; what does the same as before
    /// changes nothing, and keeps the sessions that can be resumed.
    pub fn set_tls(&self, tls: Option<Arc<BackendTlsConfig>>) {
        if self.tls() != tls {
            self.tls.store(tls);
            self.bump();
        }
    }

    /// True when the log may be told again that clients of this pool are turned away.
    pub fn may_tell_of_refusal(&self, now: Instant) -> bool {
        self.refusals.is_due(now)
    }

    pub fn counters(&self) -> &PoolCounters {
        &self.counters
    }

    /// A reload's configuration. Backends found again by name keep their counters, live connections, check verdict,
    /// ejection and operator state; the others are retired. Undoes `retire`.
    pub fn apply(&self, config: &config::Pool) {
        let now = clock();
        let mut members = self.members();
        if members.configure(config, now) {
            self.publish(members, now);
            self.bump();
        }
    }

    /// A reload removed the whole pool: every backend becomes retired.
    pub fn retire(&self) {
        let now = clock();
        let mut members = self.members();
        members.retire(now);
        self.publish(members, now);
        self.bump();
    }

    /// A whole snapshot from discovery, beside the configured backends; true if it differs from the last one. An empty
    /// one, or one for a pool without `discover`, changes nothing.
    pub fn discovered(&self, found: Vec<DiscoveredBackend>) -> bool {
        let now = clock();
        let mut members = self.members();
        let changed = members.discover(found, now);
        if changed {
            self.publish(members, now);
            self.bump();
        }
        changed
    }

    /// Present ones, in file order, the discovered ones behind by name.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.view.load().present.clone()
    }

    /// Removed ones that still have live connections.
    pub fn retired(&self) -> Vec<Arc<Backend>> {
        let view = self.view.load();
        let live = view.retired.iter().filter(|backend| backend.live() > 0);
        live.cloned().collect()
    }

    /// By name, present or retired.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        let mut all = self.backends().into_iter().chain(self.retired());
        all.find(|backend| **backend.name() == *name)
    }

    /// Connections waiting now.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bumped when membership, an address or a setting changes, not by states.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A change of one backend, and the view that follows.
    fn update(&self, now: Instant, change: impl FnOnce()) {
        let members = self.members();
        change();
        self.publish(members, now);
    }

    fn eject(&self, backend: &Backend, now: Instant, why: &str) {
        let members = self.members();
        if members.spares(backend) {
            backend.eject(now, &self.settings().outlier, why);
            self.publish(members, now);
        }
    }

    /// Lets time do its work, if it is time.
    fn refresh(&self, now: Instant) {
        let due = || self.view.load().refresh_at.is_some_and(|at| at <= now);
        if !due() {
            return;
        }
        let members = self.members();
        if due() {
            self.publish(members, now);
        }
    }

    /// Swaps in what follows from `members`; then, unlocked, tells of it and serves who waited for it.
    fn publish(&self, members: MutexGuard<'_, Members>, now: Instant) {
        let (view, transitions) = members.view(Some(&self.view.load()), now);
        let refresh_at = view.refresh_at;
        self.view.store(Arc::new(view));
        self.refresh_at.send_if_modified(|at| {
            let modified = *at != refresh_at;
            *at = refresh_at;
            modified
        });
        drop(members);
        transitions.iter().for_each(|transition| transition.log());
        self.serve_queue();
    }

    /// Tells that a check has taken a backend down; [`Backend::take_fall`] says which one.
    pub fn falls(&self) -> watch::Receiver<()> {
        self.falls.subscribe()
    }

    fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, at the edge of the room; tokio's clock, so that tests can pause it. It needs no runtime.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
