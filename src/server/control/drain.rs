//! State that the operator sets on backends and listeners, and its effect on their live
//! connections.

use std::sync::Arc;

use super::jobs::{DrainRate, FailoverGuard, Job, JobRequest, JobTarget, TooMany};
use crate::pool::{Backend, OperatorState, Pool};
use crate::server::listeners;
use crate::server::lock::lock;
use crate::server::state::Server;
use crate::server::status::ListenerStatus;
use crate::server::upgrade::message::FromNew;

/// Decoded drain: what it does to the live connections.
pub(crate) enum DrainRequest {
    /// Goes on with a running job, else starts one at the pool's `drain`, if it has one.
    Default(Option<DrainRate>),
    /// Starts a job.
    Rate(DrainRate),
    /// Ends no connection.
    Keep,
}

impl Server {
    /// Applies a drain to the live connections of its backend or listener. Returns the job that
    /// ends them, where there is one; it may be over already.
    ///
    /// # Errors
    /// The limit of running jobs is reached; the target is draining all the same.
    pub(crate) fn apply_drain(
        &self,
        target: JobTarget,
        request: DrainRequest,
    ) -> Result<Option<Arc<Job>>, TooMany> {
        let running = self.jobs.of(&target);
        let rate = match request {
            DrainRequest::Keep => {
                if let Some(job) = running {
                    self.abort_job(job.id);
                }
                self.jobs.abort_of(&target);
                return Ok(None);
            }
            DrainRequest::Default(_) if running.is_some() => return Ok(running),
            DrainRequest::Default(None) => return Ok(None),
            DrainRequest::Default(Some(rate)) | DrainRequest::Rate(rate) => rate,
        };
        self.start_job(JobRequest::drain(target, rate)).map(Some)
    }

    /// Sets the operator's state of a backend; it wins over failover. A backend that is ready again
    /// keeps the connections that are left.
    pub(crate) fn set_operator(&self, backend: &Arc<Backend>, state: OperatorState) {
        backend.set_operator(state);
        self.upgrade.tell_predecessor(&FromNew::Operate {
            pool: backend.pool().to_string(),
            backend: backend.name().to_string(),
            state: state.as_str().to_owned(),
        });
        match state {
            OperatorState::Ready => {
                self.jobs.abort_of(&JobTarget::Backend(Arc::clone(backend)));
                self.failover.keep(backend);
            }
            OperatorState::Drain | OperatorState::Maint => self.jobs.abort_automatic_of(backend),
        }
    }

    /// Drains a listener: it refuses clients until it is ready again, which keeps the connections
    /// that are left. `None`: no listener of that name accepts.
    pub(crate) fn drain_listener(&self, name: &str, drain: bool) -> Option<ListenerStatus> {
        let live = lock(&self.live);
        let mut listeners = live.listeners.iter();
        let listening = listeners.find(|one| *one.counters().name == *name)?;
        listening.set_draining(drain);
        if !drain {
            let target = JobTarget::Listener(Arc::clone(listening.counters()));
            self.jobs.abort_of(&target);
        }
        Some(listeners::present(listening))
    }

    /// Starts a job of the operator, here and in the process before as long as that has
    /// connections.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn start_job(&self, request: JobRequest) -> Result<Arc<Job>, TooMany> {
        let job = self.jobs.start(request)?;
        if let Some(state) = job.hand_over() {
            self.upgrade.tell_predecessor(&FromNew::StartJob(state));
        }
        Ok(job)
    }

    /// Aborts that job, here and in the process before. `None`: there is no such job.
    pub(crate) fn abort_job(&self, id: u64) -> Option<Arc<Job>> {
        self.upgrade.tell_predecessor(&FromNew::AbortJob { id });
        self.jobs.abort(id)
    }

    /// The guard of a pool's failover; `None` where failover never watched it.
    pub(crate) fn guard(&self, pool: &Pool) -> Option<Arc<FailoverGuard>> {
        self.failover.of(pool)
    }
}
