//! The tasks around a pool: its checks and lookups while the configuration names it, its retirement
//! once a reload removed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::control::pings;
use super::control_runtime::ControlRuntime;
use super::lock::lock;
use crate::discovery;
use crate::health;
use crate::pool::{Pool, supervise};
use crate::relay::Relay;

/// Pools by name.
pub(super) type Pools = BTreeMap<String, Arc<Pool>>;

/// Limit of the wait for the first lookups of named backends: a name server that works answers
/// within milliseconds, one that does not must not hold up a start or a reload. A discovered set
/// has its `start_timeout`.
const FIRST_LOOKUPS: Duration = Duration::from_secs(1);

/// A pool of the present configuration; checks and lookups go on as long as this is kept.
pub(super) struct RunningPool {
    pub pool: Arc<Pool>,
    pub lookups: Arc<discovery::LookupStatus>,
    _stop: DropGuard,
}

impl RunningPool {
    /// Starts checks, lookups, and the pings that follow checks.
    pub(super) fn start(
        pool: Arc<Pool>,
        relay: &Arc<Relay>,
        sources: &Arc<discovery::SharedSources>,
        runtimes: &ControlRuntime,
    ) -> RunningPool {
        let runtime = runtimes.handle();
        let stop = CancellationToken::new();
        let lookups = Arc::new(discovery::LookupStatus::default());
        let (checked, until) = (Arc::clone(&pool), stop.clone());
        let checks = move || health::watch(Arc::clone(&checked), until.clone());
        let checks = supervise(format!("checks of {}", pool.name()), checks);
        runtimes.checks().spawn(checks);
        let (resolved, status, until) = (Arc::clone(&pool), Arc::clone(&lookups), stop.clone());
        let sources = Arc::clone(sources);
        let follow = move || {
            let (pool, status) = (Arc::clone(&resolved), Arc::clone(&status));
            discovery::watch(pool, status, Arc::clone(&sources), until.clone())
        };
        runtime.spawn(supervise(format!("lookups of {}", pool.name()), follow));
        let (pinged, relay, until) = (Arc::clone(&pool), Arc::clone(relay), stop.clone());
        let pings = move || pings::follow(Arc::clone(&pinged), Arc::clone(&relay), until.clone());
        runtime.spawn(supervise(format!("pings of {}", pool.name()), pings));
        RunningPool {
            pool,
            lookups,
            _stop: stop.drop_guard(),
        }
    }

    async fn resolved(&self) {
        let settings = self.pool.settings();
        let discover = settings.discover.as_ref();
        let limit = discover.map_or(FIRST_LOOKUPS, |discover| {
            discover.policy.start_timeout.max(FIRST_LOOKUPS)
        });
        let resolved = async {
            let mut changed = self.pool.changed();
            while !self.is_resolved() && changed.changed().await.is_ok() {}
        };
        // Discovery goes on with the names that are not known by then, and warns about them.
        let _ = tokio::time::timeout(limit, resolved).await;
    }

    fn is_resolved(&self) -> bool {
        let backends = self.pool.backends();
        let discovers = self.pool.settings().discover.is_some();
        let named = backends.iter().all(|backend| backend.endpoint().is_some());
        named && !(discovers && backends.is_empty())
    }
}

/// Waits until the pools have their first addresses, at most `FIRST_LOOKUPS` or `start_timeout`: a
/// pool that serves before its names are known refuses clients that it could have taken.
pub(super) async fn resolved(pools: impl Iterator<Item = &RunningPool>) {
    join_all(pools.map(RunningPool::resolved)).await;
}

/// A pool that a reload removed.
pub(super) struct RemovedPool {
    pub pool: Arc<Pool>,
    retirement: Arc<Retirement>,
    _task: AbortOnDropHandle<()>,
}

/// Decides whether a removed pool retires: ending its task would not stop one that retires the pool
/// already.
#[derive(Default)]
struct Retirement {
    phase: Mutex<RetirementPhase>,
}

#[derive(Default, PartialEq, Eq)]
enum RetirementPhase {
    #[default]
    Waiting,
    Retired,
    TakenBack,
}

impl Retirement {
    fn retire(&self, pool: &Pool) {
        // Held over the call: once `take_back` has returned, no retirement is under way.
        let mut phase = lock(&self.phase);
        if *phase == RetirementPhase::Waiting {
            pool.retire();
            *phase = RetirementPhase::Retired;
        }
    }

    fn take_back(&self) {
        *lock(&self.phase) = RetirementPhase::TakenBack;
    }

    fn is_over(&self) -> bool {
        *lock(&self.phase) != RetirementPhase::Waiting
    }
}

impl RemovedPool {
    /// Retires the pool after `grace`: connections accepted before the reload may still be on their
    /// way to it, and one connection sees one configuration. After it, a connection that lasts
    /// (HTTP between two requests) cannot bring new ones.
    pub(super) fn retire_after(pool: Arc<Pool>, grace: Duration, runtime: &Handle) -> RemovedPool {
        let retirement = Arc::new(Retirement::default());
        let (decided, retired) = (Arc::clone(&retirement), Arc::clone(&pool));
        let task = runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            decided.retire(&retired);
        });
        RemovedPool {
            pool,
            retirement,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Takes the pool back for a later reload that names it again: when this returns it is retired,
    /// for `Pool::apply` to undo, or never will be.
    pub(super) fn take_back(&self) {
        self.retirement.take_back();
    }

    /// Whether no connection is on it and none can come.
    pub(super) fn is_over(&self) -> bool {
        self.retirement.is_over() && !self.is_live()
    }

    /// Whether a connection is left on it.
    pub(super) fn is_live(&self) -> bool {
        let present = self.pool.backends();
        present
            .iter()
            .chain(&self.pool.retired())
            .any(|backend| backend.live() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    fn settings() -> config::Pool {
        let text = "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\npool = 'chat'\n\
                    [pool.chat]\nbackend = [{ name = 'n1', address = '127.0.0.1:1' }]";
        let mut config = config::parse(text, Path::new("test.toml")).unwrap();
        config.pools.remove("chat").unwrap()
    }

    /// A retirement that had begun when the pool was taken back emptied it after `apply`, for ever.
    #[test]
    fn a_retirement_that_comes_too_late_leaves_the_pool_that_was_taken_back() {
        let settings = settings();
        let pool = Pool::new(&settings);
        let retirement = Retirement::default();
        retirement.take_back();
        pool.apply(&settings);
        retirement.retire(&pool);
        assert_eq!(pool.backends().len(), 1);
    }

    #[test]
    fn a_pool_that_retired_before_it_was_taken_back_serves_again() {
        let settings = settings();
        let pool = Pool::new(&settings);
        let retirement = Retirement::default();
        retirement.retire(&pool);
        assert!(retirement.is_over() && pool.backends().is_empty());
        retirement.take_back();
        pool.apply(&settings);
        assert_eq!(pool.backends().len(), 1);
    }
}
