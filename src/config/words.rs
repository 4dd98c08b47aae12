//! Closed sets whose members have a word each in the file. `flags!` declares sets of them.

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

/// Declares an enum whose members have a word each.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        $vis:vis enum $Name:ident {
            $($(#[doc = $member_doc:literal])* $Member:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $Name {
            $($(#[doc = $member_doc])* $Member,)+
        }

        impl $crate::config::Word for $Name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $Name::$Member)),+];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminRole, HttpReuse, LogLevel, OnDown, Protocol, RedisRole, TlsVersion};

    fn each_word_finds_its_member<T: Word + std::fmt::Debug>() {
        for (word, member) in T::WORDS {
            assert_eq!(T::of(word), Some(*member));
            assert_eq!(member.word(), *word);
        }
    }

    #[test]
    fn words_and_members_are_one_to_one() {
        each_word_finds_its_member::<LogLevel>();
        each_word_finds_its_member::<Protocol>();
        each_word_finds_its_member::<OnDown>();
        each_word_finds_its_member::<TlsVersion>();
        each_word_finds_its_member::<RedisRole>();
        each_word_finds_its_member::<AdminRole>();
        each_word_finds_its_member::<HttpReuse>();
    }
}
