//! Tags of sessions: names that the operator knows a session by, such as its user.
//!
//! A session keeps at most 64 bytes. A longer tag is kept as its beginning and a hash of the whole,
//! so that one user's sessions are never taken for another's.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::cut::cut;

/// Longest tag that is kept whole: the id of a user, or a token of a session.
const MAX_BYTES: usize = 64;
/// Bytes of the SHA-256 of a tag: enough that no two look alike.
const HASH_BYTES: usize = 8;
/// Separator between the beginning of a long tag and its hash.
const SEPARATOR: char = '~';
/// Length of the beginning of a long tag.
const BEGINNING_BYTES: usize = MAX_BYTES - 2 * HASH_BYTES - 1;

/// Shortens `tag` as a session keeps it, to at most 64 bytes; a shortened tag stays as it is.
pub(crate) fn kept_tag(tag: &str) -> Cow<'_, str> {
    if tag.len() <= MAX_BYTES {
        Cow::Borrowed(tag)
    } else {
        format!("{}{SEPARATOR}{}", cut(tag, BEGINNING_BYTES), hash(tag)).into()
    }
}

/// Returns the first 16 hexadecimal digits of the SHA-256 of `tag`, so that an operator can search
/// for it.
pub(super) fn hash(tag: &str) -> String {
    let digest = digest(&SHA256, tag.as_bytes());
    let first = digest.as_ref().get(..HASH_BYTES).unwrap_or_default();
    HEXLOWER.encode(first)
}

/// Mark of a tag: how the log may show it. A session keeps the tag as text, behind its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Hashed,
    /// Hashed, and too long to be kept: its hash is in the text.
    HashedLong,
}

impl Mark {
    const ALL: [Mark; 3] = [Mark::Open, Mark::Hashed, Mark::HashedLong];

    const fn sign(self) -> char {
        match self {
            Mark::Open => '=',
            Mark::Hashed => '#',
            Mark::HashedLong => SEPARATOR,
        }
    }
}

/// Puts `tag` behind its mark. `is_hashed`: the log has a hash of it.
pub(super) fn mark(tag: &str, is_hashed: bool) -> String {
    let mark = match (is_hashed, tag.len() > MAX_BYTES) {
        (false, _) => Mark::Open,
        (true, false) => Mark::Hashed,
        (true, true) => Mark::HashedLong,
    };
    format!("{}{}", mark.sign(), kept_tag(tag))
}

fn unmark(marked: &str) -> Option<(Mark, &str)> {
    let mut marks = Mark::ALL.into_iter();
    marks.find_map(|mark| Some((mark, marked.strip_prefix(mark.sign())?)))
}

/// Returns the tag behind its mark.
pub(super) fn tag(marked: &str) -> Option<&str> {
    unmark(marked).map(|(_, tag)| tag)
}

/// Returns the tag as the log shows it.
pub(super) fn logged(marked: &str) -> Option<Cow<'_, str>> {
    let (mark, tag) = unmark(marked)?;
    Some(match mark {
        Mark::Open => tag.into(),
        Mark::Hashed => hash(tag).into(),
        Mark::HashedLong => tag.rsplit(SEPARATOR).next().unwrap_or_default().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(tag_: &str, is_hashed: bool) -> (String, String) {
        let marked = mark(tag_, is_hashed);
        let tag = tag(&marked).unwrap().to_owned();
        (tag, logged(&marked).unwrap().into_owned())
    }

    #[test]
    fn a_tag_is_kept_as_it_is_and_logged_as_it_may_be() {
        assert_eq!(seen("123", false), ("123".into(), "123".into()));
        // printf 123 | sha256sum | cut -c1-16
        assert_eq!(seen("123", true), ("123".into(), "a665a45920422f9d".into()));
    }

    #[test]
    fn long_tags_of_one_beginning_are_told_apart() {
        let long = |end: &str| "x".repeat(64) + end;
        let kept: Vec<_> = ["", "A", "B"]
            .iter()
            .map(|end| seen(&long(end), false).0)
            .collect();
        assert!(kept.iter().all(|kept| kept.len() == 64));
        assert!(kept[0] != kept[1] && kept[1] != kept[2] && kept[0] != kept[2]);
        assert_eq!(seen(&long("A"), true).1, hash(&long("A")));
        // Asked for as it was sent, or as it is shown.
        assert_eq!(kept_tag(&long("A")), kept[1]);
        assert_eq!(kept_tag(&kept[1]), kept[1]);
    }

    #[test]
    fn a_long_tag_is_cut_at_a_character() {
        let tag = "ä".repeat(100);
        let kept = seen(&tag, false).0;
        assert!(kept.len() <= 64 && kept.ends_with(&hash(&tag)), "{kept}");
    }
}
