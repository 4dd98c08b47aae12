//! When a changed configuration file may be acted on: pure, `now` is an argument.
//!
//! Editors and deploy tools truncate, write in pieces, rename over and swap symlinks; a file read in the middle of that is
//! cut off. So a look at the file counts only once it was the same for `STABLE`, and each content is acted on once,
//! whatever became of it: a bad file is reported once, not at every poll.

use std::time::{Duration, Instant};

/// How long a file must have stayed the same before it is acted on.
pub(super) const STABLE: Duration = Duration::from_secs(1);

/// One look at the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileLook {
    pub text: String,
    /// Whatever tells that the file was written or replaced, even by the same text: device, inode, time of change.
    pub stamp: (u64, u64, i128),
}

/// Follows the looks.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// The last look, and when it was first seen without another in between.
    seen: Option<(FileLook, Instant)>,
}

/// What to do after one look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DebounceVerdict {
    /// Nothing new.
    Same,
    /// New, and not yet stable: look again after this long.
    Wait(Duration),
    /// New and stable: act on this text.
    Act(String),
}

impl Debounce {
    /// Judges one look. `acted` is the text last acted on, by whomever.
    pub fn look(&mut self, now: Instant, look: FileLook, acted: &str) -> DebounceVerdict {
        if look.text == acted {
            self.seen = None;
            return DebounceVerdict::Same;
        }
        match self.seen.take() {
            Some((last, since)) if last == look => {
                let age = now.saturating_duration_since(since);
                if age >= STABLE {
                    return DebounceVerdict::Act(look.text);
                }
                self.seen = Some((look, since));
                DebounceVerdict::Wait(STABLE - age)
            }
            _ => {
                self.seen = Some((look, now));
                DebounceVerdict::Wait(STABLE)
            }
        }
    }

    /// The file cannot be read just now (between unlink and rename, a dangling symlink).
    pub fn missing(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn look(text: &str, inode: u64) -> FileLook {
        FileLook {
            text: text.to_owned(),
            stamp: (0, inode, 0),
        }
    }

    #[test]
    fn the_text_acted_on_is_left_alone() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        for step in 0..5 {
            let verdict = settle.look(now + step * STABLE, look("a", 1), "a");
            assert_eq!(verdict, DebounceVerdict::Same);
        }
    }

    #[test]
    fn a_new_text_waits_until_it_was_stable() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        let mut at = |after: Duration| settle.look(now + after, look("b", 1), "a");
        assert_eq!(at(Duration::ZERO), DebounceVerdict::Wait(STABLE));
        assert_eq!(at(400 * MS), DebounceVerdict::Wait(STABLE - 400 * MS));
        assert_eq!(at(STABLE), DebounceVerdict::Act("b".into()));
    }

    #[test]
    fn a_change_on_the_way_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        settle.look(now, look("b", 1), "a");
        let verdict = settle.look(now + 900 * MS, look("c", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Wait(STABLE));
        let verdict = settle.look(now + STABLE, look("c", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Wait(900 * MS));
        let verdict = settle.look(now + 1900 * MS, look("c", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Act("c".into()));
    }

    #[test]
    fn the_same_text_written_anew_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        settle.look(now, look("b", 1), "a");
        let verdict = settle.look(now + STABLE, look("b", 2), "a");
        assert_eq!(verdict, DebounceVerdict::Wait(STABLE));
    }

    #[test]
    fn a_file_that_went_missing_starts_the_wait_again() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        settle.look(now, look("b", 1), "a");
        settle.missing();
        let verdict = settle.look(now + STABLE, look("b", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Wait(STABLE));
    }

    #[test]
    fn back_to_the_old_text_is_no_change() {
        let now = Instant::now();
        let mut settle = Debounce::default();
        settle.look(now, look("b", 1), "a");
        let verdict = settle.look(now + 500 * MS, look("a", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Same);
        let verdict = settle.look(now + 1100 * MS, look("b", 1), "a");
        assert_eq!(verdict, DebounceVerdict::Wait(STABLE));
    }

    proptest! {
        #[test]
        fn acts_only_on_what_every_look_of_the_last_second_saw(
            looks in prop::collection::vec((0u64..700, "[abc]"), 1..60)
        ) {
            let mut now = Instant::now();
            let mut history: Vec<(Instant, String)> = Vec::new();
            let mut settle = Debounce::default();
            let mut acted = "a".to_owned();
            for (wait, text) in looks {
                now += Duration::from_millis(wait);
                history.push((now, text.clone()));
                if let DebounceVerdict::Act(chosen) = settle.look(now, look(&text, 1), &acted) {
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
