//! Live connections of one backend, their limit, and which connections are admitted at all.
//!
//! Count and mode share one atomic word, so that no connection enters between "closed" and
//! "counted": once the mode is `Closed`, the count only falls.
//!
//! In a cluster the limit is of all balancers: their counts are added as of the last exchange.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// The bits of a word below these are the count, those above it the mode.
const MODE_SHIFT: u32 = 56;
const COUNT: u64 = (1 << MODE_SHIFT) - 1;

/// Which connections a backend admits, as far as it has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdmitMode {
    Open,
    /// Clients that were here before, by a sticky cookie.
    Returning,
    /// A single connection, whose connect shows whether the backend works again.
    Probe,
    /// None: that probe is under way. Only the counter itself sets this mode.
    Probing,
    /// All connections, though the backend is down: no other backend is left.
    LastResort,
    Closed,
}

/// Facts that a pick goes by, of one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountFacts {
    /// Whether a new connection would be admitted.
    pub(super) admits: bool,
    /// Whether only a probe is admitted, or one is under way.
    pub(super) is_probed: bool,
    pub(super) live: u64,
}

/// The state behind a connection that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Connections that are left.
    pub(super) live: u64,
    /// Whether a connection may be admitted now that was not before.
    pub(super) made_room: bool,
}

// Sequential consistency throughout: the queue relies on "I queued, then saw it full" and "I left,
// then saw an empty queue" excluding each other.
#[derive(Debug)]
pub(super) struct ConnectionCounter {
    word: AtomicU64,
    /// 0 = no limit.
    max: AtomicU64,
    /// Connections of the other balancers of the cluster, which count for the limit.
    others: AtomicU64,
    /// Balancers that shared the limit before this one lost the others; 0 = it has not.
    alone_of: AtomicU32,
}

impl ConnectionCounter {
    /// Closed and empty.
    pub(super) fn new(max: u64) -> Self {
        ConnectionCounter {
            word: AtomicU64::new(pack(AdmitMode::Closed, 0)),
            max: AtomicU64::new(max),
            others: AtomicU64::new(0),
            alone_of: AtomicU32::new(0),
        }
    }

    /// Counts one more connection, unless closed or full.
    pub(super) fn enter(&self) -> bool {
        self.count_if(|word| self.admits(word))
    }

    /// As [`ConnectionCounter::enter`], for a returning client.
    pub(super) fn enter_returning(&self) -> bool {
        let returns = |word| mode(word) == AdmitMode::Returning && self.has_room_at(word);
        self.count_if(|word| self.admits(word) || returns(word))
    }

    /// Counts connections that another process has, whether they are admitted or not.
    pub(super) fn enter_elsewhere(&self, count: u64) {
        self.word.fetch_add(count & COUNT, SeqCst);
    }

    /// Counts one more connection, in whatever mode and whether there is room or not.
    pub(super) fn enter_anyway(&self) {
        self.word.fetch_add(1, SeqCst);
    }

    fn count_if(&self, admits: impl Fn(u64) -> bool) -> bool {
        let counted = |word| {
            let entered = match mode(word) {
                AdmitMode::Probe => AdmitMode::Probing,
                mode => mode,
            };
            admits(word).then(|| pack(entered, (word & COUNT) + 1))
        };
        self.word.fetch_update(SeqCst, SeqCst, counted).is_ok()
    }

    /// Uncounts a connection. Lets the next probe in: whether it was the probe that left is not
    /// known, and a second one does no harm.
    pub(super) fn leave(&self) -> Left {
        let before = self.word.fetch_sub(1, SeqCst);
        let renews_probe = mode(before) == AdmitMode::Probing && self.renew_probe();
        Left {
            live: (before & COUNT).saturating_sub(1),
            made_room: renews_probe || !self.has_room_at(before),
        }
    }

    /// Lets the next probe in; false if none is under way.
    pub(super) fn renew_probe(&self) -> bool {
        let renewed = |word| {
            let is_probing = mode(word) == AdmitMode::Probing;
            is_probing.then(|| pack(AdmitMode::Probe, word & COUNT))
        };
        self.word.fetch_update(SeqCst, SeqCst, renewed).is_ok()
    }

    pub(super) fn facts(&self) -> CountFacts {
        let word = self.word.load(SeqCst);
        CountFacts {
            admits: self.admits(word),
            is_probed: matches!(mode(word), AdmitMode::Probe | AdmitMode::Probing),
            live: word & COUNT,
        }
    }

    /// Whether a new connection would be admitted now.
    pub(super) fn has_room(&self) -> bool {
        self.admits(self.word.load(SeqCst))
    }

    pub(super) fn live(&self) -> u64 {
        self.word.load(SeqCst) & COUNT
    }

    pub(super) fn set_mode(&self, wanted: AdmitMode) {
        let set = |word| {
            let mode = match (wanted, mode(word)) {
                (AdmitMode::Probe, AdmitMode::Probing) => AdmitMode::Probing,
                _ => wanted,
            };
            Some(pack(mode, word & COUNT))
        };
        // Never refused.
        let _ = self.word.fetch_update(SeqCst, SeqCst, set);
    }

    /// Whether new connections are admitted, and not only as a last resort.
    pub(super) fn is_open(&self) -> bool {
        mode(self.word.load(SeqCst)) == AdmitMode::Open
    }

    pub(super) fn max(&self) -> u64 {
        self.max.load(SeqCst)
    }

    /// Sets the limit. Below the present count it admits no connection until enough have left.
    pub(super) fn set_max(&self, max: u64) {
        self.max.store(max, SeqCst);
    }

    /// Takes over the connections of the other balancers.
    pub(super) fn set_others(&self, others: u64) {
        self.others.store(others, SeqCst);
        self.alone_of.store(0, SeqCst);
    }

    /// Keeps what was known last of the others, of `members` in all. An equal part of the limit is
    /// this one's whatever that was: one that takes over from a dead balancer must serve.
    pub(super) fn set_alone(&self, members: u32) {
        self.alone_of.store(members, SeqCst);
    }

    fn admits(&self, word: u64) -> bool {
        let admits_new = matches!(
            mode(word),
            AdmitMode::Open | AdmitMode::Probe | AdmitMode::LastResort
        );
        admits_new && self.has_room_at(word)
    }

    fn has_room_at(&self, word: u64) -> bool {
        let (max, own) = (self.max(), word & COUNT);
        max == 0 || own.saturating_add(self.others.load(SeqCst)) < max || self.is_own_part(own, max)
    }

    fn is_own_part(&self, own: u64, max: u64) -> bool {
        let members = u64::from(self.alone_of.load(SeqCst));
        members > 0 && own < max.div_ceil(members)
    }
}

fn pack(mode: AdmitMode, count: u64) -> u64 {
    (mode as u64) << MODE_SHIFT | count
}

fn mode(word: u64) -> AdmitMode {
    const MODES: [AdmitMode; 5] = [
        AdmitMode::Open,
        AdmitMode::Returning,
        AdmitMode::Probe,
        AdmitMode::Probing,
        AdmitMode::LastResort,
    ];
    let number = usize::try_from(word >> MODE_SHIFT).ok();
    let mode = number.and_then(|number| MODES.get(number));
    mode.copied().unwrap_or(AdmitMode::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn closed_admits_no_connection_and_lets_all_leave() {
        let counter = ConnectionCounter::new(0);
        assert!(!counter.enter());
        counter.set_mode(AdmitMode::Open);
        assert!(counter.enter() && counter.enter());
        counter.set_mode(AdmitMode::Closed);
        assert!(!counter.enter_returning());
        assert!(!counter.enter() && !counter.has_room());
        assert_eq!(
            (counter.leave().live, counter.leave().live, counter.live()),
            (1, 0, 0)
        );
    }

    #[test]
    fn returning_clients_are_admitted_up_to_the_limit() {
        let counter = ConnectionCounter::new(2);
        counter.set_mode(AdmitMode::Returning);
        assert!(!counter.enter() && !counter.has_room() && !counter.is_open());
        assert!(
            counter.enter_returning() && counter.enter_returning() && !counter.enter_returning()
        );
        assert_eq!(counter.live(), 2);
        counter.set_mode(AdmitMode::Closed);
        assert_eq!(
            (counter.leave().live, counter.leave().live, counter.live()),
            (1, 0, 0)
        );
        assert!(!counter.enter_returning());
        counter.set_mode(AdmitMode::Open);
        assert!(counter.enter() && counter.enter_returning() && !counter.enter_returning());
    }

    #[test]
    fn one_probe_is_admitted_at_a_time() {
        let counter = ConnectionCounter::new(0);
        counter.set_mode(AdmitMode::Open);
        assert!(counter.enter());
        counter.set_mode(AdmitMode::Probe);
        assert!(counter.has_room() && !counter.is_open());
        assert!(
            counter.enter()
                && !counter.enter()
                && !counter.enter_returning()
                && !counter.has_room()
        );
        counter.set_mode(AdmitMode::Probe);
        assert!(!counter.enter(), "the probe is still under way");
        assert_eq!(counter.leave().live, 1);
        assert!(counter.enter_returning() && !counter.enter());
        counter.set_mode(AdmitMode::Open);
        assert!(counter.enter());
        assert_eq!(
            (
                counter.leave().live,
                counter.leave().live,
                counter.leave().live
            ),
            (2, 1, 0)
        );
        counter.set_mode(AdmitMode::Closed);
        assert!(!counter.enter() && !counter.has_room());
    }

    #[test]
    fn a_last_resort_admits_up_to_the_limit_and_is_not_open() {
        let counter = ConnectionCounter::new(2);
        counter.set_mode(AdmitMode::LastResort);
        assert!(counter.has_room() && !counter.is_open());
        assert!(
            counter.enter() && counter.enter_returning() && !counter.enter() && !counter.has_room()
        );
        assert_eq!((counter.leave().live, counter.live()), (1, 1));
        counter.set_mode(AdmitMode::Closed);
        assert!(!counter.enter() && !counter.enter_returning());
    }

    #[test]
    fn a_connection_of_another_process_is_counted_in_every_mode_and_changes_none() {
        let counter = ConnectionCounter::new(1);
        counter.enter_anyway();
        counter.enter_anyway();
        assert_eq!(counter.live(), 2);
        assert!(!counter.enter(), "closed");
        counter.set_mode(AdmitMode::Open);
        assert!(!counter.enter(), "full");
        assert_eq!((counter.leave().live, counter.leave().live), (1, 0));
        assert!(counter.enter());
    }

    #[test]
    fn a_lowered_limit_waits_until_enough_have_left() {
        let counter = ConnectionCounter::new(0);
        counter.set_mode(AdmitMode::Open);
        assert!((0..3).all(|_| counter.enter()));
        counter.set_max(2);
        assert!(!counter.enter());
        counter.leave();
        assert!(!counter.enter());
        counter.leave();
        assert!(counter.enter());
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let counter = ConnectionCounter::new(3);
        counter.set_mode(AdmitMode::Open);
        let inside = AtomicU64::new(0);
        let most = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if counter.enter() {
                            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, SeqCst);
                            counter.leave();
                        }
                    }
                });
            }
        });
        assert_eq!(counter.live(), 0);
        assert!((1..=3).contains(&most.load(SeqCst)));
    }
}
