//! The connection table of one worker: sessions side by side in chunks, each slot with a
//! generation, so that a stale event never touches a new connection. The lowest free slot is taken
//! first and a chunk that has become empty is given back: after a storm the table is as small as
//! the sessions that are left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::key::SessionKey;
use super::session::Session;

/// Slots of one chunk: they fill 64 KiB, little beside the rest of a process, and a size that an
/// allocator gives without rounding it up.
const CHUNK: u32 = 264;
const _: () = {
    let left = (64 * 1024usize).checked_sub(CHUNK as usize * size_of::<Option<Session>>());
    assert!(matches!(left, Some(..256)), "a chunk wastes memory");
};

/// Sessions of one worker.
#[derive(Default)]
pub(super) struct SessionTable {
    chunks: Vec<Chunk>,
    free: BinaryHeap<Reverse<u32>>,
}

struct Chunk {
    /// Outlives the sessions: a key stays stale when its chunk was given back.
    generations: Box<[u32; CHUNK as usize]>,
    /// Empty while none is live.
    sessions: Vec<Option<Session>>,
    live: u32,
}

impl SessionTable {
    /// Reserves the key that the next [`SessionTable::put`] fills.
    pub(super) fn reserve(&mut self) -> SessionKey {
        if self.free.is_empty() {
            let first = self.slots();
            self.chunks.push(Chunk::new());
            self.free.extend((first..first + CHUNK).map(Reverse));
        }
        let index = self.free.pop().map_or(0, |Reverse(index)| index);
        let generation = self.generation(index).unwrap_or(0);
        SessionKey { index, generation }
    }

    pub(super) fn put(&mut self, key: SessionKey, session: Session) {
        if let Some(chunk) = self.chunks.get_mut((key.index / CHUNK) as usize) {
            chunk.put(key.index % CHUNK, session);
        }
    }

    /// Gives up a reserved key that no session has filled, and makes it stale.
    pub(super) fn release(&mut self, key: SessionKey) {
        if let Some(chunk) = self.chunks.get_mut((key.index / CHUNK) as usize) {
            chunk.make_stale(key.index % CHUNK);
            self.free.push(Reverse(key.index));
        }
    }

    #[inline]
    pub(super) fn get(&mut self, key: SessionKey) -> Option<&mut Session> {
        let chunk = self.chunks.get_mut((key.index / CHUNK) as usize)?;
        let slot = (key.index % CHUNK) as usize;
        if chunk.generations[slot] != key.generation {
            return None;
        }
        chunk.sessions.get_mut(slot)?.as_mut()
    }

    /// Takes the session out and makes its key stale.
    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.get(key)?;
        let chunk = self.chunks.get_mut((key.index / CHUNK) as usize)?;
        self.free.push(Reverse(key.index));
        chunk.take(key.index % CHUNK)
    }

    /// Slots there are, free ones among them.
    pub(super) fn slots(&self) -> u32 {
        self.chunks.len() as u32 * CHUNK
    }

    /// The slot at this index: `None` behind the last slot, `Some(None)` for a free one.
    pub(super) fn slot(&mut self, index: u32) -> Option<Option<(SessionKey, &mut Session)>> {
        let chunk = self.chunks.get_mut((index / CHUNK) as usize)?;
        let slot = (index % CHUNK) as usize;
        let key = SessionKey {
            index,
            generation: chunk.generations[slot],
        };
        let session = chunk.sessions.get_mut(slot).and_then(Option::as_mut);
        Some(session.map(|session| (key, session)))
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        let chunks = (0u32..).zip(&self.chunks);
        chunks
            .flat_map(|(number, chunk)| {
                let slots = (0u32..).zip(&chunk.sessions);
                slots
                    .filter(|(_, session)| session.is_some())
                    .map(move |(slot, _)| SessionKey {
                        index: number * CHUNK + slot,
                        generation: chunk.generations[slot as usize],
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
            sessions: Vec::new(),
            live: 0,
        }
    }

    fn put(&mut self, slot: u32, session: Session) {
        if self.sessions.is_empty() {
            self.sessions.reserve_exact(CHUNK as usize);
            self.sessions.resize_with(CHUNK as usize, || None);
        }
        if let Some(free) = self.sessions.get_mut(slot as usize) {
            self.live += u32::from(free.is_none());
            *free = Some(session);
        }
    }

    fn make_stale(&mut self, slot: u32) {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1) & SessionKey::GENERATION_MASK;
    }

    fn take(&mut self, slot: u32) -> Option<Session> {
        let taken = self.sessions.get_mut(slot as usize)?.take()?;
        self.make_stale(slot);
        self.live -= 1;
        if self.live == 0 {
            self.sessions = Vec::new();
        }
        Some(taken)
    }
}
