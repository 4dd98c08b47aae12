//! Closed sets whose members have a word each in the file; `words!` declares them.

/// A closed set whose members have a word each.
pub trait Word: Copy + PartialEq + 'static {
    /// Every member with its word; never empty.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this member.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, member)| *member == self);
        found.map_or("", |(word, _)| word)
    }

    /// The member of a word.
    fn of(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, member)| *member)
    }
}

/// All words of a set.
pub(super) fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}
