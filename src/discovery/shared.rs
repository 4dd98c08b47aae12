//! Registries that are asked: one task for all pools that ask the same of the same registry.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::registry;
use super::source::{SourceFollower, source};
use crate::config::Registry;
use crate::pool;

/// Sources of all pools that are followed now.
#[derive(Debug, Default)]
pub(crate) struct SharedSources(Mutex<Vec<Weak<SharedSource>>>);

/// A registry that is asked as long as this is kept.
#[derive(Debug)]
pub(super) struct SharedSource {
    registry: Arc<Registry>,
    timeout: Duration,
    pub follower: SourceFollower,
    _task: AbortOnDropHandle<()>,
}

impl SharedSources {
    /// The source of `registry`: the one that is followed already, or a new one. `timeout`: of one
    /// request.
    pub(super) fn follow(&self, registry: &Arc<Registry>, timeout: Duration) -> Arc<SharedSource> {
        // Each change of the list is one call: a panic cannot leave it half done.
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|one| one.strong_count() > 0);
        let is_same = |one: &Arc<SharedSource>| one.registry == *registry && one.timeout == timeout;
        let known = sources.iter().filter_map(Weak::upgrade).find(is_same);
        known.unwrap_or_else(|| {
            let started = Arc::new(SharedSource::start(Arc::clone(registry), timeout));
            sources.push(Arc::downgrade(&started));
            started
        })
    }
}

impl SharedSource {
    fn start(registry: Arc<Registry>, timeout: Duration) -> SharedSource {
        let (publisher, follower) = source();
        let (publisher, asked) = (Arc::new(publisher), Arc::clone(&registry));
        let task = pool::supervise(format!("discovery by {}", registry.label()), move || {
            let (publisher, asked) = (Arc::clone(&publisher), Arc::clone(&asked));
            async move { registry::follow(&asked, timeout, &publisher).await }
        });
        SharedSource {
            registry,
            timeout,
            follower,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}
