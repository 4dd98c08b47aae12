//! The door of one backend: how many connections are in, how many may be, and whether it is open at all.
//!
//! Count and door are one word, so that nobody slips in between "closed" and "counted": once `close` returned, the
//! count only falls. A drained backend may be kept open for those who come back to it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The bit of `word` that is set while closed.
const CLOSED: u64 = 1 << 63;
/// Beside `CLOSED`: open for those who come back.
const KEPT: u64 = 1 << 62;
/// Beside `CLOSED`: one may enter, to probe the backend.
const PROBE: u64 = 1 << 61;
/// Beside `CLOSED`: the one that probes it is in.
const PROBED: u64 = 1 << 60;
/// Beside `CLOSED`: it is tried, as nobody else is left. The other bits count.
const TRIED: u64 = 1 << 59;
const COUNT: u64 = !(CLOSED | KEPT | PROBE | PROBED | TRIED);

/// For whom the door is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdmitMode {
    Open,
    /// For those who were here before, by a sticky cookie.
    Kept,
    /// For one, whose connect shows whether the backend works again.
    Probe,
    /// For everybody, though the backend is down: no other one is left.
    Try,
    Closed,
}

// Sequential consistency throughout: the queue relies on "I queued, then saw it full" and "I left, then saw nobody
// queued" excluding each other.
#[derive(Debug)]
pub(super) struct ConnectionCounter {
    word: AtomicU64,
    /// 0 = no limit.
    max: AtomicU64,
}

impl ConnectionCounter {
    /// Closed and empty.
    pub(super) fn new(max: u64) -> Self {
        ConnectionCounter {
            word: AtomicU64::new(CLOSED),
            max: AtomicU64::new(max),
        }
    }

    /// Counts one more, unless closed or full.
    pub(super) fn enter(&self) -> bool {
        let admit = |word: u64| self.admits(word).then(|| entered(word));
        self.word.fetch_update(SeqCst, SeqCst, admit).is_ok()
    }

    /// The same for one who comes back.
    pub(super) fn enter_returning(&self) -> bool {
        let admit = |word: u64| self.admits_again(word).then(|| entered(word));
        self.word.fetch_update(SeqCst, SeqCst, admit).is_ok()
    }

    /// Uncounts one that entered; how many are left. The place of a probe is free again: whether it was the probe that
    /// left is not known, and a second one does no harm.
    pub(super) fn leave(&self) -> u64 {
        let before = self.word.fetch_sub(1, SeqCst);
        if before & PROBED != 0 {
            self.renew_probe();
        }
        (before & COUNT).saturating_sub(1)
    }

    /// Lets in the next one that probes, where one is in.
    pub(super) fn renew_probe(&self) {
        let free = |word: u64| (word & PROBED != 0).then_some(word & !PROBED | PROBE);
        // Refused where nobody probes.
        let _ = self.word.fetch_update(SeqCst, SeqCst, free);
    }

    pub(super) fn has_room(&self) -> bool {
        self.admits(self.word.load(SeqCst))
    }

    pub(super) fn live(&self) -> u64 {
        self.word.load(SeqCst) & COUNT
    }

    pub(super) fn set_mode(&self, door: AdmitMode) {
        let bits = |word: u64| match door {
            AdmitMode::Open => 0,
            AdmitMode::Kept => CLOSED | KEPT,
            AdmitMode::Probe if word & PROBED != 0 => CLOSED | PROBED,
            AdmitMode::Probe => CLOSED | PROBE,
            AdmitMode::Try => CLOSED | TRIED,
            AdmitMode::Closed => CLOSED,
        };
        let set = |word: u64| Some(word & COUNT | bits(word));
        // Never refused.
        let _ = self.word.fetch_update(SeqCst, SeqCst, set);
    }

    /// For everybody, and not only for a try.
    pub(super) fn is_open(&self) -> bool {
        self.word.load(SeqCst) & CLOSED == 0
    }

    pub(super) fn max(&self) -> u64 {
        self.max.load(SeqCst)
    }

    /// Below the present count it lets nobody in until enough have left.
    pub(super) fn set_max(&self, max: u64) {
        self.max.store(max, SeqCst);
    }

    fn admits(&self, word: u64) -> bool {
        (word & CLOSED == 0 || word & (PROBE | TRIED) != 0) && self.fits(word)
    }

    fn admits_again(&self, word: u64) -> bool {
        self.admits(word) || word & KEPT != 0 && self.fits(word)
    }

    fn fits(&self, word: u64) -> bool {
        let max = self.max();
        max == 0 || word & COUNT < max
    }
}

/// One more is in. Whoever takes the place of the probe closes the door behind him.
fn entered(word: u64) -> u64 {
    match word & PROBE {
        0 => word + 1,
        _ => (word & !PROBE | PROBED) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn closed_lets_nobody_in_and_everybody_out() {
        let gate = ConnectionCounter::new(0);
        assert!(!gate.enter());
        gate.set_mode(AdmitMode::Open);
        assert!(gate.enter() && gate.enter());
        gate.set_mode(AdmitMode::Closed);
        assert!(!gate.enter_returning());
        assert!(!gate.enter() && !gate.has_room());
        assert_eq!((gate.leave(), gate.leave(), gate.live()), (1, 0, 0));
    }

    #[test]
    fn a_kept_door_lets_in_who_comes_back_up_to_the_limit() {
        let gate = ConnectionCounter::new(2);
        gate.set_mode(AdmitMode::Kept);
        assert!(!gate.enter() && !gate.has_room() && !gate.is_open());
        assert!(gate.enter_returning() && gate.enter_returning() && !gate.enter_returning());
        assert_eq!(gate.live(), 2);
        gate.set_mode(AdmitMode::Closed);
        assert_eq!((gate.leave(), gate.leave(), gate.live()), (1, 0, 0));
        assert!(!gate.enter_returning());
        gate.set_mode(AdmitMode::Open);
        assert!(gate.enter() && gate.enter_returning() && !gate.enter_returning());
    }

    #[test]
    fn the_door_of_a_probe_lets_in_one_until_it_has_left() {
        let gate = ConnectionCounter::new(0);
        gate.set_mode(AdmitMode::Open);
        assert!(gate.enter());
        gate.set_mode(AdmitMode::Probe);
        assert!(gate.has_room() && !gate.is_open());
        assert!(gate.enter() && !gate.enter() && !gate.enter_returning() && !gate.has_room());
        gate.set_mode(AdmitMode::Probe);
        assert!(!gate.enter(), "the probe is still under way");
        assert_eq!(gate.leave(), 1);
        assert!(gate.enter_returning() && !gate.enter());
        gate.set_mode(AdmitMode::Open);
        assert!(gate.enter());
        assert_eq!((gate.leave(), gate.leave(), gate.leave()), (2, 1, 0));
        gate.set_mode(AdmitMode::Closed);
        assert!(!gate.enter() && !gate.has_room());
    }

    #[test]
    fn a_door_for_a_try_lets_in_up_to_the_limit_and_is_not_open() {
        let gate = ConnectionCounter::new(2);
        gate.set_mode(AdmitMode::Try);
        assert!(gate.has_room() && !gate.is_open());
        assert!(gate.enter() && gate.enter_returning() && !gate.enter() && !gate.has_room());
        assert_eq!((gate.leave(), gate.live()), (1, 1));
        gate.set_mode(AdmitMode::Closed);
        assert!(!gate.enter() && !gate.enter_returning());
    }

    #[test]
    fn a_lowered_limit_waits_for_those_above_it() {
        let gate = ConnectionCounter::new(0);
        gate.set_mode(AdmitMode::Open);
        assert!((0..3).all(|_| gate.enter()));
        gate.set_max(2);
        assert!(!gate.enter());
        gate.leave();
        assert!(!gate.enter());
        gate.leave();
        assert!(gate.enter());
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let gate = ConnectionCounter::new(3);
        gate.set_mode(AdmitMode::Open);
        let inside = AtomicU64::new(0);
        let most = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if gate.enter() {
                            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, SeqCst);
                            gate.leave();
                        }
                    }
                });
            }
        });
        assert_eq!(gate.live(), 0);
        assert!((1..=3).contains(&most.load(SeqCst)));
    }
}
