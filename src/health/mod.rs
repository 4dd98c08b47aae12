//! Active health checks: asks every backend of a pool in turns and tells the pool the verdict.
//!
//! Knows nothing of connections or of discovery: it follows the pool's membership and settings. A check that could not
//! be made for want of something of our own (file descriptors, ports) says nothing about a backend.

mod expect;
mod http;
mod plan;
mod probe;
mod progress;
mod task;
mod websocket;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Check;
use crate::net::Endpoint;
use crate::pool::{Backend, Pool};
use plan::Plan;

pub use plan::CheckError;

/// Whether `check` can be made: loads the roots it names, builds its request. For use before a configuration is taken.
///
/// # Errors
/// Names the file or the value and what is wrong with it.
pub fn verify(check: &Check) -> Result<(), CheckError> {
    Plan::new(check).map(drop)
}

/// Checks the backends of `pool` until `stop` is cancelled, following its membership and settings. One task per pool.
///
/// # Cancel safety
/// Dropping the future ends every check; the verdicts given stay.
pub async fn watch(pool: Arc<Pool>, stop: CancellationToken) {
    let mut changed = pool.changed();
    let mut watched = Watched {
        pool,
        check: None,
        backends: HashMap::new(),
    };
    loop {
        changed.borrow_and_update();
        watched.adjust();
        let more = tokio::select! {
            () = stop.cancelled() => false,
            change = changed.changed() => change.is_ok(),
        };
        if !more {
            return;
        }
    }
}

/// The checks under way for one pool; dropping one ends it.
struct Watched {
    pool: Arc<Pool>,
    check: Option<(Check, Arc<Plan>)>,
    /// By name.
    backends: HashMap<Arc<str>, WatchedBackend>,
}

struct WatchedBackend {
    backend: Arc<Backend>,
    endpoint: Option<Endpoint>,
    _task: AbortOnDropHandle<()>,
}

impl Watched {
    /// Starts and ends checks so that they fit the pool. One whose backend and settings did not change goes on, with
    /// its count of successes or failures.
    fn adjust(&mut self) {
        self.adjust_check();
        let Some((_, plan)) = &self.check else {
            self.lift_verdicts();
            return;
        };
        let mut backends = HashMap::new();
        for backend in self.pool.backends() {
            let endpoint = backend.endpoint();
            let kept = self.backends.remove(backend.name());
            let watched = kept
                .filter(|kept| Arc::ptr_eq(&kept.backend, &backend) && kept.endpoint == endpoint)
                .unwrap_or_else(|| start(&backend, endpoint, plan));
            backends.insert(backend.name().clone(), watched);
        }
        self.backends = backends;
    }

    fn adjust_check(&mut self) {
        let settings = self.pool.settings();
        if self.check.as_ref().map(|(check, _)| check) == settings.check.as_ref() {
            return;
        }
        self.check = None;
        self.backends.clear();
        let Some(check) = settings.check.clone() else {
            return;
        };
        match Plan::new(&check) {
            Ok(plan) => self.check = Some((check, Arc::new(plan))),
            Err(error) => {
                tracing::error!(pool = %self.pool.name(), %error, "health check cannot be made");
            }
        }
    }

    /// Without a check nobody would bring a backend up again that one took down.
    fn lift_verdicts(&self) {
        for backend in self.pool.backends() {
            if !backend.check_up() {
                backend.set_check(true, "no check", Instant::now());
            }
        }
    }
}

fn start(backend: &Arc<Backend>, endpoint: Option<Endpoint>, plan: &Arc<Plan>) -> WatchedBackend {
    let task = task::run(backend.clone(), plan.clone());
    WatchedBackend {
        backend: backend.clone(),
        endpoint,
        _task: AbortOnDropHandle::new(tokio::spawn(task)),
    }
}
