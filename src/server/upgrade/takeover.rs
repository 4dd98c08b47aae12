//! The state that goes from a process to the next one: read here, and applied before the first
//! client comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{ProcessState, Totals};
use crate::observe::ListenerCounters;
use crate::pool::Pool;
use crate::proxy::{ListenerOrigin, StartState};
use crate::server::control::jobs::{JobState, JobTarget, TargetName};
use crate::server::state::Server;
use crate::server::status::ListenerState;
use crate::tls::TicketKeyState;

impl ProcessState {
    /// The state of `server` now.
    pub(super) fn of(server: &Server) -> ProcessState {
        let listeners = server.listeners().into_iter();
        let draining = listeners.filter(|one| one.state == ListenerState::Draining);
        let pools = server.pools().into_iter();
        let present = pools.filter(|pool| !server.is_removed(pool));
        ProcessState {
            pools: present
                .map(|pool| (pool.name().to_string(), pool.hand_over()))
                .collect(),
            draining: draining.map(|one| one.name).collect(),
            ticket_keys: TicketKeyState::of_process(),
            cluster: server.cluster_handover(),
            totals: Totals::of(server),
        }
    }
}

impl Server {
    /// Gives the pools of the first configuration the states that they had in the process before.
    /// Before their checks and lookups begin.
    pub(in crate::server) fn take_over_pools(&self, pools: &BTreeMap<String, Arc<Pool>>) {
        let Some(state) = self.upgrade.inherited() else {
            return;
        };
        for (name, pool) in pools {
            if let Some(state) = state.pools.get(name) {
                pool.take_over(state);
            }
        }
    }

    /// How a listener begins that was not there before in this process.
    pub(in crate::server) fn first_listener(&self, name: &str) -> ListenerOrigin<'static> {
        let state = self.upgrade.inherited();
        let is_draining = state.is_some_and(|state| state.draining.iter().any(|one| one == name));
        let state = if is_draining {
            StartState::Draining
        } else {
            StartState::Listening
        };
        ListenerOrigin::New(ListenerCounters::new(name, self.journal()), state)
    }

    /// Goes on with the counters and the jobs of the process before. Its state is not needed any
    /// more after this. Before the first scrape.
    pub(in crate::server) fn take_over_totals(&self) {
        if self.upgrade.forget_inherited().is_none() {
            return;
        }
        let totals = self.upgrade.latest_totals();
        totals.add_growth(&Totals::default(), self);
        for job in &totals.jobs {
            if self.go_on_with(job).is_none() {
                tracing::warn!(
                    job = job.id,
                    "a job of the process before cannot go on here"
                );
            }
        }
    }

    /// Goes on with a job of the other process. `None`: its target is not here.
    pub(super) fn go_on_with(&self, job: &JobState) -> Option<()> {
        let target = match &job.target {
            TargetName::Backend { pool, backend } => {
                JobTarget::Backend(self.pool(pool)?.backend(backend)?)
            }
            TargetName::Listener(name) => {
                let mut listeners = self.listeners().into_iter();
                let listener = listeners.find(|one| one.name == *name)?;
                JobTarget::Listener(listener.counters)
            }
            TargetName::Filter(filter) => JobTarget::Filter(Box::new(filter.filter()?)),
        };
        self.jobs().go_on(job, target)
    }
}
