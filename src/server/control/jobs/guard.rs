//! The guard of a pool: how many sessions its failover may end now. Every portion of every job of
//! failover asks it, so that it decides on the pool as it is at that moment, and nothing else can
//! end a session because of health.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::budget::Budget;
use crate::pool::{Backend, Pool};
use crate::server::lock::lock;

/// A panic is over when no session was held back for so long: every second of the window frees
/// some.
const CALM: Duration = Duration::from_secs(10);
/// Between two warnings of a panic that goes on.
const WARN_SPACING: Duration = Duration::from_secs(60);

/// Reason why failover ends sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The backend is down.
    Down,
    /// The backend is a backup, and primaries are back.
    Return,
}

/// Reason why sessions that were to be ended are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Panic {
    /// No other backend can be used.
    NoBackend,
    /// `max_close_rate` is used up.
    Rate,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Panic::NoBackend => "no other backend can be used, no session is ended",
            Panic::Rate => "max_close_rate is used up, sessions that were to end are kept",
        })
    }
}

/// Guard of one pool.
#[derive(Debug)]
pub(crate) struct FailoverGuard {
    pool: Weak<Pool>,
    created: Instant,
    ended: AtomicU64,
    state: Mutex<GuardState>,
}

#[derive(Debug, Default)]
struct GuardState {
    budget: Budget,
    panic: Option<PanicState>,
    /// Backends that the operator has set `ready` since the last look.
    kept: Vec<Arc<Backend>>,
}

#[derive(Debug)]
struct PanicState {
    reason: Panic,
    /// When sessions were held back last.
    at: Instant,
    warned_at: Instant,
}

impl FailoverGuard {
    pub(crate) fn new(pool: &Arc<Pool>) -> Arc<FailoverGuard> {
        Arc::new(FailoverGuard {
            pool: Arc::downgrade(pool),
            created: Instant::now(),
            ended: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Whether this is the guard of that pool: a name can come back with another pool.
    pub(crate) fn is_of(&self, pool: &Pool) -> bool {
        std::ptr::eq(self.pool.as_ptr(), pool)
    }

    /// Sessions that were ended so far.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Counts sessions that the process before has ended.
    pub(in crate::server) fn add_ended(&self, sessions: u64) {
        self.ended.fetch_add(sessions, Ordering::Relaxed);
    }

    pub(crate) fn panic(&self) -> Option<Panic> {
        lock(&self.state).panic.as_ref().map(|panic| panic.reason)
    }

    /// Grants the end of up to `wanted` sessions of `target`; they count as ended.
    pub(crate) fn grant(&self, wanted: u64, target: &Arc<Backend>, reason: EndReason) -> u64 {
        let Some(pool) = self.pool.upgrade().filter(|_| wanted > 0) else {
            return 0;
        };
        let backends = pool.backends();
        let others = || {
            let is_other = |one: &&Arc<Backend>| !Arc::ptr_eq(one, target) && one.takes_new();
            backends.iter().filter(is_other)
        };
        let wanted = match reason {
            // The backend is back; its job is aborted in a moment.
            EndReason::Down if target.takes_new() => 0,
            EndReason::Down if others().next().is_none() => {
                self.hold(Panic::NoBackend);
                0
            }
            EndReason::Down => wanted,
            // Backups take no overflow: clients that find the primaries full are refused.
            EndReason::Return => {
                let primaries = others().filter(|one| !one.backup());
                wanted.min(primaries.map(|one| room(one)).fold(0, u64::saturating_add))
            }
        };
        let retired = pool.retired();
        let live = backends.iter().chain(&retired).map(|one| one.live()).sum();
        let percent = pool.settings().failover.max_close_rate;
        let now = self.created.elapsed();
        let granted = lock(&self.state).budget.take(wanted, live, percent, now);
        if granted < wanted {
            self.hold(Panic::Rate);
        }
        self.ended.fetch_add(granted, Ordering::Relaxed);
        granted
    }

    /// Notes that sessions are kept that were to be ended, and warns.
    pub(crate) fn hold(&self, reason: Panic) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let before = state.panic.take();
        let warned = before.filter(|before| {
            before.reason == reason && now.duration_since(before.warned_at) < WARN_SPACING
        });
        let warned_at = warned.as_ref().map_or(now, |warned| warned.warned_at);
        state.panic = Some(PanicState {
            reason,
            at: now,
            warned_at,
        });
        drop(state);
        if warned.is_none() {
            tracing::warn!(pool = self.name(), ended = self.ended(), why = %reason, "panic mode");
        }
    }

    /// Ends the panic once no session was held back for a while. `idle`: no job of the pool runs,
    /// and none is held back.
    pub(crate) fn calm(&self, idle: bool) {
        let now = Instant::now();
        let is_over = |panic: &mut PanicState| idle || now.duration_since(panic.at) >= CALM;
        let over = lock(&self.state).panic.take_if(is_over);
        if over.is_some() {
            let ended = self.ended();
            tracing::info!(pool = self.name(), ended, "panic mode is over");
        }
    }

    /// Keeps the sessions of that backend, as the operator wants.
    pub(crate) fn keep(&self, backend: &Arc<Backend>) {
        let kept = &mut lock(&self.state).kept;
        // Bounded by the backends there are: each look takes them.
        if !kept.iter().any(|one| Arc::ptr_eq(one, backend)) {
            kept.push(Arc::clone(backend));
        }
    }

    /// Takes the backends that were kept since the last look.
    pub(crate) fn take_kept(&self) -> Vec<Arc<Backend>> {
        std::mem::take(&mut lock(&self.state).kept)
    }

    fn name(&self) -> String {
        let pool = self.pool.upgrade();
        pool.map(|pool| pool.name().to_string()).unwrap_or_default()
    }
}

fn room(backend: &Backend) -> u64 {
    match backend.max_connections() {
        0 => u64::MAX,
        max => max.saturating_sub(backend.live()),
    }
}
