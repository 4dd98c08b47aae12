//! The operator's word on backends and listeners, and what it means for their live connections.

use std::sync::Arc;

use super::jobs::{Job, Jobs, Pace, Target, TooMany};
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
    pub fn end_connections(&self, target: Target, pace: Pace) -> Result<Arc<Job>, TooMany> {
        self.jobs.start(target, pace, self.relay(), &self.watch())
    }

    /// The operator's word on a backend. One that is ready again keeps what is left of its connections.
    pub fn set_operator(&self, backend: &Arc<Backend>, state: OperatorState) {
        backend.set_operator(state);
        if state == OperatorState::Ready {
            self.jobs.abort_of(&Target::Backend(Arc::clone(backend)));
        }
    }

    /// The operator's word on a listener: a draining one turns clients away until it is ready again, which keeps what is
    /// left of its connections. `None`: none of that name accepts.
    pub fn drain_listener(&self, name: &str, drain: bool) -> Option<ListenerStatus> {
        let live = lock(&self.live);
        let mut listening = live.listeners.iter();
        let listening = listening.find(|one| *one.counters().name == *name)?;
        listening.intake().set_draining(drain);
        if !drain {
            let target = Target::Listener(Arc::clone(listening.counters()));
            self.jobs.abort_of(&target);
        }
        Some(listeners::present(listening))
    }
}
