//! What a pick sees: membership, weights and eligibility of one moment, swapped as one. Only counts are read live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balance::{Maglev, Nodes, Picker, RoundRobin};
use crate::config::{self, Balance};
use crate::pool::connection_counter::AdmitMode;
use crate::pool::{Backend, Lease};

/// Weights are multiplied by this, so that a ramp has steps even for a weight of 1.
const WEIGHT_SCALE: u32 = 256;

#[derive(Debug)]
pub(super) struct View {
    pub(super) settings: Arc<config::Pool>,
    /// In file order, discovered ones behind.
    pub(super) present: Vec<Arc<Backend>>,
    /// Removed; those without a connection are left out by who reads it.
    pub(super) retired: Vec<Arc<Backend>>,
    /// Primaries and backups.
    pub(super) tiers: [Tier; 2],
    /// When time alone changes something: the end of an ejection.
    pub(super) refresh_at: Option<Instant>,
}

/// What a connection wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct PickRequest<'a> {
    /// Of its key, for hash algorithms; `None` = any will do.
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
    /// One connection's backend, counted.
    ///
    /// Primaries that were not tried come first, then backups that were not tried, then, when every usable one was
    /// tried, the tried ones once more (one that refused a connection a moment ago is better than none).
    /// A full one is still usable: its tier is waited for, backups do not take its overflow. A connection that failed
    /// once probes an ejected backend only where no other one takes it: several dead ones must not use up its tries.
    pub(super) fn pick(&self, want: &PickRequest<'_>, now: Instant) -> Result<Lease, PickError> {
        let first = want.tried.is_empty();
        for (not, probes) in [(want.tried, first), (want.tried, true), (&[], true)] {
            for tier in self.tiers.iter().filter(|tier| tier.is_usable(not, probes)) {
                let probe = || tier.take(want.hash, not, true, now);
                match tier.take(want.hash, not, probes, now).or_else(probe) {
                    Some(lease) => return Ok(lease),
                    None if tier.serves(not) => return Err(PickError::Full),
                    // Others were quicker to take what this tier had, the place of a probe.
                    None => continue,
                }
            }
        }
        Err(PickError::NoBackend)
    }

    /// The slots of the tier that new connections go to.
    pub(super) fn in_use(&self) -> Option<&[Candidate]> {
        let mut tiers = self.tiers.iter();
        let tier = tiers.find(|tier| tier.serves(&[]))?;
        Some(&tier.candidates)
    }

    /// Whether one that is not among `tried` can be used.
    pub(super) fn has_other(&self, tried: &[Arc<Backend>]) -> bool {
        self.tiers.iter().any(|tier| tier.is_usable(tried, true))
    }

    /// Whether one that is not among `tried` serves and has room. A probe may fail as well.
    pub(super) fn has_room_elsewhere(&self, tried: &[Arc<Backend>]) -> bool {
        let mut tiers = self.tiers.iter();
        let tier = tiers.find(|tier| tier.serves(tried));
        tier.is_some_and(|tier| tier.has_room(tried))
    }
}

/// Primaries, or backups.
#[derive(Debug)]
pub(super) struct Tier {
    candidates: Vec<Candidate>,
    algorithm: Arc<Picker>,
    /// Some slot is relieved.
    has_avoided: bool,
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) backend: Arc<Backend>,
    /// 0..=256
    pub(super) weight: u16,
    /// Whom its state lets in.
    pub(super) mode: AdmitMode,
    /// Left out while another one can take the connection.
    pub(super) avoided: bool,
    /// `slow_start`, as long as its weight grows.
    pub(super) ramp: Option<Ramp>,
}

/// A weight that grows from nearly nothing to its full value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) from: Instant,
    pub(super) time: Duration,
}

impl Candidate {
    /// Its backend takes whoever comes, as far as there is room.
    fn serves(&self) -> bool {
        matches!(self.mode, AdmitMode::Open | AdmitMode::Try)
    }

    /// Its weight has not its full value yet.
    pub(super) fn grows(&self, now: Instant) -> bool {
        self.ramp
            .is_some_and(|ramp| now.saturating_duration_since(ramp.from) < ramp.time)
    }

    fn scaled_weight(&self, now: Instant) -> u32 {
        let full = u32::from(self.weight) * WEIGHT_SCALE;
        let Some(Ramp { from, time }) = self.ramp else {
            return full;
        };
        let passed = now.saturating_duration_since(from).as_secs_f64();
        let part = (passed / time.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
        ((f64::from(full) * part) as u32).clamp(full.min(1), full)
    }
}

impl Tier {
    /// Goes on with the turns or the table of the tier `before` as far as they still fit.
    pub(super) fn new(
        candidates: Vec<Candidate>,
        balance: &Balance,
        before: Option<&Tier>,
    ) -> Tier {
        let algorithm = match before {
            Some(tier) if tier.fits(&candidates, balance) => tier.algorithm.clone(),
            before => Arc::new(algorithm(&candidates, balance, before)),
        };
        let has_avoided = candidates.iter().any(|slot| slot.avoided);
        Tier {
            candidates,
            algorithm,
            has_avoided,
        }
    }

    fn fits(&self, slots: &[Candidate], balance: &Balance) -> bool {
        let same_nodes = self.candidates.len() == slots.len()
            && self
                .candidates
                .iter()
                .zip(slots)
                .all(|(old, new)| Arc::ptr_eq(&old.backend, &new.backend));
        match (&*self.algorithm, balance) {
            (Picker::RoundRobin(_), Balance::RoundRobin) => same_nodes,
            (Picker::LeastConn, Balance::LeastConn) => true,
            (Picker::Random, Balance::Random) => true,
            (Picker::Hash(_), Balance::IpHash | Balance::Hash(_)) => {
                let mut pairs = self.candidates.iter().zip(slots);
                same_nodes && pairs.all(|(old, new)| old.weight == new.weight)
            }
            _ => false,
        }
    }

    /// `probes`: one that waits to be probed will do.
    fn is_usable(&self, not: &[Arc<Backend>], probes: bool) -> bool {
        let may_probe = |slot: &Candidate| {
            let waits = slot.mode == AdmitMode::Probe && slot.backend.gate().has_room();
            waits && !contains(not, &slot.backend)
        };
        self.serves(not) || probes && self.candidates.iter().any(may_probe)
    }

    fn serves(&self, not: &[Arc<Backend>]) -> bool {
        let serves = |slot: &Candidate| slot.serves() && !contains(not, &slot.backend);
        self.candidates.iter().any(serves)
    }

    fn has_room(&self, not: &[Arc<Backend>]) -> bool {
        let mut others = self
            .candidates
            .iter()
            .filter(|slot| !contains(not, &slot.backend));
        others.any(|slot| slot.serves() && slot.backend.gate().has_room())
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
            slots: &self.candidates,
            not,
            probes,
            now,
            spares: self.has_avoided,
        };
        // A turn is lost only to another connection that took the last place of the picked backend, and the next
        // turn sees that one full.
        loop {
            let entropy = hash.unwrap_or_else(|| fastrand::u64(..));
            let index = match self.algorithm.pick(&choice, entropy) {
                None if choice.spares => {
                    choice.spares = false;
                    continue;
                }
                index => index?,
            };
            let slot = self.candidates.get(index)?;
            if let Some(lease) = Lease::take(&slot.backend) {
                return Some(lease);
            }
        }
    }
}

fn algorithm(slots: &[Candidate], balance: &Balance, before: Option<&Tier>) -> Picker {
    match balance {
        Balance::RoundRobin => Picker::RoundRobin(RoundRobin::carried(turns(slots, before))),
        Balance::LeastConn => Picker::LeastConn,
        Balance::Random => Picker::Random,
        Balance::IpHash | Balance::Hash(_) => {
            let named = slots
                .iter()
                .map(|slot| (&**slot.backend.name(), u32::from(slot.weight)));
            Picker::Hash(Maglev::new(named))
        }
    }
}

/// What each of `slots` had gained in the round of the tier before.
fn turns(slots: &[Candidate], before: Option<&Tier>) -> Vec<i64> {
    let old: Vec<(&Candidate, i64)> = match before {
        Some(tier) => match &*tier.algorithm {
            Picker::RoundRobin(turns) => tier.candidates.iter().zip(turns.gained()).collect(),
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let gained = |slot: &Candidate| {
        let mut old = old.iter();
        old.find(|(old, _)| Arc::ptr_eq(&old.backend, &slot.backend))
            .map_or(0, |(_, gained)| *gained)
    };
    slots.iter().map(gained).collect()
}

/// The slots as the algorithms see them: who cannot be picked now has the weight 0.
struct Choice<'a> {
    slots: &'a [Candidate],
    not: &'a [Arc<Backend>],
    /// Those that wait to be probed can be picked.
    probes: bool,
    now: Instant,
    /// Those that are relieved cannot be picked.
    spares: bool,
}

impl Choice<'_> {
    fn can_take(&self, slot: &Candidate) -> bool {
        let takes = slot.serves() || self.probes && slot.mode == AdmitMode::Probe;
        takes && slot.backend.gate().has_room() && !contains(self.not, &slot.backend)
    }
}

impl Nodes for Choice<'_> {
    fn count(&self) -> usize {
        self.slots.len()
    }

    fn weight(&self, index: usize) -> u32 {
        let Some(slot) = self.slots.get(index) else {
            return 0;
        };
        if !self.can_take(slot) || (self.spares && slot.avoided) {
            return 0;
        }
        slot.scaled_weight(self.now)
    }

    fn live(&self, index: usize) -> u64 {
        self.slots.get(index).map_or(0, |slot| slot.backend.live())
    }
}

fn contains(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}
