//! The sweep: one look at every session of a worker now and then, for deadlines, counters and log
//! lines, in place of a timer for each. It goes over the table a slice at a time, so that the bytes
//! of others never wait for it.

use std::time::{Duration, Instant};

/// Slots looked at between two looks at the sockets: well below a millisecond.
pub(super) const SLOTS_PER_SLICE: u32 = 1024;
/// Two sweeps are at least this far apart: timeouts are kept to this precision.
pub(super) const SPACING: Duration = Duration::from_millis(50);
/// Added per thousand slots: looking at all of them costs time.
const SPACING_PER_1000: Duration = Duration::from_millis(20);
/// The longest, so that interval lines switched on by a reload begin soon.
const LONGEST_SPACING: Duration = Duration::from_secs(30);

/// The time of the next sweep, and the progress of the present one.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// `None`: nothing waits for one, and an idle worker never wakes.
    next: Option<Instant>,
    /// The first slot that the present one has not seen.
    at: Option<u32>,
}

impl Sweep {
    /// When the worker must look here again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.at.map(|_| now).or(self.next)
    }

    /// Something is due in `left`.
    pub(super) fn schedule(&mut self, now: Instant, left: Duration) {
        let wanted = now + left.clamp(SPACING, LONGEST_SPACING);
        self.next = Some(self.next.map_or(wanted, |next| next.min(wanted)));
    }

    /// The first slot of the next slice, if there is one to look at now.
    pub(super) fn begin(&mut self, now: Instant) -> Option<u32> {
        if self.at.is_none() && self.next.is_some_and(|next| next <= now) {
            self.next = None;
            self.at = Some(0);
        }
        self.at
    }

    /// The slice that ended before `at` is done; there are `slots` in all.
    pub(super) fn advance_to(&mut self, at: u32, slots: u32, now: Instant) {
        if at < slots {
            self.at = Some(at);
            return;
        }
        self.at = None;
        let spacing = (SPACING + SPACING_PER_1000 * (slots / 1000)).min(LONGEST_SPACING);
        self.next = self.next.map(|next| next.max(now + spacing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_over_all_slots_and_then_waits() {
        let now = Instant::now();
        let mut sweep = Sweep::default();
        assert_eq!((sweep.begin(now), sweep.due(now)), (None, None));
        sweep.schedule(now, Duration::ZERO);
        let later = now + SPACING;
        assert_eq!(sweep.begin(later), Some(0));
        sweep.advance_to(1024, 2048, later);
        assert_eq!(sweep.due(later), Some(later));
        assert_eq!(sweep.begin(later), Some(1024));
        sweep.schedule(later, Duration::ZERO);
        sweep.advance_to(2048, 2048, later);
        assert_eq!(sweep.begin(later), None);
        assert!(sweep.due(later).is_some_and(|due| due > later + SPACING));
    }

    #[test]
    fn what_is_due_late_is_looked_at_within_half_a_minute() {
        let now = Instant::now();
        let mut sweep = Sweep::default();
        sweep.schedule(now, Duration::from_secs(3600));
        assert_eq!(sweep.due(now), Some(now + LONGEST_SPACING));
    }
}
