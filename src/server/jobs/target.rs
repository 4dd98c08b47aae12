//! Whose connections a job ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::RebalancePlan;
use crate::observe::ListenerCounters;
use crate::pool::Backend;
use crate::relay::Relay;
use crate::relay::{CloseFrame, Filter, Handle, SessionInfo, SessionState};

/// A listener at which nobody was established for so long is empty: whoever had been routed has had `upgrade_timeout`, and
/// those who come and are turned away are counted for a moment, too: a storm of them would keep the job for ever.
const SETTLED: Duration = Duration::from_secs(15);
/// Between two looks at a listener's count, which nobody is told of.
const COUNT_SPACING: Duration = Duration::from_millis(100);

/// Whose connections are ended.
#[derive(Debug, Clone)]
pub enum JobTarget {
    /// All of a backend, until it is empty.
    Backend(Arc<Backend>),
    /// All of a listener, until it is empty. They are its own under any address: the counters go with its name.
    Listener(Arc<ListenerCounters>),
    /// Those that are there when it begins.
    Filter(Filter),
    /// Of those that are there when it begins the ones that another backend can take; the others stay.
    Move(Filter),
    /// Those above the shares of their backends.
    Surplus(Arc<RebalancePlan>),
}

impl JobTarget {
    pub(super) fn filter(&self) -> Filter {
        match self {
            JobTarget::Filter(filter) | JobTarget::Move(filter) => filter.clone(),
            JobTarget::Surplus(surplus) => Filter {
                pool: Some(surplus.pool.name().to_string()),
                ..Filter::default()
            },
            JobTarget::Listener(listener) => Filter {
                listener: Some(listener.name.to_string()),
                ..Filter::default()
            },
            JobTarget::Backend(backend) => Filter {
                pool: Some(backend.pool().to_string()),
                backend: Some(backend.name().to_string()),
                ..Filter::default()
            },
        }
    }

    /// The same backend or listener. No filter is another's.
    pub(super) fn is(&self, other: &JobTarget) -> bool {
        match (self, other) {
            (JobTarget::Backend(one), JobTarget::Backend(other)) => Arc::ptr_eq(one, other),
            (JobTarget::Listener(one), JobTarget::Listener(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Connections now, those in set-up among them; `None` where only a look at the table tells.
    pub fn live(&self) -> Option<u64> {
        match self {
            JobTarget::Backend(backend) => Some(backend.live()),
            JobTarget::Listener(listener) => Some(listener.live.load(Ordering::Relaxed)),
            JobTarget::Filter(_) | JobTarget::Move(_) | JobTarget::Surplus(_) => None,
        }
    }

    /// Whether nobody is there any more. `unseen`: since somebody was seen at a look.
    pub(super) fn is_empty(&self, unseen: Duration) -> bool {
        let is_settled = matches!(self, JobTarget::Listener(_)) && unseen >= SETTLED;
        is_settled || self.live() == Some(0)
    }

    /// Nobody whose connection was ended is to come back to a backend by a sticky cookie. A listener that drains turns
    /// everybody away by itself.
    pub(super) fn set_emptying(&self, emptying: bool) {
        if let JobTarget::Backend(backend) = self {
            backend.set_emptying(emptying);
        }
    }

    /// Whether that connection is one of those that are meant.
    pub(super) fn means(&self, one: &SessionInfo) -> bool {
        let may_go = match self {
            // Who is between two backends goes on with the next one, unless it is ended.
            JobTarget::Filter(_) | JobTarget::Listener(_) => true,
            JobTarget::Move(_) => one.is_resumable && one.state != SessionState::ChangingBackend,
            JobTarget::Backend(_) | JobTarget::Surplus(_) => {
                one.state != SessionState::ChangingBackend
            }
        };
        may_go && one.state != SessionState::Closing
    }

    /// Ends one of its connections, or leaves it to another backend where it is a backend's and can outlive it.
    pub(super) fn end(&self, relay: &Relay, session: Handle, goodbye: &Arc<CloseFrame>) {
        match self {
            JobTarget::Backend(_) | JobTarget::Surplus(_) | JobTarget::Move(_) => {
                relay.migrate(session, goodbye);
            }
            JobTarget::Listener(_) | JobTarget::Filter(_) => relay.close_one(session, goodbye),
        }
    }

    /// Returns when no connection is live; never for a filter or a surplus.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn emptied(&self) {
        match self {
            JobTarget::Backend(backend) => backend.emptied().await,
            JobTarget::Listener(_) => {
                while self.live() != Some(0) {
                    tokio::time::sleep(COUNT_SPACING).await;
                }
            }
            JobTarget::Filter(_) | JobTarget::Move(_) | JobTarget::Surplus(_) => {
                std::future::pending().await
            }
        }
    }
}
