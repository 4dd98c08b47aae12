//! Membership of a discovered set: which answers are believed, and how long a backend stays that is
//! not listed any more. Pure: answers and `now` are arguments.
//!
//! - An error, or an answer without a backend, changes nothing.
//! - An answer that takes more than `max_shrink` is held until a later one confirms it.
//! - An absent backend is a member for `remove_after`, without new connections; it is removed at
//!   once when its check finds it down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::base::backoff::Backoff;
use crate::config::DiscoverPolicy;
use crate::pool::{DiscoveredBackend, DiscoveryState};

/// Waits between two requests while an answer is held.
const FIRST_REREAD: Duration = Duration::from_secs(1);
const MAX_REREAD: Duration = Duration::from_secs(30);

/// Weight and limit of entries that have none of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryDefaults {
    pub weight: u16,
    pub max_connections: u64,
}

/// The discovered set of one pool.
#[derive(Debug, Default)]
pub(super) struct Membership {
    members: BTreeMap<String, Member>,
    held: Option<HeldAnswer>,
    last_good: Option<Instant>,
    /// The next answer is taken whatever its size: it is the first one of its source.
    is_new_source: bool,
}

#[derive(Debug)]
struct Member {
    entry: Entry,
    absent_since: Option<Instant>,
}

/// An answer that takes too much.
#[derive(Debug)]
struct HeldAnswer {
    entries: Vec<Entry>,
    since: Instant,
    rereads: Backoff,
    reread_at: Instant,
}

/// Effect of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerEffect {
    /// Believed.
    Taken,
    /// Held, as was the one before.
    StillHeld,
    /// Held; the one before was believed.
    Held,
    /// No backend in it: the last good set stays.
    Empty,
}

/// Number of members by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemberCounts {
    pub ready: u64,
    pub drain: u64,
    pub absent: u64,
}

impl Membership {
    /// The source is another one now. The members stay until its first answer.
    pub(super) fn change_source(&mut self) {
        self.is_new_source = true;
        self.held = None;
    }

    /// Gives an empty set the last good one of an earlier process; a set with members stays.
    pub(super) fn restore(&mut self, entries: Vec<Entry>) {
        if self.members.is_empty() {
            self.take(entries, None);
            self.is_new_source = false;
        }
    }

    /// Takes an answer. `is_down`: the pool's own check finds the backend of that name down.
    pub(super) fn answered(
        &mut self,
        entries: Vec<Entry>,
        policy: &DiscoverPolicy,
        now: Instant,
        is_down: impl Fn(&str) -> bool,
    ) -> AnswerEffect {
        if entries.is_empty() {
            return AnswerEffect::Empty;
        }
        self.last_good = Some(now);
        let takes_much = self.takes_too_much(&entries, policy, is_down);
        if self.is_new_source || !takes_much {
            self.take(entries, Some(now));
            return AnswerEffect::Taken;
        }
        match &mut self.held {
            Some(held) if now.saturating_duration_since(held.since) < policy.confirm => {
                held.entries = entries;
                AnswerEffect::StillHeld
            }
            Some(_) => {
                self.take(entries, Some(now));
                AnswerEffect::Taken
            }
            None if policy.confirm.is_zero() => {
                self.take(entries, Some(now));
                AnswerEffect::Taken
            }
            None => {
                let mut rereads = Backoff::new(FIRST_REREAD, MAX_REREAD);
                self.held = Some(HeldAnswer {
                    entries,
                    since: now,
                    reread_at: now + rereads.next(),
                    rereads,
                });
                AnswerEffect::Held
            }
        }
    }

    /// Applies the passing of time, and verdicts of checks: absent members whose time is over
    /// leave. While the set is stale nobody knows who is absent, and all stay.
    pub(super) fn tick(
        &mut self,
        policy: &DiscoverPolicy,
        now: Instant,
        is_down: impl Fn(&str) -> bool,
    ) {
        // The held answer takes nothing more once all that it lacks is down.
        let is_harmless = |held: &HeldAnswer| !self.takes_too_much(&held.entries, policy, &is_down);
        if self.held.as_ref().is_some_and(is_harmless) {
            self.accept(now);
        }
        if self.is_stale(policy, now) {
            return;
        }
        self.members.retain(|name, member| {
            let Some(since) = member.absent_since else {
                return true;
            };
            let stays = now.saturating_duration_since(since) < policy.remove_after;
            stays && !is_down(name)
        });
    }

    /// Takes the answer that is held; false where there is none.
    pub(super) fn accept(&mut self, now: Instant) -> bool {
        let held = self.held.take();
        let has_held = held.is_some();
        if let Some(held) = held {
            self.take(held.entries, Some(now));
        }
        has_held
    }

    /// When [`Membership::tick`] has something to do next.
    pub(super) fn next_at(&self, policy: &DiscoverPolicy, now: Instant) -> Option<Instant> {
        let absent = self.members.values().filter_map(|one| one.absent_since);
        let removal = absent.filter_map(|since| since.checked_add(policy.remove_after));
        let stale = (!policy.max_stale.is_zero())
            .then(|| self.last_good?.checked_add(policy.max_stale))
            .flatten();
        removal.chain(stale).filter(|at| *at > now).min()
    }

    /// When the source is to be asked again, while an answer is held.
    pub(super) fn reread_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.reread_at)
    }

    /// Puts the next request off: one is under way.
    pub(super) fn rereading(&mut self, now: Instant) {
        if let Some(held) = &mut self.held {
            held.reread_at = now + held.rereads.next();
        }
    }

    /// Sizes of the last good set and of the answer that is held.
    pub(super) fn held(&self) -> Option<(usize, usize)> {
        let held = self.held.as_ref()?;
        Some((self.listed().count(), held.entries.len()))
    }

    pub(super) fn last_good(&self) -> Option<Instant> {
        self.last_good
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether no good answer has come for `max_stale`.
    pub(super) fn is_stale(&self, policy: &DiscoverPolicy, now: Instant) -> bool {
        let age = self.last_good.map(|at| now.saturating_duration_since(at));
        !policy.max_stale.is_zero() && age.is_some_and(|age| age >= policy.max_stale)
    }

    /// Entries of the last good set, without absent ones.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Entry> {
        let listed = self.members.values();
        let listed = listed.filter(|member| member.absent_since.is_none());
        listed.map(|member| &member.entry)
    }

    /// The set for the pool, by name.
    pub(super) fn backends(
        &self,
        policy: &DiscoverPolicy,
        defaults: EntryDefaults,
        now: Instant,
    ) -> Vec<DiscoveredBackend> {
        let is_stale = self.is_stale(policy, now);
        let members = self.members.iter().map(|(name, member)| {
            let entry = &member.entry;
            DiscoveredBackend {
                name: name.clone(),
                address: entry.address.clone(),
                host: entry.host.clone(),
                weight: entry.weight.unwrap_or(defaults.weight),
                backup: entry.is_backup,
                max_connections: defaults.max_connections,
                state: match member.absent_since {
                    None if is_stale => DiscoveryState::Absent,
                    None if entry.is_drained => DiscoveryState::Drain,
                    None => DiscoveryState::Ready,
                    Some(_) => DiscoveryState::Absent,
                },
            }
        });
        members.collect()
    }

    pub(super) fn counts(&self) -> MemberCounts {
        let mut counts = MemberCounts::default();
        for member in self.members.values() {
            match member.absent_since {
                Some(_) => counts.absent += 1,
                None if member.entry.is_drained => counts.drain += 1,
                None => counts.ready += 1,
            }
        }
        counts
    }

    /// Compares sizes, not names: a roll-out renames all. Members that are down are not counted, as
    /// far as the answer lacks them: nothing is lost with them.
    fn takes_too_much(
        &self,
        entries: &[Entry],
        policy: &DiscoverPolicy,
        is_down: impl Fn(&str) -> bool,
    ) -> bool {
        let names: BTreeSet<&str> = entries.iter().map(|one| one.name.as_str()).collect();
        let counts = |one: &&Entry| names.contains(&*one.name) || !is_down(&one.name);
        let kept = self.listed().filter(counts);
        let kept = kept.count();
        let taken = kept.saturating_sub(entries.len());
        taken * 100 > kept * usize::from(policy.max_shrink)
    }

    /// Makes `entries` the listed ones; the others are absent from `now` on. `None`: none is there.
    fn take(&mut self, entries: Vec<Entry>, now: Option<Instant>) {
        self.held = None;
        self.is_new_source = false;
        let mut before = std::mem::take(&mut self.members);
        for entry in entries {
            before.remove(&entry.name);
            let member = Member {
                entry,
                absent_since: None,
            };
            self.members.insert(member.entry.name.clone(), member);
        }
        let Some(now) = now else { return };
        for (name, mut member) in before {
            if self.members.len() >= MAX_MEMBERS {
                return;
            }
            member.absent_since.get_or_insert(now);
            self.members.insert(name, member);
        }
    }
}

/// Members with the absent ones. A registry that gives each node a new name every minute must not
/// grow the pool without end.
const MAX_MEMBERS: usize = 2 * super::entry::MAX_ENTRIES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    const SECOND: Duration = Duration::from_secs(1);
    const DEFAULTS: EntryDefaults = EntryDefaults {
        weight: 1,
        max_connections: 0,
    };

    fn entry(name: &str) -> Entry {
        Entry::new(name, Address::Tcp("10.0.0.1:80".parse().unwrap()))
    }

    fn entries(names: &[&str]) -> Vec<Entry> {
        names.iter().map(|name| entry(name)).collect()
    }

    fn up(_: &str) -> bool {
        false
    }

    /// A set of one pool with a clock.
    struct Set {
        membership: Membership,
        policy: DiscoverPolicy,
        now: Instant,
    }

    impl Set {
        fn of(names: &[&str]) -> Set {
            let mut set = Set {
                membership: Membership::default(),
                policy: DiscoverPolicy::default(),
                now: Instant::now(),
            };
            assert_eq!(set.answer(names), AnswerEffect::Taken);
            set
        }

        fn answer(&mut self, names: &[&str]) -> AnswerEffect {
            let effect = self
                .membership
                .answered(entries(names), &self.policy, self.now, up);
            self.membership.tick(&self.policy, self.now, up);
            effect
        }

        fn pass(&mut self, seconds: u64) {
            self.now += SECOND * u32::try_from(seconds).unwrap();
            self.membership.tick(&self.policy, self.now, up);
        }

        /// Names with the first letter of their state.
        fn shown(&self) -> Vec<String> {
            let backends = self.membership.backends(&self.policy, DEFAULTS, self.now);
            let shown = backends.iter();
            shown
                .map(|one| format!("{}{}", one.name, one.state.as_str().get(..1).unwrap()))
                .collect()
        }
    }

    #[test]
    fn an_absent_backend_stays_for_remove_after_and_comes_back_as_before() {
        let mut set = Set::of(&["a", "b", "c"]);
        set.answer(&["a", "b"]);
        assert_eq!(set.shown(), ["ar", "br", "ca"]);
        set.pass(119);
        assert_eq!(set.shown(), ["ar", "br", "ca"]);
        set.answer(&["a", "b", "c"]);
        set.pass(500);
        assert_eq!(set.shown(), ["ar", "br", "cr"]);
        set.answer(&["a", "b"]);
        set.pass(120);
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    #[test]
    fn an_absent_backend_whose_check_fails_is_removed_at_once() {
        let mut set = Set::of(&["a", "b", "c"]);
        set.answer(&["a", "b"]);
        set.membership
            .tick(&set.policy, set.now, |name| name == "c");
        assert_eq!(set.shown(), ["ar", "br"]);
        // Listed, it is the check's matter.
        set.membership
            .tick(&set.policy, set.now, |name| name == "a");
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    #[test]
    fn an_empty_answer_changes_nothing() {
        let mut set = Set::of(&["a", "b"]);
        assert_eq!(set.answer(&[]), AnswerEffect::Empty);
        set.pass(10_000);
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    #[test]
    fn an_answer_that_takes_too_much_is_taken_once_it_is_confirmed() {
        let mut set = Set::of(&["a", "b", "c", "d"]);
        assert_eq!(set.answer(&["a"]), AnswerEffect::Held);
        assert_eq!(set.membership.held(), Some((4, 1)));
        assert_eq!(set.membership.reread_at(), Some(set.now + SECOND));
        set.pass(119);
        assert_eq!(set.answer(&["b"]), AnswerEffect::StillHeld);
        assert_eq!(set.shown(), ["ar", "br", "cr", "dr"]);
        set.pass(1);
        assert_eq!(set.answer(&["b"]), AnswerEffect::Taken);
        assert_eq!(set.shown(), ["aa", "br", "ca", "da"]);
    }

    #[test]
    fn a_registry_that_fills_up_again_takes_nothing() {
        let mut set = Set::of(&["a", "b", "c", "d"]);
        assert_eq!(set.answer(&[]), AnswerEffect::Empty);
        assert_eq!(set.answer(&["d"]), AnswerEffect::Held);
        assert_eq!(set.answer(&["c", "d"]), AnswerEffect::Taken);
        assert_eq!(set.membership.held(), None);
        assert_eq!(set.answer(&["a", "b", "c", "d"]), AnswerEffect::Taken);
        set.pass(10_000);
        assert_eq!(set.shown(), ["ar", "br", "cr", "dr"]);
    }

    #[test]
    fn a_roll_out_that_renames_all_is_taken_at_once() {
        let mut set = Set::of(&["a", "b"]);
        assert_eq!(set.answer(&["c", "d"]), AnswerEffect::Taken);
        assert_eq!(set.shown(), ["aa", "ba", "cr", "dr"]);
    }

    #[test]
    fn missing_backends_that_are_down_are_not_missed() {
        let mut set = Set::of(&["a", "b", "c", "d"]);
        assert_eq!(set.answer(&["a"]), AnswerEffect::Held);
        set.membership
            .tick(&set.policy, set.now, |name| name != "a");
        assert_eq!(set.shown(), ["ar"]);
        let effect = set
            .membership
            .answered(entries(&["b"]), &set.policy, set.now, |name| name == "a");
        assert_eq!(effect, AnswerEffect::Taken);
    }

    #[test]
    fn the_operator_accepts_what_is_held() {
        let mut set = Set::of(&["a", "b", "c", "d"]);
        assert!(!set.membership.accept(set.now));
        set.answer(&["d"]);
        assert!(set.membership.accept(set.now));
        assert_eq!(set.shown(), ["aa", "ba", "ca", "dr"]);
    }

    #[test]
    fn another_source_is_believed_whatever_its_size() {
        let mut set = Set::of(&["a", "b", "c", "d"]);
        set.membership.change_source();
        assert_eq!(set.shown(), ["ar", "br", "cr", "dr"]);
        assert_eq!(set.answer(&["x"]), AnswerEffect::Taken);
        assert_eq!(set.shown(), ["aa", "ba", "ca", "da", "xr"]);
    }

    #[test]
    fn a_stale_set_gets_nothing_new_and_loses_nobody() {
        let mut set = Set::of(&["a", "b"]);
        set.policy.max_stale = 600 * SECOND;
        set.pass(599);
        assert_eq!(set.shown(), ["ar", "br"]);
        assert_eq!(
            set.membership.next_at(&set.policy, set.now),
            Some(set.now + SECOND)
        );
        set.pass(1);
        assert_eq!(set.shown(), ["aa", "ba"]);
        set.pass(10_000);
        assert_eq!(set.shown(), ["aa", "ba"]);
        set.answer(&["a", "b"]);
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    /// Random answers, faults, checks and clocks. The pool always has a backend that is listed; and
    /// once the registry answers the truth for long enough, the set is the registry's.
    fn simulate(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut set = Set::of(&["n0"]);
        set.policy.max_shrink = random.u8(0..=100);
        let names: Vec<String> = (0..12).map(|number| format!("n{number}")).collect();
        let mut truth: Vec<&str> = vec!["n0"];
        for _ in 0..random.usize(1..80) {
            set.now += SECOND * random.u32(0..90);
            match random.u8(0..6) {
                0 | 1 => {
                    truth = names
                        .iter()
                        .map(String::as_str)
                        .filter(|_| random.bool())
                        .collect();
                }
                2 => assert_eq!(set.answer(&[]), AnswerEffect::Empty),
                3 => {
                    set.membership.accept(set.now);
                }
                _ => {}
            }
            let down = names.get(random.usize(0..names.len())).cloned();
            let is_down = |name: &str| down.as_deref() == Some(name);
            let told: Vec<&str> = truth
                .iter()
                .copied()
                .filter(|_| random.u8(0..4) > 0)
                .collect();
            let policy = set.policy.clone();
            set.membership
                .answered(entries(&told), &policy, set.now, is_down);
            set.membership.tick(&policy, set.now, is_down);
            let listed = set.shown().iter().any(|one| one.ends_with('r'));
            assert!(listed, "seed {seed}: {:?}", set.shown());
        }
        if truth.is_empty() {
            return;
        }
        for _ in 0..200 {
            set.answer(&truth);
            set.pass(2);
        }
        let wanted: Vec<String> = truth.iter().map(|name| format!("{name}r")).collect();
        let mut shown = set.shown();
        shown.sort_by_key(|one| {
            names
                .iter()
                .position(|name| one.starts_with(name.as_str()) && one.len() == name.len() + 1)
        });
        assert_eq!(shown, wanted, "seed {seed}");
    }

    #[test]
    fn no_answers_empty_the_pool_and_the_last_one_wins() {
        let seeds = std::env::var("EVENKEEL_DISCOVERY_SEEDS");
        let seeds = seeds.ok().and_then(|text| text.parse().ok()).unwrap_or(200);
        (0..seeds).for_each(simulate);
    }
}
