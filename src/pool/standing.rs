//! Facts of a backend that a pick goes by, beside its connections: readable without its lock, and
//! the same for every view. Only a change of the pool writes them.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock::clock;

/// Weights are multiplied by this, so that a ramp has steps even for a weight of 1.
const WEIGHT_SCALE: u32 = 256;

/// Significant bits of a weight that grows. The algorithms cost by the count of different weights:
/// so there are at most 600, however many backends grow, and each is right to 3 %.
const RAMP_BITS: u32 = 6;

/// A weight that grows from nearly nothing to its full value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) from: Instant,
    pub(super) time: Duration,
}

impl Ramp {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.from) >= self.time
    }

    /// The part of `full`, which is above 0, that is reached at `now`.
    fn part_of(&self, full: u32, now: Instant) -> u32 {
        if self.is_over(now) {
            return full;
        }
        let passed = now.saturating_duration_since(self.from).as_secs_f64();
        let part = (f64::from(full) * passed / self.time.as_secs_f64()) as u32;
        let dropped = (u32::BITS - part.leading_zeros()).saturating_sub(RAMP_BITS);
        (part >> dropped << dropped).clamp(1, full)
    }
}

/// The two tiers of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Primary,
    Backup,
}

#[derive(Debug, Default)]
pub(super) struct Standing {
    /// 0..=256
    weight: AtomicU16,
    /// Left out while another backend can take the connection.
    avoided: AtomicBool,
    /// Whether there is a ramp: others need no lock.
    grows: AtomicBool,
    ramp: Mutex<Option<Ramp>>,
    /// Whether its place in the order depends on its count of connections.
    follows_load: AtomicBool,
    is_backup: AtomicBool,
    /// Index among the candidates of its tier in the newest view.
    place: AtomicUsize,
}

impl Standing {
    pub(super) fn set(&self, weight: u16, avoided: bool, ramp: Option<Ramp>) {
        self.weight.store(weight, SeqCst);
        self.avoided.store(avoided, SeqCst);
        *self.ramp.lock().unwrap_or_else(PoisonError::into_inner) = ramp;
        self.grows.store(ramp.is_some(), SeqCst);
    }

    pub(super) fn is_avoided(&self) -> bool {
        self.avoided.load(SeqCst)
    }

    /// The weight of the moment, scaled; 0 only for a weight of 0.
    pub(super) fn weight(&self) -> u32 {
        let full = u32::from(self.weight.load(SeqCst)) * WEIGHT_SCALE;
        if full == 0 || !self.grows.load(SeqCst) {
            return full;
        }
        let ramp = *self.ramp.lock().unwrap_or_else(PoisonError::into_inner);
        ramp.map_or(full, |ramp| ramp.part_of(full, clock()))
    }

    pub(super) fn follows_load(&self) -> bool {
        self.follows_load.load(SeqCst)
    }

    pub(super) fn place(&self) -> (Rank, usize) {
        let rank = if self.is_backup.load(SeqCst) {
            Rank::Backup
        } else {
            Rank::Primary
        };
        (rank, self.place.load(SeqCst))
    }

    pub(super) fn set_place(&self, (rank, place): (Rank, usize), follows_load: bool) {
        self.is_backup.store(rank == Rank::Backup, SeqCst);
        self.place.store(place, SeqCst);
        self.follows_load.store(follows_load, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_growing_weight_rises_to_its_full_value_in_few_steps() {
        let from = Instant::now();
        let ramp = Ramp {
            from,
            time: Duration::from_secs(1000),
        };
        for full in [256, 7 * 256, 256 * 256] {
            let at = |second| ramp.part_of(full, from + Duration::from_secs(second));
            let weights: Vec<u32> = (0..=1000).map(at).collect();
            assert!(weights.is_sorted());
            assert_eq!((weights[0], weights[1000]), (1, full));
            let half = f64::from(weights[500]) / f64::from(full);
            assert!((0.48..=0.5).contains(&half), "{half} of {full}");
            assert!(weights.iter().collect::<BTreeSet<_>>().len() <= 600);
        }
    }
}
