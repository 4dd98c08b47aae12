//! Rise and fall: the number of results in a row that change the verdict; the first result decides
//! alone. Pure.

/// Count of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckProgress {
    up: bool,
    /// Results in a row against the present verdict.
    against: u32,
    rise: u32,
    fall: u32,
    /// Whether a check has succeeded since the first one.
    proven: bool,
    /// The first result was a failure, and there has been no other one.
    failed_first: bool,
}

impl CheckProgress {
    /// Continues from a verdict of earlier checks. `rise` and `fall` of 0 count as 1.
    pub(super) fn new(up: bool, rise: u32, fall: u32) -> CheckProgress {
        CheckProgress {
            up,
            against: 0,
            rise,
            fall,
            proven: true,
            failed_first: false,
        }
    }

    /// `unproven`: no check has succeeded yet, so one success brings the backend up.
    pub(super) fn unproven(self, unproven: bool) -> CheckProgress {
        CheckProgress {
            proven: !unproven,
            ..self
        }
    }

    /// Takes the first result as the verdict, whatever the earlier one was. While there was no
    /// success, one brings the backend up.
    pub(super) fn start_with(&mut self, success: bool) {
        self.up = success;
        self.against = 0;
        self.proven = success;
        self.failed_first = !success;
    }

    /// Whether the first check failed and has not been repeated yet.
    pub(super) fn failed_first(&self) -> bool {
        self.failed_first
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Counts a result; returns the new verdict when it changes.
    pub(super) fn record(&mut self, success: bool) -> Option<bool> {
        self.failed_first = false;
        if success == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.up, self.proven) {
            (true, _) => self.fall,
            (false, true) => self.rise,
            (false, false) => 1,
        };
        if self.against < needed {
            return None;
        }
        self.up = success;
        self.proven |= success;
        self.against = 0;
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdicts(progress: &mut CheckProgress, answers: &[bool]) -> Vec<Option<bool>> {
        answers.iter().map(|ok| progress.record(*ok)).collect()
    }

    #[test]
    fn falls_after_failures_in_a_row_and_rises_after_successes() {
        let mut progress = CheckProgress::new(true, 2, 3);
        assert_eq!(
            verdicts(&mut progress, &[false, false, false, true, true]),
            [None, None, Some(false), None, Some(true)]
        );
    }

    #[test]
    fn one_success_between_failures_begins_the_count_again() {
        let mut progress = CheckProgress::new(true, 2, 2);
        assert_eq!(
            verdicts(&mut progress, &[false, true, false, false]),
            [None, None, None, Some(false)]
        );
    }

    #[test]
    fn the_first_answer_decides_and_one_success_brings_up_who_never_was() {
        let mut progress = CheckProgress::new(true, 3, 3);
        progress.start_with(false);
        assert!(!progress.is_up() && progress.failed_first());
        assert_eq!(
            verdicts(&mut progress, &[false, false, true]),
            [None, None, Some(true)]
        );
        assert!(!progress.failed_first());
        // From now on it has been up: rise and fall count.
        assert_eq!(
            verdicts(&mut progress, &[false, false, false, true, true, true]),
            [None, None, Some(false), None, None, Some(true)]
        );
    }

    #[test]
    fn a_first_success_leaves_fall_its_meaning() {
        let mut progress = CheckProgress::new(false, 3, 2);
        progress.start_with(true);
        assert!(progress.is_up());
        assert_eq!(
            verdicts(&mut progress, &[false, false]),
            [None, Some(false)]
        );
    }

    proptest! {
        #[test]
        fn the_verdict_changes_exactly_after_a_full_run(
            rise in 1u32..6, fall in 1u32..6, up: bool, answers in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut progress = CheckProgress::new(up, rise, fall);
            let mut verdict = up;
            for end in 1..=answers.len() {
                let success = answers[end - 1];
                let run = answers[..end].iter().rev().take_while(|ok| **ok == success).count();
                let needed = if success { rise } else { fall };
                let changes = success != verdict && run >= needed as usize;
                prop_assert_eq!(progress.record(success), changes.then_some(success));
                if changes {
                    verdict = success;
                }
                prop_assert_eq!(progress.is_up(), verdict);
            }
        }
    }
}
