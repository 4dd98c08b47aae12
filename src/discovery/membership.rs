//! Membership of a discovered set: which answers are believed, and how long a backend stays that is
//! not listed any more. Pure: answers and `now` are arguments.
//!
//! - An error, or an answer without a backend, changes nothing.
//! - An answer that takes more than `max_shrink`, at once or step by step, is held until the source
//!   has confirmed it without a break.
//! - An absent backend is a member for `remove_after`, without new connections; it is removed at
//!   once when its check finds it down. Only time in which the source answers counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// When the set came from another process, or from before a failure of the task.
    handed_at: Option<Instant>,
    /// The next answer is taken whatever its size: it is the first one of its source.
    is_new_source: bool,
    /// Sets before this one, each larger than the next: what leaves step by step is compared with
    /// the largest of them.
    larger: VecDeque<LargerSet>,
    /// Since when the source says nothing that is believed. That time is none in which an absent
    /// backend could have come back.
    silent_since: Option<Instant>,
    /// The set was stale where it came from.
    is_handed_stale: bool,
}

/// Size of a set that is the last good one no more.
#[derive(Debug)]
struct LargerSet {
    until: Instant,
    backends: usize,
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
    /// A fault or an empty answer came since: a source that breaks off confirms nothing.
    is_broken: bool,
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
        self.larger.clear();
        self.silent_since = self.silent_since.or(self.last_good);
    }

    /// Begins with the set that the pool has from another process, or from before a failure of the
    /// task. How long its absent members have been away is not known: their time begins again.
    pub(super) fn handed(found: Vec<DiscoveredBackend>, now: Instant) -> Membership {
        let is_absent = |one: &DiscoveredBackend| one.state == DiscoveryState::Absent;
        // No answer takes all: a set without a listed backend was stale.
        let is_stale = !found.is_empty() && found.iter().all(is_absent);
        let mut membership = Membership {
            handed_at: Some(now),
            silent_since: Some(now),
            is_handed_stale: is_stale,
            ..Membership::default()
        };
        for one in found {
            let member = Member {
                absent_since: (is_absent(&one) && !is_stale).then_some(now),
                entry: Entry {
                    host: one.host,
                    weight: Some(one.weight),
                    is_backup: one.backup,
                    is_drained: one.state == DiscoveryState::Drain,
                    ..Entry::new(&one.name, one.address)
                },
            };
            membership.members.insert(one.name, member);
        }
        membership
    }

    /// Gives an empty set the last good one of an earlier process; a set with members stays.
    pub(super) fn restore(&mut self, entries: Vec<Entry>) {
        if self.members.is_empty() {
            self.take(entries, None);
            self.is_new_source = false;
        }
    }

    /// The source failed, or its answer was none.
    pub(super) fn failed(&mut self, now: Instant) {
        // Nothing is known of the time since its last answer.
        let silent_since = self.last_good.unwrap_or(now);
        self.silent_since.get_or_insert(silent_since);
        if let Some(held) = &mut self.held {
            held.is_broken = true;
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
        if entries.is_empty() || self.lacks_every_ready_one(&entries, &is_down) {
            self.failed(now);
            return AnswerEffect::Empty;
        }
        self.last_good = Some(now);
        self.is_handed_stale = false;
        if !self.is_new_source && !self.takes_too_much(&entries, policy, now, is_down) {
            self.remember_size(now);
            self.take(entries, Some(now));
            return AnswerEffect::Taken;
        }
        let confirms = |held: &HeldAnswer| {
            !held.is_broken && now.saturating_duration_since(held.since) >= policy.confirm
        };
        let is_confirmed = policy.confirm.is_zero() || self.held.as_ref().is_some_and(confirms);
        if self.is_new_source || is_confirmed {
            self.larger.clear();
            self.take(entries, Some(now));
            return AnswerEffect::Taken;
        }
        self.hold(entries, now)
    }

    fn hold(&mut self, entries: Vec<Entry>, now: Instant) -> AnswerEffect {
        self.silent_since.get_or_insert(now);
        if let Some(held) = &mut self.held {
            if std::mem::take(&mut held.is_broken) {
                held.since = now;
            }
            held.entries = entries;
            return AnswerEffect::StillHeld;
        }
        let mut rereads = Backoff::new(FIRST_REREAD, MAX_REREAD);
        self.held = Some(HeldAnswer {
            entries,
            since: now,
            reread_at: now + rereads.next(),
            rereads,
            is_broken: false,
        });
        AnswerEffect::Held
    }

    /// Applies the passing of time, and verdicts of checks: absent members whose time is over
    /// leave. While the source says nothing nobody knows who is absent still, and only those leave
    /// that are down; of a stale set nobody.
    pub(super) fn tick(
        &mut self,
        policy: &DiscoverPolicy,
        now: Instant,
        is_down: impl Fn(&str) -> bool,
    ) {
        // The held answer takes nothing more once all that it lacks is down.
        let is_harmless =
            |held: &HeldAnswer| !self.takes_too_much(&held.entries, policy, now, &is_down);
        if self.held.as_ref().is_some_and(is_harmless) {
            self.accept(now);
        }
        if self.is_stale(policy, now) {
            return;
        }
        let (is_silent, larger) = (self.silent_since.is_some(), &mut self.larger);
        self.members.retain(|name, member| {
            let Some(since) = member.absent_since else {
                return true;
            };
            if is_down(name) {
                // Nothing is lost with it: the sets that it was in count without it.
                for set in larger.iter_mut().filter(|set| set.until <= since) {
                    set.backends = set.backends.saturating_sub(1);
                }
                return false;
            }
            is_silent || now.saturating_duration_since(since) < policy.remove_after
        });
    }

    /// Takes the answer that is held; false where there is none.
    pub(super) fn accept(&mut self, now: Instant) -> bool {
        let held = self.held.take();
        let has_held = held.is_some();
        if let Some(held) = held {
            self.larger.clear();
            self.take(held.entries, Some(now));
        }
        has_held
    }

    /// When [`Membership::tick`] has something to do next.
    pub(super) fn next_at(&self, policy: &DiscoverPolicy, now: Instant) -> Option<Instant> {
        let absent = self.members.values().filter_map(|one| one.absent_since);
        let absent = absent.filter(|_| self.silent_since.is_none());
        let removal = absent.filter_map(|since| since.checked_add(policy.remove_after));
        let stale = (!policy.max_stale.is_zero())
            .then(|| {
                let since = self.last_good.or(self.handed_at)?;
                since.checked_add(policy.max_stale)
            })
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
        let age = self.last_good.or(self.handed_at);
        let age = age.map(|at| now.saturating_duration_since(at));
        let is_old = age.is_some_and(|age| age >= policy.max_stale);
        !policy.max_stale.is_zero() && (is_old || self.is_handed_stale)
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

    /// Whether an answer has no backend that is ready, and lacks one that is and can still be used:
    /// it would leave nobody, as an empty one.
    fn lacks_every_ready_one(&self, entries: &[Entry], is_down: &impl Fn(&str) -> bool) -> bool {
        if entries.iter().any(|one| !one.is_drained) {
            return false;
        }
        let names: BTreeSet<&str> = entries.iter().map(|one| one.name.as_str()).collect();
        let is_lost = |one: &Entry| !one.is_drained && !names.contains(&*one.name);
        self.listed().any(|one| is_lost(one) && !is_down(&one.name))
    }

    /// Compares sizes, not names: a roll-out renames all. The size before is the largest of the
    /// last `confirm`: leases that lapse one by one, while the nodes cannot reach the registry,
    /// take as much as one answer would. Members that are down are not counted, as far as the
    /// answer lacks them: nothing is lost with them.
    fn takes_too_much(
        &self,
        entries: &[Entry],
        policy: &DiscoverPolicy,
        now: Instant,
        is_down: impl Fn(&str) -> bool,
    ) -> bool {
        let names: BTreeSet<&str> = entries.iter().map(|one| one.name.as_str()).collect();
        let is_lost = |name: &str| !names.contains(name) && is_down(name);
        let kept = self.listed().filter(|one| !is_lost(&one.name)).count();
        let age = |set: &LargerSet| now.saturating_duration_since(set.until);
        let mut larger = self.larger.iter();
        let before = larger.find(|set| age(set) < policy.confirm).map(|set| {
            let was_in = |one: &Member| one.absent_since.is_none_or(|since| since >= set.until);
            let members = self.members.iter();
            let lost = members.filter(|(name, one)| was_in(one) && is_lost(name));
            set.backends.saturating_sub(lost.count())
        });
        let kept = kept.max(before.unwrap_or(0));
        let taken = kept.saturating_sub(entries.len());
        taken * 100 > kept * usize::from(policy.max_shrink)
    }

    /// Keeps the size of the set that is about to be replaced. One is kept of each size at most, so
    /// that there are no more than an answer may have entries.
    fn remember_size(&mut self, now: Instant) {
        let backends = self.listed().count();
        while self
            .larger
            .back()
            .is_some_and(|set| set.backends <= backends)
        {
            self.larger.pop_back();
        }
        self.larger.push_back(LargerSet {
            until: now,
            backends,
        });
    }

    /// Makes `entries` the listed ones; the others are absent from `now` on. `None`: none is there.
    fn take(&mut self, entries: Vec<Entry>, now: Option<Instant>) {
        self.held = None;
        self.is_new_source = false;
        let silent_since = self.silent_since.take();
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
            member.absent_since = Some(match (member.absent_since, silent_since) {
                (None, _) => now,
                (Some(since), None) => since,
                // The time in which nothing was said does not count.
                (Some(since), Some(silent)) => {
                    since + now.saturating_duration_since(silent.max(since))
                }
            });
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

        fn fail(&mut self) {
            self.membership.failed(self.now);
            self.membership.tick(&self.policy, self.now, up);
        }

        /// The set as another process takes it over.
        fn handed(&self) -> Set {
            let backends = self.membership.backends(&self.policy, DEFAULTS, self.now);
            Set {
                membership: Membership::handed(backends, self.now),
                policy: self.policy.clone(),
                now: self.now,
            }
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

    #[test]
    fn a_handed_set_is_guarded_as_before() {
        let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut set = Set::of(&names);
        set.answer(&names[..9]);
        let before = set.shown();
        let mut set = set.handed();
        assert_eq!(set.shown(), before);
        assert_eq!(set.answer(&names[..1]), AnswerEffect::Held);
        set.pass(119);
        assert_eq!(set.shown(), before);
        assert_eq!(set.answer(&names[..8]), AnswerEffect::Taken);
        assert_eq!(set.membership.counts().absent, 2);
        set.pass(119);
        assert_eq!(set.membership.counts().absent, 2);
        set.pass(1);
        assert_eq!(set.shown().len(), 8);
        // No file takes its place while nobody answers.
        let mut set = set.handed();
        set.membership.restore(entries(&["old"]));
        assert_eq!(set.shown().len(), 8);
    }

    #[test]
    fn a_set_that_was_handed_stale_stays_so_until_an_answer() {
        let mut set = Set::of(&["a", "b"]);
        set.policy.max_stale = 600 * SECOND;
        set.pass(600);
        let mut set = set.handed();
        assert_eq!(set.shown(), ["aa", "ba"]);
        set.pass(10_000);
        assert_eq!(set.shown(), ["aa", "ba"]);
        assert_eq!(set.answer(&["a", "b"]), AnswerEffect::Taken);
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    #[test]
    fn a_handed_set_without_answers_becomes_stale() {
        let mut set = Set::of(&["a"]).handed();
        set.policy.max_stale = 600 * SECOND;
        set.pass(599);
        assert_eq!(set.shown(), ["ar"]);
        set.pass(1);
        assert_eq!(set.shown(), ["aa"]);
    }

    #[test]
    fn leases_that_lapse_one_by_one_are_held_at_the_same_size_as_one_answer() {
        let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut set = Set::of(&names);
        for left in (5..10).rev() {
            set.pass(1);
            assert_eq!(set.answer(&names[..left]), AnswerEffect::Taken, "{left}");
        }
        set.pass(1);
        assert_eq!(set.answer(&names[..4]), AnswerEffect::Held);
        for left in [3, 2, 1] {
            set.pass(1);
            assert_eq!(set.answer(&names[..left]), AnswerEffect::StillHeld);
        }
        assert_eq!((set.membership.counts().ready, set.shown().len()), (5, 10));
        set.pass(117);
        assert_eq!(set.answer(&names[..1]), AnswerEffect::Taken);
        // Once it is believed, it is what later answers are compared with.
        set.pass(1);
        assert_eq!(set.answer(&names[..1]), AnswerEffect::Taken);
    }

    #[test]
    fn backends_that_leave_slowly_or_down_are_let_go() {
        let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut set = Set::of(&names);
        for left in (3..10).rev() {
            set.pass(50);
            assert_eq!(set.answer(&names[..left]), AnswerEffect::Taken, "{left}");
        }
        let mut set = Set::of(&names);
        for left in (1..10).rev() {
            set.pass(1);
            let is_down = |name: &str| !names[..left].contains(&name);
            let effect =
                set.membership
                    .answered(entries(&names[..left]), &set.policy, set.now, is_down);
            assert_eq!(effect, AnswerEffect::Taken, "{left}");
            set.membership.tick(&set.policy, set.now, is_down);
            assert_eq!(set.shown().len(), left);
        }
    }

    #[test]
    fn time_in_which_the_source_fails_is_not_that_of_an_absent_backend() {
        let mut set = Set::of(&["a", "b", "c"]);
        set.answer(&["a", "b"]);
        set.pass(60);
        set.answer(&["a", "b"]);
        set.pass(10);
        set.fail();
        set.pass(1000);
        assert_eq!(set.shown(), ["ar", "br", "ca"]);
        assert_eq!(set.membership.next_at(&set.policy, set.now), None);
        set.answer(&["a", "b"]);
        set.pass(59);
        assert_eq!(set.shown(), ["ar", "br", "ca"]);
        set.pass(1);
        assert_eq!(set.shown(), ["ar", "br"]);
    }

    #[test]
    fn time_in_which_an_answer_is_held_is_not_that_of_an_absent_backend() {
        let mut set = Set::of(&["a", "b", "c", "d", "e"]);
        set.answer(&["a", "b", "c", "d"]);
        set.pass(60);
        assert_eq!(set.answer(&["a"]), AnswerEffect::Held);
        set.pass(110);
        assert_eq!(set.answer(&["a"]), AnswerEffect::StillHeld);
        assert_eq!(set.shown(), ["ar", "br", "cr", "dr", "ea"]);
        assert_eq!(set.answer(&["a", "b", "c", "d"]), AnswerEffect::Taken);
        set.pass(59);
        assert_eq!(set.shown().len(), 5);
        set.pass(1);
        assert_eq!(set.shown().len(), 4);
    }

    #[test]
    fn a_source_that_breaks_off_confirms_nothing() {
        let interruptions: [fn(&mut Set); 2] = [
            |set| set.fail(),
            |set| assert_eq!(set.answer(&[]), AnswerEffect::Empty),
        ];
        for interrupt in interruptions {
            let mut set = Set::of(&["a", "b", "c", "d"]);
            assert_eq!(set.answer(&["a"]), AnswerEffect::Held);
            set.pass(1);
            interrupt(&mut set);
            set.pass(600);
            assert_eq!(set.answer(&["a"]), AnswerEffect::StillHeld);
            set.pass(119);
            assert_eq!(set.answer(&["a"]), AnswerEffect::StillHeld);
            set.pass(1);
            assert_eq!(set.answer(&["a"]), AnswerEffect::Taken);
        }
    }

    #[test]
    fn drained_backends_alone_are_believed_only_where_none_is_missing() {
        let drained = |name: &str| Entry {
            is_drained: true,
            ..entry(name)
        };
        let mut set = Set::of(&["a", "b"]);
        let now = set.now;
        let mut answer = |entries: Vec<Entry>, down: &str| {
            let is_down = |name: &str| name == down;
            set.membership.answered(entries, &set.policy, now, is_down)
        };
        assert_eq!(answer(vec![drained("a")], ""), AnswerEffect::Empty);
        assert_eq!(answer(vec![drained("a")], "b"), AnswerEffect::Taken);
        assert_eq!(answer(entries(&["a", "b"]), ""), AnswerEffect::Taken);
        let all = vec![drained("a"), drained("b")];
        assert_eq!(answer(all, ""), AnswerEffect::Taken);
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
