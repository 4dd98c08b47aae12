//! A cluster over a store that loses what it has: members exchange in any order, the store is
//! emptied, set back and split, and in the end all agree and nothing that was drained is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::exchange::{OwnNumbers, StoreExchange};
use super::operator::{
    Merged, OperatorEntry, OperatorKey, OperatorTable, OperatorValue, SharedDrain,
};
use super::seal::ClusterSecret;
use super::stored::StoredTable;
use crate::wire::resp::{self, RespValue};

const EXPIRE: Duration = Duration::from_secs(5);

/// As much of Redis as the members use.
#[derive(Clone, Default)]
struct FakeStore {
    strings: BTreeMap<Vec<u8>, Vec<u8>>,
    sets: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    hashes: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl FakeStore {
    fn call(&mut self, command: &[u8]) -> RespValue {
        let (RespValue::List(words), _) = resp::read(command).unwrap() else {
            panic!("no command");
        };
        let words: Vec<Vec<u8>> = words
            .into_iter()
            .map(|word| match word {
                RespValue::Bytes(bytes) => bytes,
                other => panic!("{other:?} in a command"),
            })
            .collect();
        let get = |store: &FakeStore, key: &Vec<u8>| {
            let found = store.strings.get(key).cloned();
            found.map_or(RespValue::Null, RespValue::Bytes)
        };
        let hash = |store: &FakeStore, key: &Vec<u8>| store.hashes.get(key).cloned();
        match words[0].as_slice() {
            b"MGET" => RespValue::List(words[1..].iter().map(|key| get(self, key)).collect()),
            b"GET" => get(self, &words[1]),
            b"SET" => {
                self.strings.insert(words[1].clone(), words[2].clone());
                RespValue::Status("OK".to_owned())
            }
            b"SADD" => {
                let set = self.sets.entry(words[1].clone()).or_default();
                set.insert(words[2].clone());
                RespValue::Number(1)
            }
            b"SREM" => {
                let set = self.sets.entry(words[1].clone()).or_default();
                set.retain(|id| !words[2..].contains(id));
                RespValue::Number(0)
            }
            b"DEL" => {
                self.strings.remove(&words[1]);
                RespValue::Number(1)
            }
            b"SMEMBERS" => {
                let set = self.sets.get(&words[1]).cloned().unwrap_or_default();
                RespValue::List(set.into_iter().map(RespValue::Bytes).collect())
            }
            b"HGETALL" => {
                let fields = hash(self, &words[1]).unwrap_or_default().into_iter();
                let fields = fields.flat_map(|(field, value)| [field, value]);
                RespValue::List(fields.map(RespValue::Bytes).collect())
            }
            b"HGET" => {
                let value = hash(self, &words[1]).and_then(|hash| hash.get(&words[2]).cloned());
                value.map_or(RespValue::Null, RespValue::Bytes)
            }
            b"EVAL" => self.set_if_same(&words[3..]),
            other => panic!("{} is not known", String::from_utf8_lossy(other)),
        }
    }

    fn set_if_same(&mut self, words: &[Vec<u8>]) -> RespValue {
        let [hash, mark_key, field, before, value, mark] = words else {
            panic!("not as the script has it");
        };
        let fields = self.hashes.entry(hash.clone()).or_default();
        if fields.get(field).cloned().unwrap_or_default() != *before {
            return RespValue::Number(0);
        }
        if value.is_empty() {
            fields.remove(field);
        } else {
            fields.insert(field.clone(), value.clone());
        }
        self.strings.insert(mark_key.clone(), mark.clone());
        RespValue::Number(1)
    }

    fn call_all(&mut self, commands: &[Vec<u8>]) -> Vec<RespValue> {
        commands.iter().map(|command| self.call(command)).collect()
    }
}

struct FakeMember {
    id: String,
    exchange: StoreExchange,
    table: OperatorTable,
}

impl FakeMember {
    fn new(id: usize, boot: u64) -> FakeMember {
        let id = format!("lb{id}");
        let secret = ClusterSecret::new(b"a secret of them all", "edge");
        FakeMember {
            exchange: StoreExchange::new(&id, boot, EXPIRE, secret),
            id,
            table: OperatorTable::default(),
        }
    }

    fn exchange(&mut self, store: &mut FakeStore, now: Instant) {
        let own = OwnNumbers {
            loads: vec![("p/a".to_owned(), 2), ("p/b".to_owned(), 1)],
            sources: vec![(7, 3)],
        };
        let commands = self.exchange.first_round(own, self.table.digest(), now);
        let answers = store.call_all(&commands);
        let round = self.exchange.first_answers(answers, now).unwrap();
        let answers = store.call_all(&self.exchange.second_round(&round));
        let stored = self.exchange.second_answers(&round, answers, now).unwrap();
        if let Some(stored) = stored {
            self.merge(&stored, store);
        }
    }

    fn merge(&mut self, stored: &StoredTable, store: &mut FakeStore) {
        for (key, entry) in &stored.entries {
            self.table.merge(key, entry.clone());
        }
        for (key, entry) in self.table.missing_in(&stored.entries) {
            let command = self.exchange.write(&key, &entry, stored);
            assert_eq!(store.call(&command), RespValue::Number(1));
        }
    }

    fn set(&mut self, key: &OperatorKey, value: OperatorValue, store: &mut FakeStore) {
        let answer = store.call(&self.exchange.read_field(key));
        let stored = self.exchange.field(key, answer);
        for (key, entry) in &stored.entries {
            self.table.merge(key, entry.clone());
        }
        let entry = self.table.next(value, &self.id);
        let command = self.exchange.write(key, &entry, &stored);
        assert_eq!(store.call(&command), RespValue::Number(1));
        assert!(matches!(self.table.merge(key, entry), Merged::Taken(_)));
    }
}

#[derive(Debug, Clone)]
enum Event {
    Exchange(usize),
    Drain(usize, bool),
    Empty,
    /// The store as it was at the last `Keep`.
    SetBack,
    Keep,
    Pass,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Event::Exchange),
        2 => (0..3_usize, any::<bool>()).prop_map(|(who, other)| Event::Drain(who, other)),
        1 => Just(Event::Empty),
        1 => Just(Event::SetBack),
        1 => Just(Event::Keep),
        1 => Just(Event::Pass),
    ]
}

fn key(other: bool) -> OperatorKey {
    OperatorKey::parse(if other { "s:p/b" } else { "s:p/a" }).unwrap()
}

#[test]
fn members_see_each_other_and_add_up_their_loads() {
    let (mut store, now) = (FakeStore::default(), Instant::now());
    let mut members: Vec<_> = (0..3).map(|id| FakeMember::new(id, id as u64)).collect();
    for _ in 0..3 {
        members
            .iter_mut()
            .for_each(|one| one.exchange(&mut store, now));
    }
    for one in &mut members {
        assert_eq!(one.exchange.members.count(), 2);
        assert_eq!(
            one.exchange.members.loads(),
            BTreeMap::from([("p/a", 4), ("p/b", 2)])
        );
        assert_eq!(one.exchange.members.sources(), [(7, 3), (7, 3)]);
        assert_eq!(
            (one.exchange.rejected, one.exchange.has_twin(now)),
            (0, false)
        );
    }
}

#[test]
fn one_that_leaves_is_gone_at_once_and_one_that_the_store_loses_is_not() {
    let (mut store, now) = (FakeStore::default(), Instant::now());
    let mut members: Vec<_> = (0..3).map(|id| FakeMember::new(id, id as u64)).collect();
    for _ in 0..3 {
        members
            .iter_mut()
            .for_each(|one| one.exchange(&mut store, now));
    }
    store = FakeStore::default();
    members[0].exchange(&mut store, now);
    assert_eq!(members[0].exchange.members.count(), 2);
    members[1].exchange(&mut store, now);
    members[2].exchange(&mut store, now);
    members[0].exchange(&mut store, now);
    let leave = members[2].exchange.leave();
    store.call_all(&leave);
    members[0].exchange(&mut store, now);
    assert_eq!(members[0].exchange.members.count(), 1);
    assert_eq!(
        members[0].exchange.members.loads(),
        BTreeMap::from([("p/a", 2), ("p/b", 1)])
    );
}

#[test]
fn a_store_that_is_nearly_full_forgets_what_nobody_has_set() {
    const COUNT: u64 = 7_600;
    let (mut store, now) = (FakeStore::default(), Instant::now());
    let mut member = FakeMember::new(0, 7);
    for rev in 1..=COUNT {
        let value = match rev {
            1 => OperatorValue::Maint,
            _ => OperatorValue::Ready,
        };
        let key = OperatorKey::parse(&format!("s:p/n{rev}")).unwrap();
        let by = "lb0".to_owned();
        let entry = OperatorEntry { rev, by, value };
        let write = member.exchange.write(&key, &entry, &StoredTable::default());
        assert_eq!(store.call(&write), RespValue::Number(1));
    }
    let fields = |store: &FakeStore| store.hashes.values().map(BTreeMap::len).sum::<usize>();
    assert_eq!(fields(&store), 7_600);
    for _ in 0..2 {
        let commands = member
            .exchange
            .first_round(OwnNumbers::default(), [0; 16], now);
        let answers = store.call_all(&commands);
        let mut round = member.exchange.first_answers(answers, now).unwrap();
        round.table = true;
        let answers = store.call_all(&member.exchange.second_round(&round));
        let stored = member.exchange.second_answers(&round, answers, now);
        let stored = stored.unwrap().unwrap();
        store.call_all(&member.exchange.forget(&stored));
        assert_eq!(fields(&store), 7_500);
        assert!(
            stored
                .entries
                .contains_key(&OperatorKey::parse("s:p/n1").unwrap())
        );
    }
}

#[test]
fn two_balancers_of_one_id_are_seen() {
    let (mut store, now) = (FakeStore::default(), Instant::now());
    let mut twins = [FakeMember::new(1, 10), FakeMember::new(1, 11)];
    for _ in 0..6 {
        twins
            .iter_mut()
            .for_each(|one| one.exchange(&mut store, now));
    }
    assert!(twins.iter().all(|one| one.exchange.has_twin(now)));
    // Only as long as both go on.
    assert!(!twins[0].exchange.has_twin(now + EXPIRE));
}

proptest! {
    #[test]
    fn whatever_the_store_loses_all_agree_and_nothing_undrains(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (mut store, mut now) = (FakeStore::default(), Instant::now());
        let mut kept = store.clone();
        let mut members: Vec<_> = (0..3).map(|id| FakeMember::new(id, id as u64)).collect();
        let mut drained = BTreeSet::new();
        for event in events {
            match event {
                Event::Exchange(who) => members[who].exchange(&mut store, now),
                Event::Drain(who, other) => {
                    let drain = OperatorValue::Drain(SharedDrain::Default);
                    members[who].set(&key(other), drain, &mut store);
                    drained.insert(other);
                }
                Event::Empty => store = FakeStore::default(),
                Event::SetBack => store = kept.clone(),
                Event::Keep => kept = store.clone(),
                Event::Pass => now += Duration::from_secs(3),
            }
            for (key, entry) in members.iter().flat_map(|one| one.table.entries()) {
                prop_assert!(entry.value != OperatorValue::Ready, "{key} is ready");
            }
        }
        for _ in 0..3 {
            // The whole table is read now and then, whatever its mark says.
            now += Duration::from_secs(11);
            members.iter_mut().for_each(|one| one.exchange(&mut store, now));
        }
        let digest = members[0].table.digest();
        for one in &mut members {
            prop_assert_eq!(one.table.digest(), digest);
            for other in &drained {
                let is_drain = |value: &OperatorValue| matches!(value, OperatorValue::Drain(_));
                let entry = one.table.entries().get(&key(*other));
                prop_assert!(entry.is_some_and(|entry| is_drain(&entry.value)));
            }
        }
    }
}
