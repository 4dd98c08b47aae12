//! The data that a pick reads: membership, weights and eligibility of one moment, swapped as one.
//! Only counts are read live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::connection_counter::AdmitMode;
use super::lease::Lease;
use crate::balance::{Maglev, Nodes, Picker, RoundRobin};
use crate::config::{self, Balance};

/// Weights are multiplied by this, so that a ramp has steps even for a weight of 1.
const WEIGHT_SCALE: u32 = 256;

#[derive(Debug)]
pub(super) struct View {
    pub(super) settings: Arc<config::Pool>,
    /// In file order; discovered ones follow.
    pub(super) present: Vec<Arc<Backend>>,
    /// Removed; readers skip those without a connection.
    pub(super) retired: Vec<Arc<Backend>>,
    /// Primaries and backups.
    pub(super) tiers: [Tier; 2],
    /// When time alone changes something: the end of an ejection.
    pub(super) refresh_at: Option<Instant>,
}

/// A request for a pick.
#[derive(Debug, Clone, Copy)]
pub(super) struct PickRequest<'a> {
    /// Hash of the connection's key, for hash algorithms; `None` = any backend will do.
    pub(super) hash: Option<u64>,
    pub(super) tried: &'a [Arc<Backend>],
}

/// Why there was no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PickError {
    NoBackend,
    Full,
}

impl View {
    /// Picks a backend and counts the connection.
    ///
    /// Primaries that were not tried come first, then backups that were not tried, then, when every
    /// usable one was tried, the tried ones once more (one that refused a connection a moment ago
    /// is better than none). A full one is still usable: its tier is waited for, backups do not
    /// take its overflow. A connection that failed once probes an ejected backend only where no
    /// other one takes it: several dead ones must not use up its tries.
    pub(super) fn pick(&self, request: &PickRequest<'_>, now: Instant) -> Result<Lease, PickError> {
        let first = request.tried.is_empty();
        for (not, probes) in [(request.tried, first), (request.tried, true), (&[], true)] {
            for tier in self.tiers.iter().filter(|tier| tier.is_usable(not, probes)) {
                let probe = || tier.take(request.hash, not, true, now);
                match tier.take(request.hash, not, probes, now).or_else(probe) {
                    Some(lease) => return Ok(lease),
                    None if tier.serves(not) => return Err(PickError::Full),
                    // Other connections were quicker to take what this tier had, such as its probe.
                    None => continue,
                }
            }
        }
        Err(PickError::NoBackend)
    }

    /// The candidates of the tier that new connections go to.
    pub(super) fn in_use(&self) -> Option<&[Candidate]> {
        let mut tiers = self.tiers.iter();
        let tier = tiers.find(|tier| tier.serves(&[]))?;
        Some(&tier.candidates)
    }

    /// Whether a backend that is not among `tried` can be used.
    pub(super) fn has_other(&self, tried: &[Arc<Backend>]) -> bool {
        self.tiers.iter().any(|tier| tier.is_usable(tried, true))
    }

    /// Whether a backend that is not among `tried` serves and has room. A probe does not count: it
    /// may fail as well.
    pub(super) fn has_room_elsewhere(&self, tried: &[Arc<Backend>]) -> bool {
        let mut tiers = self.tiers.iter();
        let tier = tiers.find(|tier| tier.serves(tried));
        tier.is_some_and(|tier| tier.has_room(tried))
    }
}

/// The primaries, or the backups.
#[derive(Debug)]
pub(super) struct Tier {
    candidates: Vec<Candidate>,
    algorithm: Arc<Picker>,
    /// Some candidate is avoided.
    has_avoided: bool,
}

/// A backend that may be picked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) backend: Arc<Backend>,
    /// 0..=256
    pub(super) weight: u16,
    /// Which connections the backend's state admits.
    pub(super) mode: AdmitMode,
    /// Left out while another candidate can take the connection.
    pub(super) avoided: bool,
    /// `slow_start`, as long as the weight grows.
    pub(super) ramp: Option<Ramp>,
}

/// A weight that grows from nearly nothing to its full value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) from: Instant,
    pub(super) time: Duration,
}

impl Candidate {
    /// Whether the backend takes any client, as far as it has room.
    fn serves(&self) -> bool {
        matches!(self.mode, AdmitMode::Open | AdmitMode::LastResort)
    }

    /// Whether the weight has not reached its full value yet.
    pub(super) fn is_growing(&self, now: Instant) -> bool {
        self.ramp
            .is_some_and(|ramp| now.saturating_duration_since(ramp.from) < ramp.time)
    }

    fn scaled_weight(&self, now: Instant) -> u32 {
        let full = u32::from(self.weight) * WEIGHT_SCALE;
        let Some(Ramp { from, time }) = self.ramp else {
            return full;
        };
        let passed = now.saturating_duration_since(from).as_secs_f64();
        let progress = (passed / time.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
        ((f64::from(full) * progress) as u32).clamp(full.min(1), full)
    }
}

impl Tier {
    /// Keeps the round or the hash table of the tier `before` as far as it still fits.
    pub(super) fn new(
        candidates: Vec<Candidate>,
        balance: &Balance,
        before: Option<&Tier>,
    ) -> Tier {
        let algorithm = match before {
            Some(tier) if tier.fits(&candidates, balance) => tier.algorithm.clone(),
            before => Arc::new(algorithm(&candidates, balance, before)),
        };
        let has_avoided = candidates.iter().any(|candidate| candidate.avoided);
        Tier {
            candidates,
            algorithm,
            has_avoided,
        }
    }

    fn fits(&self, candidates: &[Candidate], balance: &Balance) -> bool {
        let same_nodes = self.candidates.len() == candidates.len()
            && self
                .candidates
                .iter()
                .zip(candidates)
                .all(|(old, new)| Arc::ptr_eq(&old.backend, &new.backend));
        match (&*self.algorithm, balance) {
            (Picker::RoundRobin(_), Balance::RoundRobin) => same_nodes,
            (Picker::LeastConn, Balance::LeastConn) => true,
            (Picker::Random, Balance::Random) => true,
            (Picker::Hash(_), Balance::IpHash | Balance::Hash(_)) => {
                let mut pairs = self.candidates.iter().zip(candidates);
                same_nodes && pairs.all(|(old, new)| old.weight == new.weight)
            }
            _ => false,
        }
    }

    /// `probes`: a candidate that can be probed will do.
    fn is_usable(&self, not: &[Arc<Backend>], probes: bool) -> bool {
        let may_probe = |candidate: &Candidate| {
            let waits =
                candidate.mode == AdmitMode::Probe && candidate.backend.connections().has_room();
            waits && !contains(not, &candidate.backend)
        };
        self.serves(not) || probes && self.candidates.iter().any(may_probe)
    }

    fn serves(&self, not: &[Arc<Backend>]) -> bool {
        let serves =
            |candidate: &Candidate| candidate.serves() && !contains(not, &candidate.backend);
        self.candidates.iter().any(serves)
    }

    fn has_room(&self, not: &[Arc<Backend>]) -> bool {
        let mut others = self
            .candidates
            .iter()
            .filter(|candidate| !contains(not, &candidate.backend));
        others.any(|candidate| candidate.serves() && candidate.backend.connections().has_room())
    }

    /// `None` when all are full.
    fn take(
        &self,
        hash: Option<u64>,
        not: &[Arc<Backend>],
        probes: bool,
        now: Instant,
    ) -> Option<Lease> {
        let mut choice = Choice {
            candidates: &self.candidates,
            not,
            probes,
            now,
            skips_avoided: self.has_avoided,
        };
        // A pick is lost only to a connection that took the last place of the backend, and the next
        // pick sees that one full.
        loop {
            let entropy = hash.unwrap_or_else(|| fastrand::u64(..));
            let index = match self.algorithm.pick(&choice, entropy) {
                None if choice.skips_avoided => {
                    choice.skips_avoided = false;
                    continue;
                }
                index => index?,
            };
            let candidate = self.candidates.get(index)?;
            if let Some(lease) = Lease::take(&candidate.backend) {
                return Some(lease);
            }
        }
    }
}

fn algorithm(candidates: &[Candidate], balance: &Balance, before: Option<&Tier>) -> Picker {
    match balance {
        Balance::RoundRobin => Picker::RoundRobin(RoundRobin::carried(gains(candidates, before))),
        Balance::LeastConn => Picker::LeastConn,
        Balance::Random => Picker::Random,
        Balance::IpHash | Balance::Hash(_) => {
            let named = candidates
                .iter()
                .map(|candidate| (&**candidate.backend.name(), u32::from(candidate.weight)));
            Picker::Hash(Maglev::new(named))
        }
    }
}

/// The gains of each of `candidates` in the round of the tier before.
fn gains(candidates: &[Candidate], before: Option<&Tier>) -> Vec<i64> {
    let old: Vec<(&Candidate, i64)> = match before {
        Some(tier) => match &*tier.algorithm {
            Picker::RoundRobin(round) => tier.candidates.iter().zip(round.gained()).collect(),
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let gained = |candidate: &Candidate| {
        let mut old = old.iter();
        old.find(|(old, _)| Arc::ptr_eq(&old.backend, &candidate.backend))
            .map_or(0, |(_, gained)| *gained)
    };
    candidates.iter().map(gained).collect()
}

/// The candidates as the algorithms see them: one that cannot be picked now has the weight 0.
struct Choice<'a> {
    candidates: &'a [Candidate],
    not: &'a [Arc<Backend>],
    /// Candidates that can be probed can be picked.
    probes: bool,
    now: Instant,
    /// Avoided candidates cannot be picked.
    skips_avoided: bool,
}

impl Choice<'_> {
    fn can_take(&self, candidate: &Candidate) -> bool {
        let takes = candidate.serves() || self.probes && candidate.mode == AdmitMode::Probe;
        takes
            && candidate.backend.connections().has_room()
            && !contains(self.not, &candidate.backend)
    }
}

impl Nodes for Choice<'_> {
    fn count(&self) -> usize {
        self.candidates.len()
    }

    fn weight(&self, index: usize) -> u32 {
        let Some(candidate) = self.candidates.get(index) else {
            return 0;
        };
        if !self.can_take(candidate) || (self.skips_avoided && candidate.avoided) {
            return 0;
        }
        candidate.scaled_weight(self.now)
    }

    fn live(&self, index: usize) -> u64 {
        self.candidates
            .get(index)
            .map_or(0, |candidate| candidate.backend.live())
    }
}

fn contains(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}
