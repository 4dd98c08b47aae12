//! Members of the cluster, as this one sees them. Pure: reports in, with `now`.
//!
//! A member is there as long as its `seq` moves, by the clock of who looks: wall clocks of machines
//! differ, and the store's expiry is no sign of life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::names::{BackendNames, NamesDigest};
use super::report::MemberReport;

/// Most members; far above what one store bears at an exchange a second.
pub(super) const MAX_MEMBERS: usize = 128;
/// Boots of a member that are remembered: an old report that somebody writes again is no sign of
/// life.
const MAX_BOOTS: usize = 8;

/// All members but this one.
#[derive(Debug)]
pub(super) struct Members {
    expire: Duration,
    known: BTreeMap<String, KnownMember>,
    lists: BTreeMap<NamesDigest, Arc<BackendNames>>,
}

#[derive(Debug)]
struct KnownMember {
    report: MemberReport,
    /// When its `seq` moved last.
    moved_at: Instant,
    is_present: bool,
    /// Boots with their highest `seq`, the latest last.
    boots: VecDeque<(u64, u64)>,
}

/// Effect of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A member that was not there.
    Joined,
    /// A sign of life.
    Moved,
    /// Nothing new.
    Same,
}

/// Sight of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberSight {
    pub id: String,
    pub age: Duration,
    pub operator: [u8; 16],
    pub connections: u64,
}

impl Members {
    pub(super) fn new(expire: Duration) -> Members {
        Members {
            expire,
            known: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    /// Takes the report that is in the store under this id.
    pub(super) fn hear(&mut self, id: &str, report: MemberReport, now: Instant) -> Heard {
        if let Some(known) = self.known.get_mut(id) {
            return known.hear(report, now);
        }
        if self.known.len() >= MAX_MEMBERS {
            let gone = self.known.iter().find(|(_, known)| !known.is_present);
            let Some(gone) = gone.map(|(id, _)| id.clone()) else {
                return Heard::Same;
            };
            self.known.remove(&gone);
        }
        let known = KnownMember {
            boots: VecDeque::from([(report.boot, report.seq)]),
            report,
            moved_at: now,
            is_present: true,
        };
        self.known.insert(id.to_owned(), known);
        Heard::Joined
    }

    /// Takes out the members that gave no sign of life for `expire`, and returns their ids.
    pub(super) fn retire(&mut self, now: Instant) -> Vec<String> {
        let expire = self.expire;
        let silent = self.known.iter_mut().filter(|(_, known)| {
            let age = now.saturating_duration_since(known.moved_at);
            known.is_present && age >= expire
        });
        silent
            .map(|(id, known)| {
                known.is_present = false;
                id.clone()
            })
            .collect()
    }

    /// Takes it back that time has passed while nothing could be heard: `gap`, up to `now`. A
    /// member that could not speak either is not gone yet.
    pub(super) fn forgive(&mut self, gap: Duration, now: Instant) {
        if gap < self.expire {
            return;
        }
        let present = self.known.values_mut().filter(|known| known.is_present);
        for known in present {
            known.moved_at = (known.moved_at + gap).min(now);
        }
    }

    /// Takes out a member that has said goodbye; false if it was not there.
    pub(super) fn dismiss(&mut self, id: &str) -> bool {
        let known = self.known.get_mut(id);
        known.is_some_and(|known| std::mem::replace(&mut known.is_present, false))
    }

    /// Lists of names that are not known yet.
    pub(super) fn wanted_lists(&self) -> Vec<NamesDigest> {
        let wanted: BTreeSet<_> = self
            .present()
            .map(|(_, known)| known.report.names)
            .collect();
        let unknown = wanted
            .into_iter()
            .filter(|one| !self.lists.contains_key(one));
        unknown.collect()
    }

    /// Keeps a list of names, and forgets those that nobody has any more.
    pub(super) fn learn(&mut self, names: BackendNames) {
        let used: BTreeSet<_> = self
            .present()
            .map(|(_, known)| known.report.names)
            .collect();
        self.lists.retain(|digest, _| used.contains(digest));
        self.lists.insert(names.digest(), Arc::new(names));
    }

    /// Live connections of each backend at all other members.
    pub(super) fn loads(&self) -> BTreeMap<&str, u64> {
        let mut loads = BTreeMap::new();
        for (_, known) in self.present() {
            let Some(names) = self.lists.get(&known.report.names) else {
                continue;
            };
            for (name, load) in names.names().iter().zip(&known.report.loads) {
                *loads.entry(name.as_str()).or_default() += u64::from(*load);
            }
        }
        loads
    }

    /// Connections of sources at all other members, member by member.
    pub(super) fn sources(&self) -> Vec<(u64, u32)> {
        let sources = self.present().flat_map(|(_, known)| &known.report.sources);
        sources.copied().collect()
    }

    /// How many are there.
    pub(super) fn count(&self) -> usize {
        self.present().count()
    }

    /// The members that are there, with their ages.
    pub(super) fn sights(&self, now: Instant) -> Vec<MemberSight> {
        let sight = |(id, known): (&String, &KnownMember)| MemberSight {
            id: id.clone(),
            age: now.saturating_duration_since(known.moved_at),
            operator: known.report.operator,
            connections: known.report.loads.iter().map(|load| u64::from(*load)).sum(),
        };
        self.present().map(sight).collect()
    }

    fn present(&self) -> impl Iterator<Item = (&String, &KnownMember)> {
        self.known.iter().filter(|(_, known)| known.is_present)
    }
}

impl KnownMember {
    fn hear(&mut self, report: MemberReport, now: Instant) -> Heard {
        let mut boots = self.boots.iter_mut();
        match boots.find(|(boot, _)| *boot == report.boot) {
            Some((_, seq)) if report.seq <= *seq => return Heard::Same,
            Some((_, seq)) => *seq = report.seq,
            None => {
                if self.boots.len() == MAX_BOOTS {
                    self.boots.pop_front();
                }
                self.boots.push_back((report.boot, report.seq));
            }
        }
        let was_present = std::mem::replace(&mut self.is_present, true);
        self.report = report;
        self.moved_at = now;
        if was_present {
            Heard::Moved
        } else {
            Heard::Joined
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPIRE: Duration = Duration::from_secs(5);

    fn names() -> BackendNames {
        BackendNames::new(vec!["p/a".to_owned(), "p/b".to_owned()])
    }

    fn report(boot: u64, seq: u64, loads: [u32; 2]) -> MemberReport {
        MemberReport::new(boot, seq, names().digest(), loads.to_vec())
    }

    #[test]
    fn loads_are_summed_by_name_once_the_names_are_known() {
        let (mut members, now) = (Members::new(EXPIRE), Instant::now());
        members.hear("one", report(1, 1, [3, 4]), now);
        members.hear("two", report(2, 9, [10, 0]), now);
        assert_eq!(members.loads(), BTreeMap::new());
        assert_eq!(members.wanted_lists(), [names().digest()]);
        members.learn(names());
        assert!(members.wanted_lists().is_empty());
        assert_eq!(members.loads(), BTreeMap::from([("p/a", 13), ("p/b", 4)]));
    }

    #[test]
    fn a_member_whose_seq_stands_is_gone_and_comes_back_by_a_new_one_only() {
        let (mut members, start) = (Members::new(EXPIRE), Instant::now());
        members.learn(names());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            members.hear("one", report(1, 5, [1, 1]), at(0)),
            Heard::Joined
        );
        members.learn(names());
        assert_eq!(
            members.hear("one", report(1, 5, [1, 1]), at(4)),
            Heard::Same
        );
        assert!(members.retire(at(4)).is_empty());
        assert_eq!(members.retire(at(5)), ["one"]);
        assert_eq!((members.count(), members.loads().len()), (0, 0));
        // An old report that is written again is no sign of life.
        for old in [4, 5] {
            assert_eq!(
                members.hear("one", report(1, old, [9, 9]), at(6)),
                Heard::Same
            );
        }
        assert_eq!(members.count(), 0);
        assert_eq!(
            members.hear("one", report(2, 1, [2, 2]), at(7)),
            Heard::Joined
        );
        assert_eq!(
            members.hear("one", report(1, 5, [9, 9]), at(7)),
            Heard::Same
        );
        assert_eq!(members.loads()["p/a"], 2);
    }

    #[test]
    fn time_in_which_nothing_can_be_heard_is_no_age() {
        let (mut members, start) = (Members::new(EXPIRE), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        members.hear("one", report(1, 5, [1, 1]), at(0));
        members.hear("two", report(1, 5, [1, 1]), at(0));
        // Heard until 2, and again at 60, where only one is back.
        members.hear("one", report(1, 6, [1, 1]), at(60));
        members.forgive(Duration::from_secs(58), at(60));
        assert!(members.retire(at(60)).is_empty());
        assert_eq!(members.retire(at(63)), ["two"]);
        assert_eq!(members.count(), 1);
    }

    #[test]
    fn there_are_no_more_members_than_the_bound_and_a_gone_one_makes_room() {
        let (mut members, now) = (Members::new(EXPIRE), Instant::now());
        for number in 0..=MAX_MEMBERS {
            members.hear(&format!("m{number}"), report(1, 1, [0, 0]), now);
        }
        assert_eq!(members.count(), MAX_MEMBERS);
        assert_eq!(members.hear("late", report(1, 1, [0, 0]), now), Heard::Same);
        let later = now + EXPIRE;
        members.hear("m1", report(1, 2, [0, 0]), later);
        assert_eq!(members.retire(later).len(), MAX_MEMBERS - 1);
        assert_eq!(
            members.hear("late", report(1, 1, [0, 0]), later),
            Heard::Joined
        );
        assert_eq!(members.count(), 2);
    }

    proptest! {
        #[test]
        fn only_the_newest_report_of_each_member_counts(
            reports in prop::collection::vec((0..3_usize, 0..3_u64, 1..9_u64, 0..100_u32), 0..60),
        ) {
            let (mut members, now) = (Members::new(EXPIRE), Instant::now());
            let mut newest: BTreeMap<usize, (u64, u64, u32)> = BTreeMap::new();
            let mut seen: BTreeMap<(usize, u64), u64> = BTreeMap::new();
            for (who, boot, seq, load) in reports {
                members.hear(&format!("m{who}"), report(boot, seq, [load, 0]), now);
                let highest = seen.entry((who, boot)).or_default();
                if seq > *highest {
                    *highest = seq;
                    newest.insert(who, (boot, seq, load));
                }
                members.learn(names());
            }
            let wanted: u64 = newest.values().map(|(_, _, load)| u64::from(*load)).sum();
            prop_assert_eq!(members.loads().get("p/a").copied().unwrap_or_default(), wanted);
        }
    }
}
