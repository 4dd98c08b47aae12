//! Another backend for a WebSocket that has lost its own: pick, dial, the client's handshake once
//! more with a field that says what is taken over, and a 101 that agrees to the same as the first
//! one did.
//!
//! The client does not notice, so it gets nothing of the second 101.

pub(in crate::proxy) mod handshake;
pub(in crate::proxy) mod kept;
mod loss_check;
mod moved;
pub(in crate::proxy) mod search;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::kept::PoolMigrator;
use self::loss_check::LossCheck;
use self::search::{NewBackendSearch, RETRY_AFTER, RETRY_AFTER_MAX, jittered};
use crate::config;
use crate::relay::SessionGuards;
use crate::relay::{Handle, LostBackend, Migrator, ResumePolicy};
use crate::wire::moved::MovedMigrator;

impl PoolMigrator {
    /// Makes it the session's policy for the relay.
    pub(super) fn into_policy(self, resume: &Arc<config::Resume>) -> Box<ResumePolicy> {
        Box::new(ResumePolicy {
            settings: Arc::clone(resume),
            migrator: Arc::new(self),
        })
    }

    /// Counts the loss of a backend, unless it was: how many there were, and how many of the latest
    /// of them were short.
    fn count_loss(&self, gone: &LostBackend) -> (u32, u8) {
        let count = self.count.load(Ordering::Relaxed);
        let short = self.short.load(Ordering::Relaxed);
        if gone.is_counted {
            return (count, short);
        }
        let count = count.saturating_add(1);
        let short = if gone.was_short {
            short.saturating_add(1)
        } else {
            0
        };
        self.count.store(count, Ordering::Relaxed);
        self.short.store(short, Ordering::Relaxed);
        (count, short)
    }
}

impl Migrator for PoolMigrator {
    fn judge_loss(
        &self,
        session: Handle,
        settings: &config::Resume,
        held: &SessionGuards,
    ) -> Option<DropGuard> {
        // Without a lease there is no backend to ask about, which cannot be.
        let lease = held.lease.as_ref()?;
        let loss_check = LossCheck {
            pool: self.pool.clone(),
            backend: Arc::clone(lease.backend()),
            on: settings.on,
            settle: settings.settle,
            ended: Instant::now(),
        };
        loss_check.begin(Arc::clone(&self.proxy), session)
    }

    fn export(&self) -> MovedMigrator {
        self.moved()
    }

    fn find_backend(self: Arc<Self>, gone: LostBackend, held: &mut SessionGuards) -> DropGuard {
        let lease = held.lease.take();
        let before = match (&lease, &gone.from) {
            (Some(lease), _) => Some(Arc::clone(lease.backend())),
            (None, Some(from)) => self.pool.upgrade().and_then(|pool| pool.backend(from)),
            (None, None) => None,
        };
        drop(lease);
        let (count, short) = self.count_loss(&gone);
        let wait = wait_before(short);
        let stop = CancellationToken::new();
        let runtime = self.proxy.runtime.clone();
        let mut search = NewBackendSearch::new(Arc::clone(&self), note(count, &gone), before);
        let stopped = stop.clone();
        runtime.spawn(async move {
            // Dropping the search closes what it has begun.
            let found = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                found = async {
                    sleep(wait).await;
                    search.run().await
                } => found,
            };
            let relay = &self.proxy.relay;
            match found {
                Some(backend) => relay.attach(gone.session, backend),
                None => relay.give_up_migration(gone.session),
            }
        });
        stop.drop_guard()
    }
}

/// The pause before a search. Backends that go as soon as they come are not asked again and again
/// without one.
fn wait_before(short: u8) -> Duration {
    match short {
        0 => Duration::ZERO,
        short => {
            let doubled = RETRY_AFTER.saturating_mul(1 << short.min(8));
            jittered((doubled / 2).min(RETRY_AFTER_MAX))
        }
    }
}

/// The value of the field for the next backend: how many there were, the latest of them, and how
/// many messages of the client may be lost. In the form of parameters (RFC 9110 section 5.6.6).
fn note(count: u32, gone: &LostBackend) -> String {
    let from = gone.from.as_deref().unwrap_or("");
    let escaped = from.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("count={count}; from=\"{escaped}\"; lost={}", gone.lost);
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return "count=1; lost=unknown".to_owned();
    }
    text
}
