//! The table of the sources of one listener: what each has open and how fast it comes.
//!
//! Attackers choose the keys, so the table is bounded, hashed by SipHash with keys of this process,
//! and cut into shards, each behind a lock of its own that is held for one look-up. An entry is
//! idle when nothing is open from its source. In a full shard idle entries that remember nothing go
//! first, then the one whose rate is forgotten soonest. Where none is idle the newcomer is let in
//! untracked (and counted): to close would let whoever fills the table lock everybody else out,
//! while the limits of the listener and of the process hold for the untracked, too.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::source_prefix::SourcePrefix;

/// A lock is held for a look-up of 50 ns: 256 of them are never a queue.
const SHARDS: usize = 256;
/// 65,536 sources in all, of about 100 bytes each; a full shard is swept in microseconds.
const MAX_PER_SHARD: usize = 256;

/// An entry of the table.
pub(super) trait Tracked {
    /// The time from which nothing is remembered of it; asked once it is idle.
    fn forgotten_at(&self) -> Duration;
}

pub(super) struct SourceTable<T> {
    hasher: RandomState,
    shards: Box<[Mutex<Shard<T>>]>,
}

type Shard<T> = HashMap<SourcePrefix, Arc<T>, RandomState>;

impl<T: Tracked> SourceTable<T> {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let shard = || Mutex::new(HashMap::with_hasher(hasher.clone()));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher,
        }
    }

    /// The entry of a source, a new one where there is none; `None` where there is no room for it.
    /// An entry is idle when only the table holds it.
    pub(super) fn entry(
        &self,
        source: SourcePrefix,
        now: Duration,
        new: impl FnOnce() -> T,
    ) -> Option<Arc<T>> {
        let number = self.hasher.hash_one(source) as usize % SHARDS;
        let shard = self.shards.get(number)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shard.get(&source) {
            return Some(Arc::clone(known));
        }
        if shard.len() >= MAX_PER_SHARD && !make_room(&mut shard, now) {
            return None;
        }
        let entry = Arc::new(new());
        shard.insert(source, Arc::clone(&entry));
        Some(entry)
    }

    /// Calls `look` with each source and its entry, a shard at a time under its lock.
    pub(super) fn each(&self, mut look: impl FnMut(SourcePrefix, &T)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard
                .iter()
                .for_each(|(source, entry)| look(*source, entry));
        }
    }

    /// Sources in the table.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}

fn make_room<T: Tracked>(shard: &mut Shard<T>, now: Duration) -> bool {
    // Only the table gives out entries, and its lock is held: an idle one stays so.
    let is_idle = |entry: &Arc<T>| Arc::strong_count(entry) == 1;
    shard.retain(|_, entry| !is_idle(entry) || entry.forgotten_at() > now);
    if shard.len() < MAX_PER_SHARD {
        return true;
    }
    let idle = shard.iter().filter(|(_, entry)| is_idle(entry));
    let soonest = idle.min_by_key(|(_, entry)| entry.forgotten_at());
    let soonest = soonest.map(|(source, _)| *source);
    soonest.is_some_and(|source| shard.remove(&source).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Duration);

    impl Tracked for Kept {
        fn forgotten_at(&self) -> Duration {
            self.0
        }
    }

    const NOW: Duration = Duration::from_secs(10);

    fn source(number: usize) -> SourcePrefix {
        SourcePrefix::V4((number as u32).to_be_bytes())
    }

    fn table() -> SourceTable<Kept> {
        SourceTable::new()
    }

    #[test]
    fn a_source_finds_its_own_entry_again() {
        let table = table();
        let first = table.entry(source(1), NOW, || Kept(NOW)).unwrap();
        let again = table
            .entry(source(1), NOW, || panic!("a second one"))
            .unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_those_with_connections_stay() {
        let table = table();
        let held = table.entry(source(0), NOW, || Kept(NOW)).unwrap();
        for number in 1..200_000 {
            assert!(table.entry(source(number), NOW, || Kept(NOW)).is_some());
        }
        assert!(table.len() <= SHARDS * MAX_PER_SHARD);
        let again = table
            .entry(source(0), NOW, || panic!("it was evicted"))
            .unwrap();
        assert!(Arc::ptr_eq(&held, &again));
    }

    #[test]
    fn the_entry_that_is_forgotten_soonest_goes_first() {
        let table = table();
        let at = |seconds: usize| Duration::from_secs(1_000 + seconds as u64);
        for number in 0..200_000 {
            table.entry(source(number), NOW, || Kept(at(number)));
        }
        let newest = table.entry(source(199_999), NOW, || panic!("the newest went"));
        assert!(newest.is_some());
        let mut old = false;
        table.entry(source(0), NOW, || {
            old = true;
            Kept(NOW)
        });
        assert!(old, "the oldest stayed");
    }

    #[test]
    fn where_no_source_is_idle_a_newcomer_is_not_tracked() {
        let table = table();
        let entries = (0..200_000).map(|number| table.entry(source(number), NOW, || Kept(NOW)));
        let held: Vec<_> = entries.flatten().collect();
        assert_eq!(held.len(), SHARDS * MAX_PER_SHARD);
        assert!(table.entry(source(200_001), NOW, || Kept(NOW)).is_none());
        drop(held);
        assert!(table.entry(source(200_001), NOW, || Kept(NOW)).is_some());
    }
}
