//! The door of one backend: how many connections are in, how many may be, and whether it is open at all.
//!
//! Count and door are one word, so that nobody slips in between "closed" and "counted": once `close` returned, the
//! count only falls. A drained backend may be kept open for those who come back to it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The bit of `word` that is set while closed.
const CLOSED: u64 = 1 << 63;
/// Beside `CLOSED`: open for those who come back. The other bits count.
const KEPT: u64 = 1 << 62;
const COUNT: u64 = !(CLOSED | KEPT);

/// For whom the door is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// For those who were here before, by a sticky cookie.
    Kept,
    Closed,
}

// Sequential consistency throughout: the queue relies on "I queued, then saw it full" and "I left, then saw nobody
// queued" excluding each other.
#[derive(Debug)]
pub(super) struct Gate {
    word: AtomicU64,
    /// 0 = no limit.
    max: AtomicU64,
}

impl Gate {
    /// Closed and empty.
    pub(super) fn new(max: u64) -> Self {
        Gate {
            word: AtomicU64::new(CLOSED),
            max: AtomicU64::new(max),
        }
    }

    /// Counts one more, unless closed or full.
    pub(super) fn enter(&self) -> bool {
        let admit = |word: u64| self.admits(word).then_some(word + 1);
        self.word.fetch_update(SeqCst, SeqCst, admit).is_ok()
    }

    /// The same for one who comes back.
    pub(super) fn enter_again(&self) -> bool {
        let admit = |word: u64| self.admits_again(word).then_some(word + 1);
        self.word.fetch_update(SeqCst, SeqCst, admit).is_ok()
    }

    /// Uncounts one that entered; how many are left.
    pub(super) fn leave(&self) -> u64 {
        (self.word.fetch_sub(1, SeqCst) & COUNT).saturating_sub(1)
    }

    pub(super) fn has_room(&self) -> bool {
        self.admits(self.word.load(SeqCst))
    }

    pub(super) fn live(&self) -> u64 {
        self.word.load(SeqCst) & COUNT
    }

    pub(super) fn set_door(&self, door: Door) {
        let bits = match door {
            Door::Open => 0,
            Door::Kept => CLOSED | KEPT,
            Door::Closed => CLOSED,
        };
        let set = |word: u64| Some(word & COUNT | bits);
        // Never refused.
        let _ = self.word.fetch_update(SeqCst, SeqCst, set);
    }

    /// For everybody.
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
        word & CLOSED == 0 && self.fits(word)
    }

    fn admits_again(&self, word: u64) -> bool {
        (word & CLOSED == 0 || word & KEPT != 0) && self.fits(word)
    }

    fn fits(&self, word: u64) -> bool {
        let max = self.max();
        max == 0 || word & COUNT < max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn closed_lets_nobody_in_and_everybody_out() {
        let gate = Gate::new(0);
        assert!(!gate.enter());
        gate.set_door(Door::Open);
        assert!(gate.enter() && gate.enter());
        gate.set_door(Door::Closed);
        assert!(!gate.enter_again());
        assert!(!gate.enter() && !gate.has_room());
        assert_eq!((gate.leave(), gate.leave(), gate.live()), (1, 0, 0));
    }

    #[test]
    fn a_kept_door_lets_in_who_comes_back_up_to_the_limit() {
        let gate = Gate::new(2);
        gate.set_door(Door::Kept);
        assert!(!gate.enter() && !gate.has_room() && !gate.is_open());
        assert!(gate.enter_again() && gate.enter_again() && !gate.enter_again());
        assert_eq!(gate.live(), 2);
        gate.set_door(Door::Closed);
        assert_eq!((gate.leave(), gate.leave(), gate.live()), (1, 0, 0));
        assert!(!gate.enter_again());
        gate.set_door(Door::Open);
        assert!(gate.enter() && gate.enter_again() && !gate.enter_again());
    }

    #[test]
    fn a_lowered_limit_waits_for_those_above_it() {
        let gate = Gate::new(0);
        gate.set_door(Door::Open);
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
        let gate = Gate::new(3);
        gate.set_door(Door::Open);
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
