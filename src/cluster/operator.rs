//! The operator's states of the cluster: one table that every member has whole. Pure.
//!
//! Each field of a backend has its own entry with a revision, and the highest one wins. Merging two
//! tables gives the same result in any order, so members agree whatever the store has lost: one
//! that is empty or older takes nothing away, and what it lacks is written back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{MAX_NAME, short_digest};

/// Most entries of a table: a state of each of ten thousand backends. A store's answer holds as
/// many.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Largest entry: an identity, and a drain with a reason of 123 bytes, which JSON may escape.
const MAX_ENTRY: usize = 2_048;

/// Field of a backend that the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OperatorField {
    State,
    Weight,
}

/// Field of one backend, written `s:POOL/BACKEND` or `w:POOL/BACKEND`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OperatorKey {
    pub pool: String,
    pub backend: String,
    pub field: OperatorField,
}

/// Value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperatorValue {
    Ready,
    Drain(SharedDrain),
    Maint,
    /// `None`: the configured one.
    Weight(Option<u16>),
}

/// Effect of a drain on the live connections of each member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SharedDrain {
    /// As the pool of that member says.
    Default,
    Keep,
    Pace(SharedPace),
}

/// Pace over the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedPace {
    pub rate: Option<String>,
    pub deadline: Option<Duration>,
    pub after: Duration,
    pub code: u16,
    pub reason: String,
}

/// Value with its revision and the member that has set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OperatorEntry {
    pub rev: u64,
    pub by: String,
    pub value: OperatorValue,
}

/// Effect of an entry on a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Merged {
    Same,
    /// In force now, in place of this one.
    Taken(Option<OperatorEntry>),
    /// The one in the table stays.
    Older,
    /// There is no room for it.
    Full,
}

/// Table of all entries.
#[derive(Debug, Default)]
pub(super) struct OperatorTable {
    entries: BTreeMap<OperatorKey, OperatorEntry>,
    /// Digest of the entries as they are; `None` after a change.
    digest: Option<[u8; 16]>,
}

impl OperatorTable {
    /// Takes an entry that stands above the one of the same field.
    pub(super) fn merge(&mut self, key: &OperatorKey, entry: OperatorEntry) -> Merged {
        match self.entries.get(key) {
            Some(present) if *present == entry => return Merged::Same,
            Some(present) if present.rank() > entry.rank() => return Merged::Older,
            _ => {}
        }
        let is_full = self.entries.len() >= MAX_ENTRIES && !self.entries.contains_key(key);
        if is_full && !self.forget_neutral() {
            return Merged::Full;
        }
        self.digest = None;
        Merged::Taken(self.entries.insert(key.clone(), entry))
    }

    /// Whether a field may be set.
    pub(super) fn has_room(&self, key: &OperatorKey) -> bool {
        self.entries.len() < MAX_ENTRIES
            || self.entries.contains_key(key)
            || self.entries.values().any(|entry| entry.value.is_neutral())
    }

    /// An entry above all that is known.
    pub(super) fn next(&self, value: OperatorValue, by: &str) -> OperatorEntry {
        let highest = self.entries.values().map(|entry| entry.rev).max();
        OperatorEntry {
            rev: highest.unwrap_or_default().saturating_add(1),
            by: by.to_owned(),
            value,
        }
    }

    pub(super) fn entries(&self) -> &BTreeMap<OperatorKey, OperatorEntry> {
        &self.entries
    }

    /// Entries that `store` lacks, or has an older one of. A neutral one is wanted there only above
    /// another.
    pub(super) fn missing_in(
        &self,
        store: &BTreeMap<OperatorKey, OperatorEntry>,
    ) -> Vec<(OperatorKey, OperatorEntry)> {
        let is_behind = |(key, entry): &(&OperatorKey, &OperatorEntry)| {
            let stored = store.get(key);
            match stored {
                None => !entry.value.is_neutral(),
                Some(stored) => stored.rank() < entry.rank(),
            }
        };
        let behind = self.entries.iter().filter(is_behind);
        behind
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// Makes room: the lowest neutral entry goes. `false`: there is none.
    fn forget_neutral(&mut self) -> bool {
        let neutral = self.entries.iter();
        let neutral = neutral.filter(|(_, entry)| entry.value.is_neutral());
        let lowest = neutral.min_by_key(|(_, entry)| entry.rev);
        let lowest = lowest.map(|(key, _)| key.clone());
        lowest.is_some_and(|key| self.entries.remove(&key).is_some())
    }

    /// Digest by which members see that they have the same table. Neutral entries are not in it:
    /// they may be forgotten.
    pub(super) fn digest(&mut self) -> [u8; 16] {
        if let Some(digest) = self.digest {
            return digest;
        }
        let mut bytes = Vec::new();
        let set = self.entries.iter();
        for (key, entry) in set.filter(|(_, entry)| !entry.value.is_neutral()) {
            bytes.extend(key.to_string().into_bytes());
            bytes.push(0);
            bytes.extend(entry.encode());
        }
        *self.digest.insert(short_digest(&bytes))
    }
}

impl OperatorEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Neither its strings nor its numbers can be refused.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None`: it is of a newer version, or none.
    pub(super) fn decode(bytes: &[u8], field: OperatorField) -> Option<OperatorEntry> {
        if bytes.len() > MAX_ENTRY {
            return None;
        }
        let entry: OperatorEntry = serde_json::from_slice(bytes).ok()?;
        (entry.value.field() == field).then_some(entry)
    }

    /// Order of all entries of a field. Where two have the same revision, as after a split of the
    /// store, the one that sends less to the backend stands above.
    fn rank(&self) -> (u64, u16, Vec<u8>) {
        (self.rev, self.value.severity(), self.encode())
    }
}

impl OperatorValue {
    pub(super) fn field(&self) -> OperatorField {
        match self {
            OperatorValue::Weight(_) => OperatorField::Weight,
            _ => OperatorField::State,
        }
    }

    /// Whether it is as if nobody had touched the field. Such an entry stands above older ones.
    pub(super) fn is_neutral(&self) -> bool {
        matches!(self, OperatorValue::Ready | OperatorValue::Weight(None))
    }

    fn severity(&self) -> u16 {
        match self {
            OperatorValue::Ready | OperatorValue::Weight(None) => 0,
            OperatorValue::Drain(_) => 1,
            OperatorValue::Maint => 2,
            OperatorValue::Weight(Some(weight)) => u16::MAX - weight,
        }
    }
}

impl fmt::Display for OperatorValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperatorValue::Ready => f.write_str("ready"),
            OperatorValue::Drain(_) => f.write_str("drain"),
            OperatorValue::Maint => f.write_str("maint"),
            OperatorValue::Weight(Some(weight)) => write!(f, "weight {weight}"),
            OperatorValue::Weight(None) => f.write_str("configured weight"),
        }
    }
}

impl OperatorKey {
    /// Parses what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<OperatorKey> {
        if text.len() > MAX_NAME {
            return None;
        }
        let (field, name) = text.split_once(':')?;
        let field = match field {
            "s" => OperatorField::State,
            "w" => OperatorField::Weight,
            _ => return None,
        };
        let (pool, backend) = name.split_once('/')?;
        Some(OperatorKey {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
            field,
        })
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self.field {
            OperatorField::State => 's',
            OperatorField::Weight => 'w',
        };
        write!(f, "{field}:{}/{}", self.pool, self.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(backend: &str, field: OperatorField) -> OperatorKey {
        OperatorKey {
            pool: "chat".to_owned(),
            backend: backend.to_owned(),
            field,
        }
    }

    fn entry(rev: u64, by: &str, value: OperatorValue) -> OperatorEntry {
        OperatorEntry {
            rev,
            by: by.to_owned(),
            value,
        }
    }

    fn value() -> impl Strategy<Value = OperatorValue> {
        prop_oneof![
            Just(OperatorValue::Ready),
            Just(OperatorValue::Drain(SharedDrain::Default)),
            Just(OperatorValue::Drain(SharedDrain::Keep)),
            Just(OperatorValue::Maint),
            prop::option::of(0..257_u16).prop_map(OperatorValue::Weight),
        ]
    }

    fn written() -> impl Strategy<Value = Vec<(OperatorKey, OperatorEntry)>> {
        let one = ("[ab]", 1..5_u64, "[xy]", value()).prop_map(|(backend, rev, by, value)| {
            let field = value.field();
            (key(&backend, field), entry(rev, &by, value))
        });
        prop::collection::vec(one, 0..24)
    }

    fn table(written: &[(OperatorKey, OperatorEntry)]) -> OperatorTable {
        let mut table = OperatorTable::default();
        for (key, entry) in written {
            table.merge(key, entry.clone());
        }
        table
    }

    #[test]
    fn a_full_table_forgets_what_nobody_has_set_and_nothing_else() {
        let mut table = OperatorTable::default();
        let name = |number: usize| key(&format!("n{number}"), OperatorField::State);
        let maint = |rev: usize| entry(rev as u64, "lb1", OperatorValue::Maint);
        for number in 0..MAX_ENTRIES {
            let mut one = maint(number);
            if matches!(number, 7 | 9) {
                one.value = OperatorValue::Ready;
            }
            assert_eq!(table.merge(&name(number), one), Merged::Taken(None));
        }
        for (late, gone) in [(MAX_ENTRIES, 7), (MAX_ENTRIES + 1, 9)] {
            assert!(table.has_room(&name(late)));
            assert_eq!(table.merge(&name(late), maint(1)), Merged::Taken(None));
            assert!(!table.entries().contains_key(&name(gone)));
        }
        let late = name(MAX_ENTRIES + 2);
        assert!(!table.has_room(&late) && table.has_room(&name(1)));
        assert_eq!(table.merge(&late, maint(1)), Merged::Full);
        assert_eq!(table.entries().len(), MAX_ENTRIES);
    }

    #[test]
    fn a_ready_goes_to_the_store_only_above_something_else() {
        let mut table = OperatorTable::default();
        let name = key("n1", OperatorField::State);
        table.merge(&name, entry(5, "lb1", OperatorValue::Ready));
        assert!(table.missing_in(&BTreeMap::new()).is_empty());
        assert_eq!(table.digest(), OperatorTable::default().digest());
        let older = BTreeMap::from([(name, entry(4, "lb2", OperatorValue::Maint))]);
        assert_eq!(table.missing_in(&older).len(), 1);
    }

    #[test]
    fn a_later_word_wins_over_an_earlier_one_of_another_member() {
        let (mut table, state) = (OperatorTable::default(), key("n1", OperatorField::State));
        let drain = table.next(OperatorValue::Drain(SharedDrain::Default), "lb1");
        assert_eq!(table.merge(&state, drain.clone()), Merged::Taken(None));
        let ready = table.next(OperatorValue::Ready, "lb2");
        assert_eq!(
            table.merge(&state, ready),
            Merged::Taken(Some(drain.clone()))
        );
        assert_eq!(table.merge(&state, drain), Merged::Older);
    }

    #[test]
    fn a_store_that_is_empty_or_older_gets_back_what_it_lacks() {
        let state = key("n1", OperatorField::State);
        let mut table = OperatorTable::default();
        let old = entry(1, "lb1", OperatorValue::Ready);
        table.merge(&state, old.clone());
        let before = BTreeMap::from([(state.clone(), old)]);
        assert!(table.missing_in(&before).is_empty());
        let drain = table.next(OperatorValue::Drain(SharedDrain::Keep), "lb1");
        table.merge(&state, drain.clone());
        let lacks = vec![(state, drain)];
        assert_eq!(table.missing_in(&before), lacks);
        assert_eq!(table.missing_in(&BTreeMap::new()), lacks);
    }

    #[test]
    fn after_a_split_the_same_revision_leaves_the_backend_drained() {
        let state = key("n1", OperatorField::State);
        let halves = [
            (state.clone(), entry(7, "zz", OperatorValue::Ready)),
            (state.clone(), entry(7, "aa", OperatorValue::Maint)),
        ];
        let kept = table(&halves).entries[&state].value.clone();
        assert_eq!(kept, OperatorValue::Maint);
    }

    #[test]
    fn a_full_table_takes_no_further_backend() {
        let mut table = OperatorTable::default();
        for number in 0..MAX_ENTRIES {
            let key = key(&number.to_string(), OperatorField::State);
            table.merge(&key, entry(1, "a", OperatorValue::Maint));
        }
        let maint = entry(2, "a", OperatorValue::Maint);
        let further = key("x", OperatorField::State);
        assert_eq!(table.merge(&further, maint.clone()), Merged::Full);
        let known = key("7", OperatorField::State);
        assert!(matches!(table.merge(&known, maint), Merged::Taken(Some(_))));
    }

    proptest! {
        #[test]
        fn tables_agree_in_whatever_order_entries_come(
            (written, shuffled) in written().prop_flat_map(|all| {
                (Just(all.clone()), Just(all).prop_shuffle())
            }),
        ) {
            let (mut one, mut other) = (table(&written), table(&shuffled));
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert_eq!(&one.entries, &other.entries);
            prop_assert!(one.missing_in(&other.entries).is_empty());
        }

        #[test]
        fn no_revision_ever_falls(written in written()) {
            let mut table = OperatorTable::default();
            for (key, entry) in written {
                let before = table.entries.get(&key).map_or(0, |entry| entry.rev);
                table.merge(&key, entry);
                prop_assert!(table.entries[&key].rev >= before);
            }
        }

        #[test]
        fn keys_and_entries_are_read_as_they_were_written(
            backend in "[a-z0-9:/.]{1,20}", rev in any::<u64>(), value in value(),
        ) {
            let key = key(&backend, value.field());
            prop_assert_eq!(OperatorKey::parse(&key.to_string()), Some(key.clone()));
            let entry = entry(rev, "lb1", value);
            prop_assert_eq!(OperatorEntry::decode(&entry.encode(), key.field), Some(entry));
        }

        #[test]
        fn any_bytes_are_read_or_not(text in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = OperatorKey::parse(&text);
            let _ = OperatorEntry::decode(&bytes, OperatorField::State);
        }
    }
}
