//! The connection table of one worker: slots with generations, so that a stale event never touches a new connection.

use super::entry::Entry;

/// Names one entry for as long as it lives; never reused for another while anyone may still hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub index: u32,
    pub generation: u32,
}

struct Slot {
    generation: u32,
    entry: Option<Box<Entry>>,
}

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Table {
    /// Reserves the key that the next [`Table::put`] fills.
    pub fn reserve(&mut self) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get(index as usize)
        {
            return Key {
                index,
                generation: slot.generation,
            };
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 0,
            entry: None,
        });
        Key {
            index,
            generation: 0,
        }
    }

    pub fn put(&mut self, key: Key, entry: Box<Entry>) {
        if let Some(slot) = self.slots.get_mut(key.index as usize) {
            slot.entry = Some(entry);
        }
    }

    pub fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.entry.as_deref_mut()
    }

    /// Takes the entry out and makes its key stale.
    pub fn remove(&mut self, key: Key) -> Option<Box<Entry>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1) & Key::GENERATION_MASK;
        self.free.push(key.index);
        slot.entry.take()
    }

    /// What stands at this index: `None` behind the last slot, `Some(None)` for a free one.
    pub fn slot(&mut self, index: u32) -> Option<Option<(Key, &mut Entry)>> {
        let slot = self.slots.get_mut(index as usize)?;
        let key = Key {
            index,
            generation: slot.generation,
        };
        Some(slot.entry.as_deref_mut().map(|entry| (key, entry)))
    }

    pub fn keys(&self) -> Vec<Key> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(index, slot)| Key {
                index: index as u32,
                generation: slot.generation,
            })
            .collect()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Entry)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(index, slot)| {
                let key = Key {
                    index: index as u32,
                    generation: slot.generation,
                };
                Some((key, slot.entry.as_deref_mut()?))
            })
    }
}

impl Key {
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
            let key = Key { index, generation };
            prop_assert_eq!(Key::from_token(key.token(side)), (key, side));
        }
    }

    #[test]
    fn a_removed_key_is_stale() {
        let mut table = Table::default();
        let key = table.reserve();
        table.remove(key);
        let next = table.reserve();
        assert_eq!(next.index, key.index);
        assert_ne!(next.generation, key.generation);
    }
}
