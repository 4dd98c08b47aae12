//! Whether a backend that has ended a session without a Close frame is lost, or meant that end. It
//! is lost where it is leaving, is down, does not listen any more, or has ended many sessions at
//! once.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::ResumeOn;
use crate::pool::{Backend, Pool};
use crate::proxy::connect::connector::Connector;
use crate::proxy::shared::Proxy;
use crate::relay::Handle;

/// Connects within `settle` that ask whether the backend listens: the first one may come before the
/// listening socket of a process that ends is closed.
const PROBES: u32 = 2;

/// A check of the backend of one session.
pub(super) struct LossCheck {
    pub pool: Weak<Pool>,
    pub backend: Arc<Backend>,
    pub on: ResumeOn,
    pub settle: Duration,
    /// When the session ended.
    pub ended: Instant,
}

impl LossCheck {
    /// Begins the check. `None`: the backend is lost. Otherwise the relay is told within `settle`,
    /// unless the guard is dropped before.
    pub(super) fn begin(self, proxy: Arc<Proxy>, session: Handle) -> Option<DropGuard> {
        let losses = self.backend.losses();
        losses.record_end(self.backend.live(), self.settle, self.ended);
        if self.has_found_a_loss() {
            return None;
        }
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = proxy.runtime.clone();
        runtime.spawn(async move {
            let is_lost = tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                is_lost = self.run() => is_lost,
            };
            let (pool, backend) = (self.backend.pool(), self.backend.name());
            tracing::debug!(%pool, %backend, is_lost, "a session was ended without a close");
            proxy.relay.judged(session, is_lost);
        });
        Some(stop.drop_guard())
    }

    async fn run(&self) -> bool {
        // Before the first look: what changes after it is not missed.
        let mut changes = self.backend.losses().changes();
        let mut probing = std::pin::pin!(self.probe());
        let mut is_probing = self.on.down;
        let mut settled = std::pin::pin!(sleep_until((self.ended + self.settle).into()));
        loop {
            if self.has_found_a_loss() {
                return true;
            }
            tokio::select! {
                // The backend's own: it is not dropped while we hold it.
                _ = changes.changed() => {}
                () = &mut probing, if is_probing => is_probing = false,
                () = &mut settled => return self.has_found_a_loss(),
            }
        }
    }

    fn has_found_a_loss(&self) -> bool {
        let LossCheck { backend, on, .. } = self;
        let losses = backend.losses();
        let since = self.ended.checked_sub(self.settle).unwrap_or(self.ended);
        (on.drain && backend.is_leaving())
            || (on.down && (!backend.check_up() || losses.was_refused(since)))
            || (on.burst && losses.is_burst(self.ended))
    }

    /// Asks by a connect whether the backend listens, for all sessions that wait for that together.
    async fn probe(&self) {
        let spacing = self.settle / PROBES;
        for number in 0..PROBES {
            if number > 0 {
                sleep(spacing).await;
            }
            // Half of the spacing: a session that ends a moment later probes for itself.
            if !self.backend.losses().may_probe(spacing / 2, Instant::now()) {
                continue;
            }
            let Some(pool) = self.pool.upgrade() else {
                return;
            };
            let connector = Connector::to(&self.backend, &pool);
            drop(pool);
            if let Err(error) = connector.probe(self.settle).await
                && error.is_refusal()
            {
                self.backend.losses().record_refusal(Instant::now());
            }
        }
    }
}
