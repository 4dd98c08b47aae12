//! Backends of the clients that were here lately, by client. Bounded: the clients that have not
//! been here for longest are forgotten first, as far as two generations tell.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A lock is held for a look-up: with so many shards there is never a queue.
const SHARDS: usize = 16;
/// Clients in one generation of a shard. With two generations a pool remembers 131,072 clients, in
/// about 15 MB.
const MAX_PER_GENERATION: usize = 4_096;

/// What is remembered of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    /// `None`: the backend that the hash says.
    pub(super) backend: Option<Arc<str>>,
    /// When the client was here last.
    pub(super) seen_at: Duration,
    /// When the store was asked or told last.
    pub(super) told_at: Duration,
}

/// Clients by a hash of their keys.
#[derive(Debug)]
pub(super) struct Memory {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Remembered>,
    old: HashMap<u64, Remembered>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory {
            hasher: RandomState::new(),
            shards: [const { None }; SHARDS].map(|_: Option<()>| Mutex::default()),
        }
    }

    /// The key's place here: a hash under keys of this process, so that no client chooses it.
    pub(super) fn place(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The client of a place, unless it was last here before `since`.
    pub(super) fn find(&self, place: u64, since: Duration) -> Option<Remembered> {
        let shard = self.shard(place)?;
        let found = shard.young.get(&place).or_else(|| shard.old.get(&place));
        found.filter(|found| found.seen_at >= since).cloned()
    }

    pub(super) fn keep(&self, place: u64, client: Remembered) {
        let Some(mut shard) = self.shard(place) else {
            return;
        };
        if shard.young.len() >= MAX_PER_GENERATION && !shard.young.contains_key(&place) {
            shard.old = mem::take(&mut shard.young);
        }
        shard.young.insert(place, client);
    }

    fn shard(&self, place: u64) -> Option<MutexGuard<'_, Shard>> {
        let number = usize::try_from(place % SHARDS as u64).ok()?;
        let shard = self.shards.get(number)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(backend: &str, second: u64) -> Remembered {
        Remembered {
            backend: Some(backend.into()),
            seen_at: Duration::from_secs(second),
            told_at: Duration::ZERO,
        }
    }

    #[test]
    fn a_client_is_found_until_it_was_away_for_too_long() {
        let memory = Memory::new();
        let place = memory.place(b"192.0.2.7");
        assert_eq!(memory.find(place, Duration::ZERO), None);
        memory.keep(place, client("a", 10));
        memory.keep(place, client("b", 20));
        let found = |since| memory.find(place, Duration::from_secs(since));
        assert_eq!(found(20), Some(client("b", 20)));
        assert_eq!(found(21), None);
    }

    #[test]
    fn the_latest_clients_are_kept_and_no_more_than_may_be() {
        let memory = Memory::new();
        let most = 2 * SHARDS * MAX_PER_GENERATION;
        let places = 0..3 * most as u64;
        places
            .clone()
            .for_each(|place| memory.keep(place, client("a", 1)));
        let kept = places.filter(|place| memory.find(*place, Duration::ZERO).is_some());
        let kept: Vec<u64> = kept.collect();
        assert!(
            kept.len() <= most && kept.len() >= most / 2,
            "{}",
            kept.len()
        );
        assert!(kept.iter().all(|place| *place >= 2 * most as u64));
    }
}
