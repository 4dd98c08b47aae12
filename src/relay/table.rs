//! The connection table of one worker: entries side by side in chunks, each slot with a generation, so that a stale event
//! never touches a new connection. The lowest free slot is taken first and a chunk that has become empty is given back:
//! after a storm the table is as small as what is left of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::session::Session;

/// Slots of one chunk: they fill 64 KiB, little beside what a process takes anyway, and a size that an allocator gives without
/// rounding it up.
const CHUNK: u32 = 264;
const _: () = {
    let left = (64 * 1024usize).checked_sub(CHUNK as usize * size_of::<Option<Session>>());
    assert!(matches!(left, Some(..256)), "a chunk wastes memory");
};

/// Names one entry for as long as it lives; never reused for another while anyone may still hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub index: u32,
    pub generation: u32,
}

pub(super) struct SessionTable {
    chunks: Vec<Chunk>,
    free: BinaryHeap<Reverse<u32>>,
}

struct Chunk {
    /// Outlives the entries: a key stays stale when its chunk was given back.
    generations: Box<[u32; CHUNK as usize]>,
    /// Empty while none is live.
    entries: Vec<Option<Session>>,
    live: u32,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: BinaryHeap::new(),
        }
    }
}

impl SessionTable {
    /// Reserves the key that the next [`Table::put`] fills.
    pub fn reserve(&mut self) -> SessionKey {
        if self.free.is_empty() {
            let first = self.slots();
            self.chunks.push(Chunk::new());
            self.free.extend((first..first + CHUNK).map(Reverse));
        }
        let index = self.free.pop().map_or(0, |Reverse(index)| index);
        let generation = self.generation(index).unwrap_or(0);
        SessionKey { index, generation }
    }

    pub fn put(&mut self, key: SessionKey, entry: Session) {
        if let Some(chunk) = self.chunks.get_mut((key.index / CHUNK) as usize) {
            chunk.put(key.index % CHUNK, entry);
        }
    }

    #[inline]
    pub fn entry(&mut self, key: SessionKey) -> Option<&mut Session> {
        let chunk = self.chunks.get_mut((key.index / CHUNK) as usize)?;
        let place = (key.index % CHUNK) as usize;
        if chunk.generations[place] != key.generation {
            return None;
        }
        chunk.entries.get_mut(place)?.as_mut()
    }

    /// Takes the entry out and makes its key stale.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.entry(key)?;
        let chunk = self.chunks.get_mut((key.index / CHUNK) as usize)?;
        self.free.push(Reverse(key.index));
        chunk.take(key.index % CHUNK)
    }

    /// Slots there are, free ones among them.
    pub fn slots(&self) -> u32 {
        self.chunks.len() as u32 * CHUNK
    }

    /// What stands at this index: `None` behind the last slot, `Some(None)` for a free one.
    pub fn slot(&mut self, index: u32) -> Option<Option<(SessionKey, &mut Session)>> {
        let chunk = self.chunks.get_mut((index / CHUNK) as usize)?;
        let place = (index % CHUNK) as usize;
        let key = SessionKey {
            index,
            generation: chunk.generations[place],
        };
        let entry = chunk.entries.get_mut(place).and_then(Option::as_mut);
        Some(entry.map(|entry| (key, entry)))
    }

    pub fn keys(&self) -> Vec<SessionKey> {
        let chunks = (0u32..).zip(&self.chunks);
        chunks
            .flat_map(|(number, chunk)| {
                let places = (0u32..).zip(&chunk.entries);
                places
                    .filter(|(_, entry)| entry.is_some())
                    .map(move |(place, _)| SessionKey {
                        index: number * CHUNK + place,
                        generation: chunk.generations[place as usize],
                    })
            })
            .collect()
    }

    fn generation(&self, index: u32) -> Option<u32> {
        let chunk = self.chunks.get((index / CHUNK) as usize)?;
        Some(chunk.generations[(index % CHUNK) as usize])
    }
}

impl Chunk {
    fn new() -> Self {
        Self {
            generations: Box::new([0; CHUNK as usize]),
            entries: Vec::new(),
            live: 0,
        }
    }

    fn put(&mut self, place: u32, entry: Session) {
        if self.entries.is_empty() {
            self.entries.reserve_exact(CHUNK as usize);
            self.entries.resize_with(CHUNK as usize, || None);
        }
        if let Some(slot) = self.entries.get_mut(place as usize) {
            self.live += u32::from(slot.is_none());
            *slot = Some(entry);
        }
    }

    fn take(&mut self, place: u32) -> Option<Session> {
        let taken = self.entries.get_mut(place as usize)?.take()?;
        let generation = &mut self.generations[place as usize];
        *generation = generation.wrapping_add(1) & SessionKey::GENERATION_MASK;
        self.live -= 1;
        if self.live == 0 {
            self.entries = Vec::new();
        }
        Some(taken)
    }
}

impl SessionKey {
    /// A token has 64 bits: 31 of generation, 32 of index, 1 for the leg.
    const GENERATION_MASK: u32 = 0x7fff_ffff;

    pub fn token(self, side: usize) -> usize {
        (self.generation as usize) << 33 | (self.index as usize) << 1 | side
    }

    pub fn from_token(token: usize) -> (Self, usize) {
        let key = Self {
            index: (token >> 1) as u32,
            generation: (token >> 33) as u32,
        };
        (key, token & 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_names_its_key_and_leg(index: u32, generation in 0u32..0x7fff_ffff, side in 0usize..2) {
            let key = SessionKey { index, generation };
            prop_assert_eq!(SessionKey::from_token(key.token(side)), (key, side));
        }
    }
}
