//! Membership of a pool: the configured backends and the discovered ones, found again by name; and
//! the view that follows from their states. All under the pool's writer lock; no pick waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::backend::{Backend, PoolLink};
use super::connection_counter::AdmitMode;
use super::discovered::{DiscoveredBackend, DiscoveryState};
use super::remembered::Remembered;
use super::standing::{Ramp, Rank};
use super::states::BackendState;
use super::status::BackendStatus;
use super::tier::{Candidate, Tier};
use super::transitions::Transition;
use super::view::View;
use crate::config::{self, Balance, OnDrain, WhenAllDown};

#[derive(Debug)]
pub(super) struct Members {
    link: PoolLink,
    settings: Arc<config::Pool>,
    /// The last snapshot of discovery, by name.
    found: Vec<DiscoveredBackend>,
    present: Vec<Arc<Backend>>,
    retired: Vec<Arc<Backend>>,
    /// Settings of backends that are neither present nor retired.
    remembered: Remembered,
    /// The whole pool was removed.
    gone: bool,
}

impl Members {
    /// Members at the start of the process, or of the pool: none needs a slow start.
    pub(super) fn new(link: PoolLink, settings: &config::Pool, now: Instant) -> Self {
        let mut members = Members {
            link,
            settings: Arc::new(settings.clone()),
            found: Vec::new(),
            present: Vec::new(),
            retired: Vec::new(),
            remembered: Remembered::default(),
            gone: false,
        };
        members.reconcile(false, now);
        members
    }

    /// Applies a reload's settings; false if they are the present ones.
    pub(super) fn configure(&mut self, settings: &config::Pool, now: Instant) -> bool {
        if *self.settings == *settings && !self.gone {
            return false;
        }
        self.settings = Arc::new(settings.clone());
        self.gone = false;
        if settings.discover.is_none() {
            self.found.clear();
        }
        self.reconcile(true, now);
        true
    }

    /// Applies a snapshot of discovery; false if it is the present one. An empty one changes
    /// nothing: no answer empties a pool.
    pub(super) fn discover(&mut self, mut found: Vec<DiscoveredBackend>, now: Instant) -> bool {
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        let unwanted = self.gone || self.settings.discover.is_none();
        if unwanted || found.is_empty() || found == self.found {
            return false;
        }
        let before = std::mem::replace(&mut self.found, found);
        let ramps = !self.present.is_empty();
        self.reconcile(ramps, now);
        for gone in &self.retired {
            if before.iter().any(|one| *one.name == **gone.name()) {
                gone.status().discovery = DiscoveryState::Absent;
            }
        }
        true
    }

    /// The last snapshot of discovery, by name.
    pub(super) fn found(&self) -> &[DiscoveredBackend] {
        &self.found
    }

    /// Adds a backend that only ends its connections.
    pub(super) fn add_retired(&mut self, settings: config::Backend, now: Instant) -> Arc<Backend> {
        let has_check = self.settings.check.is_some();
        let status = BackendStatus::new(settings, has_check, false, now);
        let backend = Backend::new(&self.link, status);
        backend.retire();
        self.retired.push(Arc::clone(&backend));
        backend
    }

    /// Retires every backend.
    pub(super) fn retire(&mut self, now: Instant) {
        self.gone = true;
        self.reconcile(true, now);
    }

    /// Whether the pool can do without `backend` for a while: never more than half of it is
    /// ejected, and never the last one that can be used.
    pub(super) fn can_spare(&self, backend: &Backend) -> bool {
        let is_ejected = |other: &Backend| other.status().outlier.is_ejected();
        let ejected = self.present.iter().filter(|other| is_ejected(other));
        let ejected_then = ejected.count() + 1;
        let belongs = |other: &&Arc<Backend>| std::ptr::eq(Arc::as_ptr(other), backend);
        let (same, others): (Vec<_>, Vec<_>) = self.present.iter().partition(belongs);
        let another = others.iter().any(|other| other.status().is_usable());
        !same.is_empty()
            && !is_ejected(backend)
            && another
            && ejected_then * 2 <= self.present.len()
    }

    /// Recomputes every state, and the view that follows.
    pub(super) fn view(&self, before: Option<&View>, now: Instant) -> (View, Vec<Transition>) {
        let mut transitions = self.settle(now);
        if self.readmit_if_none_usable(now) {
            transitions.extend(self.settle(now));
        }
        let waits = self.present.iter().flat_map(|backend| {
            let status = backend.status();
            [status.outlier.ends_at(), status.log_limit.summary_due_at()]
        });
        let view = View {
            settings: self.settings.clone(),
            present: self.present.clone(),
            retired: self.retired.clone(),
            refresh_at: waits.flatten().min(),
            tiers: self.tiers(before, now),
        };
        (view, transitions)
    }

    /// `slow_start`: it applies to the new ones.
    fn reconcile(&mut self, slow_start: bool, now: Instant) {
        let has_check = self.settings.check.is_some();
        let known = std::mem::take(&mut self.present).into_iter();
        let known = known.chain(std::mem::take(&mut self.retired));
        let mut known: BTreeMap<Arc<str>, Arc<Backend>> = known
            .map(|backend| (backend.name().clone(), backend))
            .collect();
        for (settings, discovery) in self.wanted() {
            let backend = match known.remove(settings.name.as_str()) {
                Some(backend) => {
                    backend.configure(settings, has_check);
                    backend.status().discovery = discovery;
                    backend
                }
                None => {
                    let mut status = BackendStatus::new(settings, has_check, slow_start, now);
                    status.discovery = discovery;
                    self.remembered.restore(&mut status);
                    Backend::new(&self.link, status)
                }
            };
            self.present.push(backend);
        }
        for backend in known.values() {
            backend.retire();
        }
        let (live, ended): (Vec<_>, Vec<_>) =
            known.into_values().partition(|backend| backend.live() > 0);
        ended
            .iter()
            .for_each(|backend| self.remembered.keep(backend));
        self.retired = live;
    }

    /// The configured backends, followed by the discovered ones of other names.
    fn wanted(&self) -> Vec<(config::Backend, DiscoveryState)> {
        if self.gone {
            return Vec::new();
        }
        let configured = &self.settings.backends;
        let names: BTreeSet<&str> = configured.iter().map(|one| one.name.as_str()).collect();
        let others = self.found.iter();
        let others = others.filter(|one| !names.contains(one.name.as_str()));
        let configured = configured
            .iter()
            .map(|one| (one.clone(), DiscoveryState::Ready));
        configured
            .chain(others.map(|one| (one.into(), one.state)))
            .collect()
    }

    fn settle(&self, now: Instant) -> Vec<Transition> {
        let all = self.present.iter().chain(&self.retired);
        all.filter_map(|backend| settle(backend, now)).collect()
    }

    /// Readmits ejected backends when no other can be used; true if there was one. Ejection is a
    /// guess, and to refuse all clients while one of them probes would cost more than failed
    /// connects.
    fn readmit_if_none_usable(&self, now: Instant) -> bool {
        if self.present.iter().any(|one| one.status().is_usable()) {
            return false;
        }
        let mut taken_back = false;
        for backend in &self.present {
            let mut status = backend.status();
            if status.state() == BackendState::Ejected && status.weight() > 0 {
                status.readmit_early(now);
                taken_back = true;
            }
        }
        taken_back
    }

    fn tiers(&self, before: Option<&View>, now: Instant) -> [Tier; 2] {
        let (backups, primaries): (Vec<_>, Vec<_>) =
            self.present.iter().partition(|one| one.backup());
        let old = before.map(|view| &view.tiers);
        let tries_down = self.tries_down();
        let tier = |rank, backends: Vec<&Arc<Backend>>, before| {
            let candidates = backends
                .into_iter()
                .map(|one| self.candidate(one, tries_down, now));
            Tier::new(rank, candidates.collect(), &self.settings, before, now)
        };
        [
            tier(Rank::Primary, primaries, old.map(|[first, _]| first)),
            tier(Rank::Backup, backups, old.map(|[_, second]| second)),
        ]
    }

    /// Whether backends that are down are tried: the settings say so, and none can be used but
    /// ejected ones that were readmitted early.
    fn tries_down(&self) -> bool {
        let serves = |one: &Arc<Backend>| {
            let status = one.status();
            status.is_usable() && !status.outlier.is_last_resort()
        };
        self.settings.when_all_down == WhenAllDown::Try && !self.present.iter().any(serves)
    }

    fn candidate(&self, backend: &Arc<Backend>, tries_down: bool, now: Instant) -> Candidate {
        let status = backend.status();
        let mode = self.admit_mode(&status, tries_down);
        let hashes = matches!(self.settings.balance, Balance::IpHash | Balance::Hash(_));
        let time = self.settings.slow_start;
        let from = status.ramp(now, time).filter(|_| !hashes);
        let (weight, ramp) = (status.weight(), from.map(|from| Ramp { from, time }));
        // Before the view is swapped: no pick from the old one enters a closed backend.
        backend.connections().set_mode(mode);
        backend.standing().set(weight, status.avoided, ramp);
        Candidate {
            backend: backend.clone(),
            weight,
            mode,
            ramp,
        }
    }

    fn admit_mode(&self, status: &BackendStatus, tries_down: bool) -> AdmitMode {
        let sticky = self.settings.sticky.as_ref();
        let keeps = sticky.is_some_and(|sticky| sticky.on_drain == OnDrain::Keep);
        if status.is_usable() {
            AdmitMode::Open
        } else if status.is_probed() {
            AdmitMode::Probe
        } else if tries_down && status.is_last_resort() {
            AdmitMode::LastResort
        } else if keeps && status.serves_returning() {
            AdmitMode::Returning
        } else {
            AdmitMode::Closed
        }
    }
}

/// Recomputes one state and returns what is to be logged.
fn settle(backend: &Backend, now: Instant) -> Option<Transition> {
    let mut status = backend.status();
    let from = status.settle(now);
    let suppressed = match from {
        Some(_) => {
            let changes = &backend.counters().state_changes;
            changes.fetch_add(1, Ordering::Relaxed);
            status.log_limit.allow(now)
        }
        None => status.log_limit.take_summary(now),
    }?;
    Some(Transition {
        pool: backend.pool().clone(),
        backend: backend.name().clone(),
        from: match from {
            Some(from) => status.word_before(from),
            None => status.state().as_str(),
        },
        to: status.state(),
        reason: status.reason().to_owned(),
        suppressed,
    })
}
