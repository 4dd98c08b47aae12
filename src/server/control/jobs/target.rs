//! The target of a job: whose connections it ends.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::observe::ListenerCounters;
use crate::pool::{Backend, Pool};
use crate::relay::Filter;

/// Between two reads of a listener's count, which notifies nobody.
const COUNT_SPACING: Duration = Duration::from_millis(100);

/// Connections that a job ends.
#[derive(Debug, Clone)]
pub(crate) enum JobTarget {
    Backend(Arc<Backend>),
    /// A listener under any address: the counters go with its name.
    Listener(Arc<ListenerCounters>),
    Pool(Arc<Pool>),
    Filter(Box<Filter>),
}

impl JobTarget {
    /// Filter of the target's established sessions.
    pub(crate) fn filter(&self) -> Filter {
        match self {
            JobTarget::Filter(filter) => Filter::clone(filter),
            JobTarget::Backend(backend) => backend_filter(backend),
            JobTarget::Listener(listener) => Filter {
                listener: Some(listener.name.to_string()),
                ..Filter::default()
            },
            JobTarget::Pool(pool) => Filter {
                pool: Some(pool.name().to_string()),
                ..Filter::default()
            },
        }
    }

    /// Whether it is the same backend or listener. No filter and no pool is another's.
    pub(super) fn is(&self, other: &JobTarget) -> bool {
        match (self, other) {
            (JobTarget::Backend(one), JobTarget::Backend(other)) => Arc::ptr_eq(one, other),
            (JobTarget::Listener(one), JobTarget::Listener(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Connections now, those in set-up among them; the lines of all others are in the queue of the
    /// access log. `None` where nothing but a query of the relay
    /// tells.
    pub(crate) fn live(&self) -> Option<u64> {
        match self {
            JobTarget::Backend(backend) => Some(backend.live()),
            JobTarget::Listener(listener) => Some(listener.live.load(Ordering::Acquire)),
            JobTarget::Pool(_) | JobTarget::Filter(_) => None,
        }
    }

    /// Returns when no connection is live; never for a pool or a filter.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn emptied(&self) {
        match self {
            JobTarget::Backend(backend) => backend.emptied().await,
            JobTarget::Listener(_) => {
                while self.live() != Some(0) {
                    sleep(COUNT_SPACING).await;
                }
            }
            JobTarget::Pool(_) | JobTarget::Filter(_) => pending().await,
        }
    }

    /// Sets whether sticky cookies of a backend are ignored, so that no client comes back to it. A
    /// listener that drains refuses everybody by itself.
    pub(super) fn set_emptying(&self, emptying: bool) {
        if let JobTarget::Backend(backend) = self {
            backend.set_emptying(emptying);
        }
    }
}

/// Filter of the sessions of `backend`.
pub(in crate::server) fn backend_filter(backend: &Backend) -> Filter {
    Filter {
        pool: Some(backend.pool().to_string()),
        backend: Some(backend.name().to_string()),
        ..Filter::default()
    }
}
