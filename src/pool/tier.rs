//! The primaries of a pool, or its backups: candidates in order, and the algorithm over them.
//!
//! No pick looks at all candidates. The algorithm's order follows the counts: a lease that is given
//! back, and each change of the pool, updates the backend's place in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::connection_counter::AdmitMode;
use super::lease::Lease;
use super::standing::{Ramp, Rank};
use crate::balance::{Class, Maglev, Node, Nodes, Pick, Picker};
use crate::config::{self, Balance};

/// Steps in which a weight grows, as far as the two bounds below allow.
const RAMP_STEPS: u32 = 64;
/// Bounds of the time between two steps: a step costs a look at each backend that grows, and one a
/// second is smooth enough for connections that last.
const SHORTEST_STEP: Duration = Duration::from_millis(20);
const LONGEST_STEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Tier {
    rank: Rank,
    candidates: Candidates,
    picker: Arc<Picker>,
    /// The picker is that of the tier before, too: no change of a count has missed it.
    keeps_picker: bool,
    balance: Balance,
    /// Candidates are also found by hash: the pool has affinity.
    is_keyed: bool,
    /// Candidates that serve any client.
    serving: usize,
    /// Indices of candidates that can be probed.
    probed: Vec<usize>,
    growth: Option<Growth>,
}

/// Candidates in the order of the pool; those of a hash by name.
#[derive(Debug)]
struct Candidates(Vec<Candidate>);

/// A backend that may be picked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) backend: Arc<Backend>,
    /// 0..=256
    pub(super) weight: u16,
    /// Which connections the backend's state admits.
    pub(super) mode: AdmitMode,
    /// `slow_start`, as long as the weight grows.
    pub(super) ramp: Option<Ramp>,
}

/// Candidates whose weight grows.
#[derive(Debug)]
struct Growth {
    places: Vec<usize>,
    step: Duration,
    /// When the next step is due; `None` once all have grown.
    due: Mutex<Option<Instant>>,
}

/// Which candidates a pick may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct TierPick<'a> {
    pub(super) hash: Option<u64>,
    pub(super) not: &'a [Arc<Backend>],
    /// Candidates that can be probed can be picked.
    pub(super) probes: bool,
}

impl Candidate {
    /// Whether the backend takes any client, as far as it has room.
    fn serves(&self) -> bool {
        matches!(self.mode, AdmitMode::Open | AdmitMode::LastResort)
    }

    /// Whether the weight has not reached its full value yet.
    pub(super) fn is_growing(&self, now: Instant) -> bool {
        self.ramp.is_some_and(|ramp| !ramp.is_over(now))
    }
}

impl Tier {
    /// Keeps the order, the round or the hash table of the tier `before` as far as it still fits.
    ///
    /// The states of the candidates must be set before. [`Tier::settle`] must follow once the view
    /// of the tier is in force.
    pub(super) fn new(
        rank: Rank,
        mut candidates: Vec<Candidate>,
        settings: &config::Pool,
        before: Option<&Tier>,
        now: Instant,
    ) -> Tier {
        let (balance, is_keyed) = (&settings.balance, settings.affinity.is_some());
        if matches!(balance, Balance::IpHash | Balance::Hash(_)) {
            // Where nearly all are out the order decides, and that of the file differs.
            candidates.sort_unstable_by(|a, b| a.backend.name().cmp(b.backend.name()));
        }
        let follows_loads = *balance == Balance::LeastConn;
        for (place, candidate) in candidates.iter().enumerate() {
            let standing = candidate.backend.standing();
            standing.set_place((rank, place), follows_loads);
        }
        let candidates = Candidates(candidates);
        let fits = |tier: &&Tier| tier.is_keyed == is_keyed && tier.fits(&candidates, balance);
        let kept = before.filter(fits);
        let picker = match kept {
            Some(tier) => tier.picker.clone(),
            None => {
                let picker = picker(&candidates, balance, before);
                Arc::new(if is_keyed {
                    picker.with_table(table(&candidates))
                } else {
                    picker
                })
            }
        };
        if kept.is_some() {
            // Before the view is swapped: a pick from the new one finds what has opened.
            picker.sync(&candidates);
        }
        let probed = candidates.0.iter().enumerate();
        let probed = probed.filter(|(_, candidate)| candidate.mode == AdmitMode::Probe);
        Tier {
            rank,
            serving: candidates.0.iter().filter(|one| one.serves()).count(),
            probed: probed.map(|(place, _)| place).collect(),
            growth: Growth::new(&candidates, now),
            keeps_picker: kept.is_some(),
            picker,
            balance: balance.clone(),
            is_keyed,
            candidates,
        }
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates.0
    }

    fn fits(&self, candidates: &Candidates, balance: &Balance) -> bool {
        let pairs = || self.candidates.0.iter().zip(&candidates.0);
        let same_nodes = self.candidates.count() == candidates.count()
            && pairs().all(|(old, new)| Arc::ptr_eq(&old.backend, &new.backend));
        // A table is of names and weights; which key of the connection is hashed does not matter.
        let same_weights = || pairs().all(|(old, new)| old.weight == new.weight);
        let same_algorithm = match (&self.balance, balance) {
            (Balance::IpHash | Balance::Hash(_), Balance::IpHash | Balance::Hash(_)) => {
                same_weights()
            }
            (old, new) => old == new && (!self.is_keyed || same_weights()),
        };
        same_nodes && same_algorithm
    }

    /// Takes over what has changed while the tier was made: connections came and went, and those
    /// updated the view before.
    pub(super) fn settle(&self) {
        if !self.keeps_picker {
            self.picker.sync(&self.candidates);
        }
    }

    /// Takes over the loads of all candidates, after an exchange of the cluster.
    pub(super) fn reorder(&self) {
        self.picker.sync(&self.candidates);
    }

    /// Updates the place of a backend in the order, if it has one here.
    pub(super) fn update(&self, backend: &Backend) {
        let (rank, place) = backend.standing().place();
        if rank == self.rank && self.is_at(place, backend) {
            self.picker.update(&self.candidates, place);
        }
    }

    /// `probes`: a candidate that can be probed will do.
    pub(super) fn is_usable(&self, not: &[Arc<Backend>], probes: bool) -> bool {
        let can_probe = || {
            let probed = self
                .probed
                .iter()
                .filter_map(|at| self.candidates.0.get(*at));
            let mut others = probed.filter(|one| !contains(not, &one.backend));
            others.any(|one| one.backend.connections().has_room())
        };
        self.serves(not) || probes && can_probe()
    }

    /// Whether a candidate that is not among these serves, with room or without.
    pub(super) fn serves(&self, not: &[Arc<Backend>]) -> bool {
        let is_serving =
            |place: &usize| self.candidates.0.get(*place).is_some_and(Candidate::serves);
        let tried = self.places(not);
        self.serving > tried.iter().filter(|place| is_serving(place)).count()
    }

    pub(super) fn has_room(&self, not: &[Arc<Backend>]) -> bool {
        let request = Pick {
            classes: &[Class::Serving, Class::Spared],
            without: &self.places(not),
            entropy: 0,
        };
        self.picker.has_any(&self.candidates, &request)
    }

    /// `None` when all are full.
    pub(super) fn take(&self, request: &TierPick<'_>, now: Instant) -> Option<Lease> {
        if let Some(growth) = &self.growth {
            growth.step(self, now);
        }
        let without = self.places(request.not);
        // Spared ones only where no other can.
        let classes: [&[Class]; 2] = if request.probes {
            [
                &[Class::Serving, Class::Probed],
                &[Class::Spared, Class::SparedProbed],
            ]
        } else {
            [&[Class::Serving], &[Class::Spared]]
        };
        let by_hash = self.is_keyed && request.hash.is_some();
        let take = |place: usize| Lease::take(&self.candidates.0.get(place)?.backend);
        classes.into_iter().find_map(|classes| {
            let request = Pick {
                classes,
                without: &without,
                entropy: request.hash.unwrap_or_else(|| fastrand::u64(..)),
            };
            if by_hash {
                return self.picker.take_by_hash(&self.candidates, &request, take);
            }
            self.picker.take(&self.candidates, &request, take)
        })
    }

    /// The candidate that a hash belongs to.
    pub(super) fn home(&self, hash: u64) -> Option<&Arc<Backend>> {
        let place = self.picker.home(hash)?;
        Some(&self.candidates.0.get(place)?.backend)
    }

    /// The indices of these backends, each once.
    fn places(&self, backends: &[Arc<Backend>]) -> Vec<usize> {
        let mut places: Vec<usize> = backends.iter().filter_map(|one| self.place(one)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    fn place(&self, backend: &Arc<Backend>) -> Option<usize> {
        let (rank, place) = backend.standing().place();
        if rank == self.rank && self.is_at(place, backend) {
            return Some(place);
        }
        // In the other tier, or the view is just being replaced. Only retries come here.
        let is_it = |one: &Candidate| Arc::ptr_eq(&one.backend, backend);
        self.candidates.0.iter().position(is_it)
    }

    fn is_at(&self, place: usize, backend: &Backend) -> bool {
        let candidate = self.candidates.0.get(place);
        candidate.is_some_and(|one| std::ptr::eq(Arc::as_ptr(&one.backend), backend))
    }
}

impl Growth {
    /// `None` when none grows.
    fn new(candidates: &Candidates, now: Instant) -> Option<Growth> {
        let growing = candidates.0.iter().enumerate();
        let growing = growing.filter(|(_, candidate)| candidate.is_growing(now));
        let places: Vec<usize> = growing.map(|(place, _)| place).collect();
        let times = places
            .iter()
            .filter_map(|place| candidates.0.get(*place)?.ramp);
        let shortest = times.map(|ramp| ramp.time).min()?;
        let step = (shortest / RAMP_STEPS).clamp(SHORTEST_STEP, LONGEST_STEP);
        Some(Growth {
            places,
            step,
            due: Mutex::new(now.checked_add(step)),
        })
    }

    /// Takes over the weights of the moment, if a step is due.
    fn step(&self, tier: &Tier, now: Instant) {
        {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            if due.is_none_or(|due| now < due) {
                return;
            }
            let places = || self.places.iter();
            let mut growing = places().filter_map(|place| tier.candidates.0.get(*place));
            let goes_on = growing.any(|candidate| candidate.is_growing(now));
            *due = now.checked_add(self.step).filter(|_| goes_on);
        }
        for place in &self.places {
            tier.picker.update(&tier.candidates, *place);
        }
    }
}

impl Nodes for Candidates {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn node(&self, index: usize) -> Node {
        let backend = self.0.get(index).map(|candidate| &candidate.backend);
        backend.map_or(NO_NODE, |backend| node(backend))
    }
}

const NO_NODE: Node = Node {
    class: Class::Serving,
    weight: 0,
    load: 0,
};

/// A backend as the algorithms see it.
fn node(backend: &Backend) -> Node {
    let (standing, counted) = (backend.standing(), backend.connections().facts());
    let class = match (standing.is_avoided(), counted.is_probed) {
        (false, false) => Class::Serving,
        (false, true) => Class::Probed,
        (true, false) => Class::Spared,
        (true, true) => Class::SparedProbed,
    };
    Node {
        class,
        weight: if counted.admits { standing.weight() } else { 0 },
        load: backend.cluster().estimate(counted.live),
    }
}

fn picker(candidates: &Candidates, balance: &Balance, before: Option<&Tier>) -> Picker {
    match balance {
        Balance::RoundRobin => round(candidates, before),
        Balance::LeastConn => Picker::least_conn(candidates),
        Balance::Random => Picker::random(candidates),
        Balance::IpHash | Balance::Hash(_) => Picker::hash(candidates, table(candidates)),
    }
}

/// The hash table of candidates, by their names and weights.
fn table(candidates: &Candidates) -> Maglev {
    let all = candidates.0.iter();
    Maglev::new(all.map(|one| (&**one.backend.name(), u32::from(one.weight))))
}

/// Continues the round of the tier before.
fn round(candidates: &Candidates, before: Option<&Tier>) -> Picker {
    let Some(before) = before else {
        return Picker::round_robin(candidates, None);
    };
    let key = |candidate: &Candidate| Arc::as_ptr(&candidate.backend);
    let old = before.candidates.0.iter().enumerate();
    let old: HashMap<_, _> = old.map(|(place, one)| (key(one), place)).collect();
    let place = |index: usize| old.get(&key(candidates.0.get(index)?)).copied();
    Picker::round_robin(candidates, Some((before.picker.as_ref(), &place)))
}

fn contains(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}
