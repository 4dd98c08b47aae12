//! Facts about a leg, in one byte. A session that moves takes it along: no bit gets another
//! meaning.

/// A set of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    /// May have something to read: set by an event, cleared by a read that blocked.
    pub(super) const READABLE: Self = Self(1);
    /// May take something: set by an event, cleared by a write that blocked.
    pub(super) const WRITABLE: Self = Self(1 << 1);
    /// The kernel has announced a FIN; a short read is then not the last one.
    pub(super) const FIN_ANNOUNCED: Self = Self(1 << 2);
    /// The kernel has announced an error; a 0 from `recv` is then a RST, not a FIN.
    pub(super) const ERROR_ANNOUNCED: Self = Self(1 << 3);
    /// The connect was begun and is not done.
    pub(super) const CONNECTING: Self = Self(1 << 4);
    /// Bytes went in or out since it was last asked.
    pub(super) const ACTIVE: Self = Self(1 << 5);
    /// Urgent data was announced: a read stops before its mark, so that a short one is not the
    /// last.
    pub(super) const URGENT: Self = Self(1 << 6);
    /// Has the options that only a long life needs.
    pub(super) const LONG_LIVED: Self = Self(1 << 7);

    /// The bits of the set, which another process may read.
    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Any of them.
    pub(super) fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    pub(super) fn set(&mut self, flag: Self, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
