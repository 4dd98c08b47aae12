//! The guard of one pool: what its failover may end now. Every portion of every such job asks it, so that it decides on the
//! pool as it is at that moment, and nothing else can end a session for the sake of health.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::budget::Budget;
use crate::pool::{Backend, Pool};
use crate::server::lock;

/// A panic is over when nothing was held back for so long: every second of the window frees a little.
const CALM: Duration = Duration::from_secs(10);
/// Between two warnings of a panic that goes on.
const WARN_SPACING: Duration = Duration::from_secs(60);

/// For what sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Their backend is down.
    Down,
    /// It is a backup, and primaries are back.
    Return,
}

/// Why sessions that were to be ended are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panic {
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

#[derive(Debug)]
pub struct Guard {
    pool: Weak<Pool>,
    created: Instant,
    ended: AtomicU64,
    state: Mutex<GuardState>,
}

#[derive(Debug, Default)]
struct GuardState {
    budget: Budget,
    panic: Option<Panicking>,
}

#[derive(Debug)]
struct Panicking {
    why: Panic,
    /// When something was held back last.
    at: Instant,
    warned_at: Instant,
}

impl Guard {
    pub fn new(pool: &Arc<Pool>) -> Arc<Guard> {
        Arc::new(Guard {
            pool: Arc::downgrade(pool),
            created: Instant::now(),
            ended: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Whether it is that pool's: a name can come back with another pool.
    pub fn is_of(&self, pool: &Pool) -> bool {
        std::ptr::eq(self.pool.as_ptr(), pool)
    }

    /// Sessions that were ended so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn panic(&self) -> Option<Panic> {
        lock(&self.state).panic.as_ref().map(|panic| panic.why)
    }

    /// How many of `wanted` sessions of `target` may be ended now; they count as ended.
    pub fn grant(&self, wanted: u64, target: &Arc<Backend>, why: EndReason) -> u64 {
        let Some(pool) = self.pool.upgrade().filter(|_| wanted > 0) else {
            return 0;
        };
        let backends = pool.backends();
        let others = || {
            let is_other = |one: &&Arc<Backend>| !Arc::ptr_eq(one, target) && one.takes_new();
            backends.iter().filter(is_other)
        };
        let wanted = match why {
            // It is back; its job learns of it in a moment.
            EndReason::Down if target.takes_new() => 0,
            EndReason::Down if others().next().is_none() => {
                self.hold(Panic::NoBackend);
                0
            }
            EndReason::Down => wanted,
            // Backups take no overflow: who finds the primaries full is turned away.
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

    /// Sessions are kept that were to be ended.
    pub fn hold(&self, why: Panic) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let before = state.panic.take();
        let told = before.filter(|before| {
            before.why == why && now.duration_since(before.warned_at) < WARN_SPACING
        });
        let warned_at = told.as_ref().map_or(now, |told| told.warned_at);
        state.panic = Some(Panicking {
            why,
            at: now,
            warned_at,
        });
        drop(state);
        if told.is_none() {
            tracing::warn!(pool = self.name(), ended = self.ended(), %why, "panic mode");
        }
    }

    /// `idle`: no job of its pool runs, and none is held back.
    pub fn settle(&self, idle: bool) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let is_over = |panic: &mut Panicking| idle || now.duration_since(panic.at) >= CALM;
        let over = state.panic.take_if(is_over);
        drop(state);
        if over.is_some() {
            let ended = self.ended();
            tracing::info!(pool = self.name(), ended, "panic mode is over");
        }
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
