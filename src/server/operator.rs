//! The operator's word on backends and listeners, and what it means for their live connections.

use std::sync::Arc;

use super::jobs::{DrainRate, EndReason, Guard, Job, JobOrigin, JobTarget, Jobs, TooMany};
use super::{ListenerStatus, Server, listeners, lock};
use crate::pool::{Backend, OperatorState};

impl Server {
    /// What is being done to live connections.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Begins to end connections at a pace.
    ///
    /// # Errors
    /// As many jobs run as may.
    pub fn end_connections(&self, target: JobTarget, pace: DrainRate) -> Result<Arc<Job>, TooMany> {
        self.jobs.start(target, pace, self.relay(), &self.watch())
    }

    /// Begins to end the connections of a backend for failover; `None` where that is not to be now.
    pub(super) fn end_for_health(
        &self,
        backend: &Arc<Backend>,
        pace: DrainRate,
        guard: Arc<Guard>,
        why: EndReason,
    ) -> Option<Arc<Job>> {
        let origin = JobOrigin::Health(guard, why);
        let (relay, runtime) = (self.relay(), self.watch());
        self.jobs
            .start_for_health(backend, pace, origin, relay, &runtime)
    }

    /// The operator's word on a backend; it wins over what failover does. One that is ready again keeps what is left of its
    /// connections.
    pub fn set_operator(&self, backend: &Arc<Backend>, state: OperatorState) {
        backend.set_operator(state);
        match state {
            OperatorState::Ready => {
                self.jobs.abort_of(&JobTarget::Backend(Arc::clone(backend)));
                self.failover.keep(backend);
            }
            OperatorState::Drain | OperatorState::Maint => self.jobs.abort_health_of(backend),
        }
    }

    /// The operator's word on a listener: a draining one turns clients away until it is ready again, which keeps what is
    /// left of its connections. `None`: none of that name accepts.
    pub fn drain_listener(&self, name: &str, drain: bool) -> Option<ListenerStatus> {
        let live = lock(&self.live);
        let mut listening = live.listeners.iter();
        let listening = listening.find(|one| *one.counters().name == *name)?;
        listening.set_draining(drain);
        if !drain {
            let target = JobTarget::Listener(Arc::clone(listening.counters()));
            self.jobs.abort_of(&target);
        }
        Some(listeners::present(listening))
    }
}
