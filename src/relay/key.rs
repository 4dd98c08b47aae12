//! Names of live sessions.

/// Names one session inside its worker for as long as it lives; never reused for another while
/// anyone may still hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub index: u32,
    pub generation: u32,
}

/// Names a live session without a search for it. One that is gone is not taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Handle {
    pub(super) worker: u32,
    pub(super) key: SessionKey,
}

/// The index in the tokens of listeners, of which no table has so many slots.
const LISTENERS: u32 = u32::MAX;

impl SessionKey {
    /// A token has 64 bits: 31 of generation, 32 of index, 1 for the leg.
    pub(super) const GENERATION_MASK: u32 = 0x7fff_ffff;

    /// The key in the tokens of a listener, whose number stands in place of the generation.
    pub(super) fn of_listener(number: u32) -> SessionKey {
        SessionKey {
            index: LISTENERS,
            generation: number,
        }
    }

    /// The number of the listener that it names.
    pub(super) fn listener(self) -> Option<u32> {
        (self.index == LISTENERS).then_some(self.generation)
    }

    pub(super) fn token(self, side: usize) -> usize {
        (self.generation as usize) << 33 | (self.index as usize) << 1 | side
    }

    pub(super) fn from_token(token: usize) -> (Self, usize) {
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
