//! The state of a pool as it goes to the next process in an upgrade: what the operator has set, and
//! what checks, outlier detection, DNS and the slow start have learned. Instants become times from
//! now, since no two processes share them.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::backend_pool::Pool;
use super::clock::clock;
use super::discovered::{DiscoveredBackend, DiscoveryState};
use super::handed_state::{BackendStateRecord, FoundBackend, PoolState};
use super::handed_totals::{BackendTotals, PoolTotals};
use super::states::OperatorState;
use crate::config::{self, Address, InitState};
use crate::net::Endpoint;

impl Pool {
    /// The state for the next process.
    pub(crate) fn hand_over(&self) -> PoolState {
        let now = clock();
        let found = self.found().into_iter().map(FoundBackend::of);
        let records = |backends: Vec<Arc<Backend>>| {
            let records = backends.iter().map(|backend| backend.hand_over(now));
            records.collect()
        };
        PoolState {
            name: self.name().to_string(),
            found: found.collect(),
            backends: records(self.backends()),
            retired: records(self.retired()),
        }
    }

    /// Takes over the state that the process before has handed over. To be called before the pool
    /// serves. Backends of another name or address than there begin anew. Those that the
    /// configuration has no more, and that have connections there, are kept as after a reload.
    pub(crate) fn take_over(&self, state: &PoolState) {
        let found = state.found.iter().filter_map(FoundBackend::read);
        self.apply_discovered(found.collect());
        let now = clock();
        for record in state.backends.iter().chain(&state.retired) {
            if let Some(backend) = self.backend(&record.name) {
                backend.take_over(record, now);
            } else if let Some(settings) = record.removed() {
                let backend = self.add_retired(settings, now);
                backend.take_over(record, now);
                backend.status().discovery =
                    DiscoveryState::named(&record.discovery).unwrap_or(DiscoveryState::Ready);
                // Before its sessions come: one without any is forgotten.
                backend.set_elsewhere(record.live);
            }
        }
        self.recompute_view(now);
    }

    /// Counters, and how many connections its backends have.
    pub(crate) fn totals(&self) -> PoolTotals {
        let backends = self.backends().into_iter().chain(self.retired());
        let backends = backends.map(|backend| BackendTotals {
            name: backend.name().to_string(),
            values: backend.counters().values(),
            live: backend.live_before_next(),
        });
        PoolTotals {
            name: self.name().to_string(),
            values: self.counters().values(),
            times: self.times.totals(),
            backends: backends.collect(),
        }
    }

    /// The next process has ended, and the connections that it had are gone.
    pub(crate) fn forget_handed_over(&self) {
        for backend in self.backends().into_iter().chain(self.retired()) {
            backend.forget_handed_over();
        }
    }

    /// A connection of another process has moved here, where it counts by itself.
    pub(crate) fn moved_here(&self, backend: &str) {
        if let Some(backend) = self.backend(backend) {
            backend.forget_elsewhere();
        }
    }

    /// Adds what has grown in another process since `before`. Its live connections count here too:
    /// picks and limits see all that a backend has.
    pub(crate) fn add_growth(&self, before: Option<&PoolTotals>, now: &PoolTotals) {
        let none = PoolTotals::default();
        let before = before.unwrap_or(&none);
        self.counters().grow(&before.values, &now.values);
        self.times.grow(&before.times, &now.times);
        let nothing = BackendTotals::default();
        for totals in &now.backends {
            let Some(backend) = self.backend(&totals.name) else {
                continue;
            };
            let of_name = |one: &&BackendTotals| one.name == totals.name;
            let before = before.backends.iter().find(of_name).unwrap_or(&nothing);
            backend.counters().grow(&before.values, &totals.values);
            backend.set_elsewhere(totals.live);
        }
        // Retired there, and empty since.
        for gone in &before.backends {
            let is_left = now.backends.iter().any(|one| one.name == gone.name);
            if let Some(backend) = self.backend(&gone.name).filter(|_| !is_left) {
                backend.set_elsewhere(0);
            }
        }
    }
}

impl PoolTotals {
    /// Takes one out of what lives on a backend.
    pub(crate) fn forget_one(&mut self, backend: &str) {
        let mut backends = self.backends.iter_mut();
        if let Some(backend) = backends.find(|one| one.name == backend) {
            backend.live = backend.live.saturating_sub(1);
        }
    }

    /// The same without what lives: its process is gone.
    pub(crate) fn without_live(&self) -> PoolTotals {
        let mut totals = self.clone();
        for backend in &mut totals.backends {
            backend.live = 0;
        }
        totals
    }
}

impl FoundBackend {
    fn of(backend: DiscoveredBackend) -> FoundBackend {
        FoundBackend {
            name: backend.name,
            address: backend.address.to_string(),
            host: backend.host,
            weight: backend.weight,
            backup: backend.backup,
            max_connections: backend.max_connections,
            state: backend.state.as_str().to_owned(),
        }
    }

    fn read(&self) -> Option<DiscoveredBackend> {
        Some(DiscoveredBackend {
            name: self.name.clone(),
            address: self.address.parse().ok()?,
            host: self.host.clone(),
            weight: self.weight.min(256),
            backup: self.backup,
            max_connections: self.max_connections,
            state: DiscoveryState::named(&self.state)?,
        })
    }
}

impl BackendStateRecord {
    /// The settings of a backend that only ends its connections. `None`: it has none.
    fn removed(&self) -> Option<config::Backend> {
        Some(config::Backend {
            name: self.name.clone(),
            address: self.address.parse().ok().filter(|_| self.live > 0)?,
            weight: 1,
            max_connections: 0,
            backup: false,
            init_state: InitState::Up,
            host: None,
        })
    }
}

fn endpoint(text: &str) -> Option<Endpoint> {
    match text.parse().ok()? {
        Address::Tcp(address) => Some(Endpoint::Tcp(address)),
        Address::Unix(path) => Some(Endpoint::Unix(path)),
        Address::Name(..) => None,
    }
}

impl Backend {
    fn hand_over(&self, now: Instant) -> BackendStateRecord {
        let status = self.status();
        let mut record = BackendStateRecord {
            name: self.name().to_string(),
            address: status.settings().address.to_string(),
            endpoint: status.endpoint().map(ToString::to_string),
            discovery: status.discovery.as_str().to_owned(),
            live: self.live_before_next(),
            unanswering: self.is_unanswering(),
            ..BackendStateRecord::default()
        };
        status.hand_over(&mut record, now);
        record
    }

    fn take_over(&self, record: &BackendStateRecord, now: Instant) {
        let mut status = self.status();
        let state = operator(&record.operator);
        // Without the operator's drain it is of a job of discovery, which stays behind.
        let emptying = record.emptying && state != OperatorState::Ready;
        status.set_operator_settings(state, record.weight, emptying);
        if record.address != status.settings().address.to_string() {
            return;
        }
        let resolved = record.endpoint.as_deref().and_then(endpoint);
        status.take_over(record, resolved, now);
        self.note_failing(record.outlier.has_failures(), record.unanswering);
    }
}

/// An unknown word is a state that only a newer version has.
fn operator(word: &str) -> OperatorState {
    match word {
        "drain" => OperatorState::Drain,
        "maint" => OperatorState::Maint,
        _ => OperatorState::Ready,
    }
}
