//! The data that a pick reads: membership, weights and eligibility of one moment, swapped as one.
//! Counts are read live.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::lease::Lease;
use super::tier::{Candidate, Tier, TierPick};
use crate::config;

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
    /// Hash of the connection's key, for hash algorithms, and where affinity needs one; `None`: any
    /// backend will do.
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
                let hash = request.hash;
                let take = |probes| tier.take(&TierPick { hash, not, probes }, now);
                match take(probes).or_else(|| take(true)) {
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
        Some(tier.candidates())
    }

    /// The primary that a hash belongs to, in whatever state it is.
    pub(super) fn home(&self, hash: u64) -> Option<&Arc<Backend>> {
        let [primaries, _] = &self.tiers;
        primaries.home(hash)
    }

    /// Takes over the changes of counts that were made while the view was made.
    pub(super) fn settle(&self) {
        self.tiers.iter().for_each(Tier::settle);
    }

    /// Orders the picks by the present loads.
    pub(super) fn reorder(&self) {
        self.tiers.iter().for_each(Tier::reorder);
    }

    /// Updates the place of a backend in the order of picks, after a change of its count.
    pub(super) fn update(&self, backend: &Backend) {
        self.tiers.iter().for_each(|tier| tier.update(backend));
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
