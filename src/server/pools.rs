//! The tasks around a pool: its checks and lookups while the configuration names it, its retirement once a reload
//! removed it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::discovery;
use crate::health;
use crate::pool::Pool;

/// A name server that works answers within milliseconds; one that does not must not hold up a start or a reload.
const FIRST_LOOKUPS: Duration = Duration::from_secs(1);

/// One pool of the present configuration; checks and lookups go on as long as this is kept.
pub(super) struct RunningPool {
    pub pool: Arc<Pool>,
    pub lookups: Arc<discovery::Status>,
    _stop: DropGuard,
}

impl RunningPool {
    /// Starts checks and lookups on `watch`.
    pub fn start(pool: Arc<Pool>, watch: &Handle) -> RunningPool {
        let stop = CancellationToken::new();
        let lookups = Arc::new(discovery::Status::default());
        watch.spawn(health::watch(Arc::clone(&pool), stop.clone()));
        watch.spawn(discovery::follow(
            Arc::clone(&pool),
            Arc::clone(&lookups),
            stop.clone(),
        ));
        RunningPool {
            pool,
            lookups,
            _stop: stop.drop_guard(),
        }
    }

    async fn resolved(&self) {
        let mut changed = self.pool.changed();
        while !self.is_resolved() && changed.changed().await.is_ok() {}
    }

    fn is_resolved(&self) -> bool {
        let backends = self.pool.backends();
        let discovers = self.pool.settings().discover.is_some();
        let named = backends.iter().all(|backend| backend.endpoint().is_some());
        named && !(discovers && backends.is_empty())
    }
}

/// Waits until the pools have their first addresses, at most `FIRST_LOOKUPS`: a pool that is served before its names are
/// known refuses what it could have taken.
pub(super) async fn resolved(pools: impl Iterator<Item = &RunningPool>) {
    let all = async {
        for running in pools {
            running.resolved().await;
        }
    };
    // What is not known by then is followed, and warned about, by discovery.
    let _ = tokio::time::timeout(FIRST_LOOKUPS, all).await;
}

/// One pool that a reload removed.
pub(super) struct RemovedPool {
    pub pool: Arc<Pool>,
    retirement: JoinHandle<()>,
}

impl RemovedPool {
    /// Retires the pool after `grace`: connections accepted before the reload may still be on their way to it, and one
    /// connection sees one configuration. After it, a connection that lasts (HTTP between two requests) cannot bring new ones.
    pub fn retire_after(pool: Arc<Pool>, grace: Duration, watch: &Handle) -> RemovedPool {
        let retired = Arc::clone(&pool);
        let retirement = watch.spawn(async move {
            tokio::time::sleep(grace).await;
            retired.retire();
        });
        RemovedPool { pool, retirement }
    }

    /// A later reload names it again.
    pub fn take_back(&self) {
        self.retirement.abort();
    }

    /// Nothing is on it and nothing can come.
    pub fn is_over(&self) -> bool {
        self.retirement.is_finished() && !self.is_live()
    }

    /// Whether a connection is left on it.
    pub fn is_live(&self) -> bool {
        let present = self.pool.backends();
        present
            .iter()
            .chain(&self.pool.retired())
            .any(|backend| backend.live() > 0)
    }
}
