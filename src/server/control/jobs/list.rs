//! The jobs of a server.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use super::guard::{EndReason, FailoverGuard};
use super::handover::JobState;
use super::job::Job;
use super::request::{DrainRate, JobOrigin, JobRequest};
use super::target::JobTarget;
use crate::pool::{Backend, OperatorState};
use crate::relay::Relay;
use crate::server::lock::lock;

/// Jobs of one origin at once: each asks for the whole table now and then.
const MAX_RUNNING: usize = 32;
/// Operator, discovery and health: each may have as many as `MAX_RUNNING`.
const ORIGINS: usize = 3;
/// Jobs that are over and still listed.
const KEPT: usize = 32;

/// The jobs of a server, the latest last.
pub(crate) struct Jobs {
    relay: Arc<Relay>,
    runtime: Handle,
    latest_id: AtomicU64,
    jobs: Mutex<VecDeque<Arc<Job>>>,
}

/// Error of a job that is not started because as many run as may.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_RUNNING} jobs are running already; abort one or wait")]
pub(crate) struct TooMany;

impl Jobs {
    /// Jobs run on `runtime`.
    pub(in crate::server) fn new(relay: Arc<Relay>, runtime: Handle) -> Jobs {
        Jobs {
            relay,
            runtime,
            latest_id: AtomicU64::new(0),
            jobs: Mutex::default(),
        }
    }

    /// Starts a job of the operator, or of a rebalance; aborts those on the same backend or
    /// listener.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn start(&self, request: JobRequest) -> Result<Arc<Job>, TooMany> {
        let mut jobs = lock(&self.jobs);
        abort(&jobs, &request.target);
        self.spawn(&mut jobs, JobOrigin::Operator, request)
    }

    /// The last id that was given.
    pub(in crate::server) fn latest_id(&self) -> u64 {
        self.latest_id.load(Ordering::Relaxed)
    }

    /// Gives ids above `id` only, from now on.
    pub(in crate::server) fn skip_ids_to(&self, id: u64) {
        self.latest_id.fetch_max(id, Ordering::Relaxed);
    }

    /// Goes on with a job of another process under its id, in place of those on the same target.
    /// `None`: it cannot.
    pub(in crate::server) fn go_on(&self, state: &JobState, target: JobTarget) -> Option<()> {
        let request = state.request(target)?;
        let mut jobs = lock(&self.jobs);
        if jobs.iter().any(|job| job.id == state.id) {
            return Some(());
        }
        abort(&jobs, &request.target);
        self.skip_ids_to(state.id);
        let job = Job::new(state.id, JobOrigin::Operator, request);
        let job = job.begun(state.started_at, state.ended);
        self.push(&mut jobs, job);
        Some(())
    }

    /// Starts a job of failover. `None` where the operator drains the backend, a job runs on it, or
    /// as many run as may.
    pub(in crate::server) fn start_for_health(
        &self,
        backend: &Arc<Backend>,
        pace: DrainRate,
        guard: Arc<FailoverGuard>,
        reason: EndReason,
    ) -> Option<Arc<Job>> {
        self.start_on(backend, pace, JobOrigin::Health(guard, reason))
    }

    /// Starts a job on a backend that discovery drains or does not list any more. `None` as of
    /// [`Jobs::start_for_health`].
    pub(in crate::server) fn start_for_discovery(
        &self,
        backend: &Arc<Backend>,
        pace: DrainRate,
    ) -> Option<Arc<Job>> {
        self.start_on(backend, pace, JobOrigin::Discovery)
    }

    fn start_on(
        &self,
        backend: &Arc<Backend>,
        pace: DrainRate,
        origin: JobOrigin,
    ) -> Option<Arc<Job>> {
        let mut jobs = lock(&self.jobs);
        let target = JobTarget::Backend(Arc::clone(backend));
        let is_on_it = |job: &Arc<Job>| job.target.is(&target) && job.is_running();
        // Read under the lock that `abort_automatic_of` takes after the operator's change: it
        // aborts a job that starts before the change.
        if jobs.iter().any(is_on_it) || backend.operator() != OperatorState::Ready {
            return None;
        }
        let request = JobRequest::drain(target, pace);
        self.spawn(&mut jobs, origin, request).ok()
    }

    fn spawn(
        &self,
        jobs: &mut VecDeque<Arc<Job>>,
        origin: JobOrigin,
        request: JobRequest,
    ) -> Result<Arc<Job>, TooMany> {
        let kind = discriminant(&origin);
        let is_alike = |job: &&Arc<Job>| discriminant(&job.origin) == kind;
        let running = jobs.iter().filter(is_alike).filter(|job| job.is_running());
        if running.count() >= MAX_RUNNING {
            return Err(TooMany);
        }
        // No client comes back to a backend that is down anyway.
        if !origin.is_health() {
            request.target.set_emptying(true);
        }
        let id = self.latest_id.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(self.push(jobs, Job::new(id, origin, request)))
    }

    /// Lists a job and runs it.
    fn push(&self, jobs: &mut VecDeque<Arc<Job>>, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        while jobs.len() >= ORIGINS * MAX_RUNNING + KEPT {
            let Some(oldest) = jobs.iter().position(|job| job.is_over()) else {
                break;
            };
            jobs.remove(oldest);
        }
        jobs.push_back(Arc::clone(&job));
        self.runtime
            .spawn(Arc::clone(&job).run(Arc::clone(&self.relay)));
        job
    }

    /// Aborts the jobs on that backend or listener; connections that are left stay.
    pub(crate) fn abort_of(&self, target: &JobTarget) {
        let jobs = lock(&self.jobs);
        abort(&jobs, target);
        target.set_emptying(false);
    }

    /// Aborts that job. `None`: there is no such job.
    pub(crate) fn abort(&self, id: u64) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        let job = jobs.iter().find(|job| job.id == id)?;
        if !job.is_over() {
            job.abort();
            let is_replaced = |later: &Arc<Job>| later.id > id && later.target.is(&job.target);
            if !jobs.iter().any(is_replaced) {
                job.target.set_emptying(false);
            }
        }
        Some(Arc::clone(job))
    }

    /// Aborts the jobs of failover and of discovery on that backend; those of the operator go on.
    pub(in crate::server) fn abort_automatic_of(&self, backend: &Arc<Backend>) {
        let jobs = lock(&self.jobs);
        let target = JobTarget::Backend(Arc::clone(backend));
        let is_meant = |job: &&Arc<Job>| job.target.is(&target) && !job.origin.is_operator();
        jobs.iter().filter(is_meant).for_each(|job| job.abort());
    }

    pub(crate) fn list(&self) -> Vec<Arc<Job>> {
        lock(&self.jobs).iter().cloned().collect()
    }

    pub(crate) fn find(&self, id: u64) -> Option<Arc<Job>> {
        lock(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    /// The job that runs on that backend or listener.
    pub(crate) fn of(&self, target: &JobTarget) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        let is_of = |job: &&Arc<Job>| job.target.is(target) && job.is_running();
        jobs.iter().rev().find(is_of).cloned()
    }
}

fn abort(jobs: &VecDeque<Arc<Job>>, target: &JobTarget) {
    for job in jobs.iter().filter(|job| job.target.is(target)) {
        job.abort();
    }
}
