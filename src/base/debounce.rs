//! Decides when something that is looked at again and again has settled. Pure: `now` is an
//! argument.
//!
//! Editors and deploy tools truncate, write in pieces, rename over and swap symlinks; a file read
//! in the middle of that is cut off. So a look counts only once the looks were the same for a
//! while.

use std::time::{Duration, Instant};

/// Follows the looks at one thing.
#[derive(Debug)]
pub(crate) struct Debounce<T> {
    /// Time for which the looks must have been the same.
    stable: Duration,
    /// The last look, and when it was first seen without another in between.
    seen: Option<(T, Instant)>,
}

/// Result of a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// Nothing new.
    Same,
    /// New, and not yet settled: look again after this time.
    Wait(Duration),
    /// New and settled.
    Settled(T),
}

impl<T: PartialEq> Debounce<T> {
    pub(crate) fn new(stable: Duration) -> Debounce<T> {
        Debounce { stable, seen: None }
    }

    /// Judges a look. `is_known`: it is what was acted on last, by anybody.
    pub(crate) fn look(&mut self, now: Instant, look: T, is_known: bool) -> Verdict<T> {
        let seen = self.seen.take();
        if is_known {
            return Verdict::Same;
        }
        let Some((_, since)) = seen.filter(|(last, _)| *last == look) else {
            self.seen = Some((look, now));
            return Verdict::Wait(self.stable);
        };
        let age = now.saturating_duration_since(since);
        if age >= self.stable {
            return Verdict::Settled(look);
        }
        self.seen = Some((look, since));
        Verdict::Wait(self.stable - age)
    }

    /// Whether the last look was new and has not settled: the next one counts, too.
    pub(crate) fn is_waiting(&self) -> bool {
        self.seen.is_some()
    }

    /// Forgets the looks: there is nothing to look at just now (between unlink and rename, a
    /// dangling symlink).
    pub(crate) fn reset(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const STABLE: Duration = Duration::from_secs(1);

    /// Text and inode of a file.
    type Look = (String, u64);

    fn settle() -> Debounce<Look> {
        Debounce::new(STABLE)
    }

    impl Debounce<Look> {
        fn at(&mut self, now: Instant, text: &str, inode: u64) -> Verdict<Look> {
            self.look(now, (text.to_owned(), inode), text == "a")
        }
    }

    #[test]
    fn the_text_acted_on_is_left_alone() {
        let now = Instant::now();
        let mut settle = settle();
        for step in 0..5 {
            let verdict = settle.at(now + step * STABLE, "a", 1);
            assert_eq!(verdict, Verdict::Same);
        }
    }

    #[test]
    fn a_new_text_waits_until_it_was_stable() {
        let now = Instant::now();
        let mut settle = settle();
        let mut at = |after: Duration| settle.at(now + after, "b", 1);
        assert_eq!(at(Duration::ZERO), Verdict::Wait(STABLE));
        assert_eq!(at(400 * MS), Verdict::Wait(STABLE - 400 * MS));
        assert_eq!(at(STABLE), Verdict::Settled(("b".into(), 1)));
    }

    #[test]
    fn a_change_on_the_way_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = settle();
        settle.at(now, "b", 1);
        let verdict = settle.at(now + 900 * MS, "c", 1);
        assert_eq!(verdict, Verdict::Wait(STABLE));
        let verdict = settle.at(now + STABLE, "c", 1);
        assert_eq!(verdict, Verdict::Wait(900 * MS));
        let verdict = settle.at(now + 1900 * MS, "c", 1);
        assert_eq!(verdict, Verdict::Settled(("c".into(), 1)));
    }

    #[test]
    fn the_same_text_written_anew_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = settle();
        settle.at(now, "b", 1);
        let verdict = settle.at(now + STABLE, "b", 2);
        assert_eq!(verdict, Verdict::Wait(STABLE));
    }

    #[test]
    fn a_file_that_went_missing_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = settle();
        settle.at(now, "b", 1);
        settle.reset();
        let verdict = settle.at(now + STABLE, "b", 1);
        assert_eq!(verdict, Verdict::Wait(STABLE));
    }

    #[test]
    fn back_to_the_old_text_is_no_change() {
        let now = Instant::now();
        let mut settle = settle();
        settle.at(now, "b", 1);
        let verdict = settle.at(now + 500 * MS, "a", 1);
        assert_eq!(verdict, Verdict::Same);
        let verdict = settle.at(now + 1100 * MS, "b", 1);
        assert_eq!(verdict, Verdict::Wait(STABLE));
    }

    proptest! {
        #[test]
        fn acts_only_on_what_every_look_of_the_last_second_saw(
            looks in prop::collection::vec((0u64..700, "[abc]"), 1..60)
        ) {
            let mut now = Instant::now();
            let mut history: Vec<(Instant, String)> = Vec::new();
            let mut settle = Debounce::new(STABLE);
            let mut acted = "a".to_owned();
            for (wait, text) in looks {
                now += Duration::from_millis(wait);
                history.push((now, text.clone()));
                let look = settle.look(now, text.clone(), text == acted);
                if let Verdict::Settled(chosen) = look {
                    prop_assert_eq!(&chosen, &text);
                    prop_assert_ne!(&chosen, &acted);
                    let run = history.iter().rev().take_while(|(_, seen)| *seen == chosen);
                    let first = run.last().map(|(at, _)| *at);
                    prop_assert!(first.is_some_and(|at| now - at >= STABLE));
                    acted = chosen;
                }
            }
        }
    }
}
