//! An exchange with the store: commands out, answers in. Pure.
//!
//! The first round writes the own report and reads those of the others; a second one asks for what
//! the first has shown to be new. Whatever is not sealed with the cluster's secret is counted and
//! left alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::keys::{SET_IF_SAME, StoreKeys};
use super::members::{Heard, MAX_MEMBERS, Members};
use super::names::{BackendNames, NamesDigest};
use super::operator::{MAX_ENTRIES, OperatorEntry, OperatorKey};
use super::report::MemberReport;
use super::seal::ClusterSecret;
use super::store::StoreError;
use super::stored::StoredTable;
use crate::wire::resp::{RespValue, command};

/// Between two reads of the whole table, in case its mark has not told.
const TABLE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two writes of the own names, which expire after five of these.
const NAMES_INTERVAL: Duration = Duration::from_secs(60);
/// Fields of the operator's states above which those that nobody has set are taken out: three
/// quarters of what a member keeps.
const MAX_FIELDS: usize = MAX_ENTRIES / 4 * 3;
/// Fields that one exchange takes out; the next one goes on.
const MAX_FORGOTTEN: usize = 500;
/// Exchanges without a report after which an id is taken out of the set of members.
const MAX_MISSES: u32 = 60;
/// Reports of another boot under the own id after which it is a balancer of the same name.
const TWIN_REPORTS: u32 = 3;

/// State of a member's talk with the store.
pub(super) struct StoreExchange {
    id: String,
    boot: u64,
    seq: u64,
    expire: Duration,
    keys: StoreKeys,
    secret: ClusterSecret,
    pub members: Members,
    names: BackendNames,
    names_due: Instant,
    table_due: Instant,
    mark: Option<RespValue>,
    /// Ids that the set of members has, each with its exchanges without a report.
    listed: BTreeMap<String, u32>,
    /// Ids of the last first round, in its order.
    asked: Vec<String>,
    twin: Twin,
    /// Values that nobody with the secret has written.
    pub rejected: u64,
}

/// Another boot that reports under the own id.
#[derive(Debug, Default)]
struct Twin {
    boot: u64,
    seq: u64,
    /// Reports that went on.
    reports: u32,
    heard_at: Option<Instant>,
}

/// Numbers of this member.
#[derive(Debug, Default)]
pub(super) struct OwnNumbers {
    /// Live connections of each backend.
    pub loads: Vec<(String, u32)>,
    /// Connections of sources that have many.
    pub sources: Vec<(u64, u32)>,
}

/// Questions of the second round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SecondRound {
    lists: Vec<NamesDigest>,
    /// Ids that are new, or gone for long.
    joined: Vec<String>,
    gone: Vec<String>,
    /// The set of members is something else by now.
    repair: bool,
    pub table: bool,
}

impl StoreExchange {
    pub(super) fn new(
        id: &str,
        boot: u64,
        expire: Duration,
        secret: ClusterSecret,
    ) -> StoreExchange {
        let now = Instant::now();
        StoreExchange {
            id: id.to_owned(),
            boot,
            seq: 0,
            expire,
            keys: StoreKeys::new(secret.cluster()),
            secret,
            members: Members::new(expire),
            names: BackendNames::new(Vec::new()),
            names_due: now,
            table_due: now,
            mark: None,
            listed: BTreeMap::new(),
            asked: Vec::new(),
            twin: Twin::default(),
            rejected: 0,
        }
    }

    /// Begins anew: the connection is another one, and perhaps the store.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.names_due, self.table_due) = (now, now);
        self.mark = None;
    }

    /// Commands of the first round.
    pub(super) fn first_round(
        &mut self,
        own: OwnNumbers,
        operator: [u8; 16],
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let (names, loads): (Vec<_>, Vec<_>) = own.loads.into_iter().unzip();
        if names != self.names.names() {
            self.names = BackendNames::new(names);
            self.names_due = now;
        }
        self.seq += 1;
        let mut report = MemberReport::new(self.boot, self.seq, self.names.digest(), loads);
        report.operator = operator;
        report.sources = own.sources;
        let own = self.keys.member(&self.id);
        let sealed = self.secret.seal(&place(&self.id), &report.encode());
        self.asked = self.listed.keys().cloned().collect();
        let asked = self.asked.iter().map(|id| self.keys.member(id));
        let (members, mark) = (self.keys.members(), self.keys.mark());
        let mut commands = vec![
            words("MGET", [own.clone()].into_iter().chain(asked)),
            set(&own, &sealed, self.expire),
            words("SADD", [members.clone(), self.id.clone()]),
            words("SMEMBERS", [members]),
            words("GET", [mark]),
        ];
        if now >= self.names_due {
            self.names_due = now + NAMES_INTERVAL;
            let key = self.keys.names(self.names.digest());
            commands.push(set(&key, self.names.encoded(), 5 * NAMES_INTERVAL));
        }
        commands
    }

    /// Takes the answers to the first round.
    ///
    /// # Errors
    /// One is of the wrong type.
    pub(super) fn first_answers(
        &mut self,
        answers: Vec<RespValue>,
        now: Instant,
    ) -> Result<SecondRound, StoreError> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or(StoreError::WrongType);
        let reports = list(next()?)?;
        let (_, _) = (next()?, next()?);
        // Where the own report of before is, the store has lost nothing.
        let is_whole = reports.first().is_some_and(|own| *own != RespValue::Null);
        let ids = list(next()?);
        let mark = next()?;
        let mut reports = reports.into_iter();
        self.notice_twin(reports.next(), now);
        let mut round = SecondRound {
            repair: ids.is_err(),
            ..SecondRound::default()
        };
        let mut silent = Vec::new();
        for (id, report) in std::mem::take(&mut self.asked).into_iter().zip(reports) {
            let misses = self.listed.entry(id.clone()).or_default();
            *misses = if report == RespValue::Null {
                *misses + 1
            } else {
                0
            };
            if *misses > MAX_MISSES {
                round.gone.push(id.clone());
            }
            if report == RespValue::Null {
                silent.push(id.clone());
            }
            self.hear(&id, report, now);
        }
        let ids = ids.unwrap_or_default().into_iter();
        let ids = ids.filter_map(|id| id_of(&id)).take(MAX_MEMBERS);
        let ids: Vec<_> = ids.filter(|id| *id != self.id).collect();
        silent.retain(|id| is_whole && !round.repair && !ids.contains(id));
        self.dismiss(&silent);
        self.listed
            .retain(|id, _| ids.contains(id) && !round.gone.contains(id));
        for id in ids.into_iter().filter(|id| !round.gone.contains(id)) {
            if !self.listed.contains_key(&id) {
                self.listed.insert(id.clone(), 0);
                round.joined.push(id);
            }
        }
        round.lists = self.members.wanted_lists();
        round.table = now >= self.table_due || self.mark.as_ref() != Some(&mark);
        self.mark = Some(mark);
        Ok(round)
    }

    /// Takes out members that have taken themselves out of the store: their connections hold no
    /// place any more.
    fn dismiss(&mut self, ids: &[String]) {
        for id in ids {
            if self.members.dismiss(id) {
                tracing::info!(member = id, "a balancer has left the cluster");
            }
        }
    }

    /// Commands of the second round; none where nothing is new.
    pub(super) fn second_round(&self, round: &SecondRound) -> Vec<Vec<u8>> {
        let mut commands = Vec::new();
        if !round.joined.is_empty() {
            let joined = round.joined.iter().map(|id| self.keys.member(id));
            commands.push(words("MGET", joined));
        }
        if !round.lists.is_empty() {
            let lists = round.lists.iter().map(|digest| self.keys.names(*digest));
            commands.push(words("MGET", lists));
        }
        if !round.gone.is_empty() {
            let members = [self.keys.members()].into_iter();
            commands.push(words("SREM", members.chain(round.gone.iter().cloned())));
        }
        if round.repair {
            commands.push(words("DEL", [self.keys.members()]));
        }
        if round.table {
            commands.push(words("HGETALL", [self.keys.operator()]));
        }
        commands
    }

    /// Takes the answers to the second round, and returns the operator's states if it has asked for
    /// them.
    ///
    /// # Errors
    /// One is of the wrong type.
    pub(super) fn second_answers(
        &mut self,
        round: &SecondRound,
        answers: Vec<RespValue>,
        now: Instant,
    ) -> Result<Option<StoredTable>, StoreError> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or(StoreError::WrongType);
        if !round.joined.is_empty() {
            for (id, report) in round.joined.iter().zip(list(next()?)?) {
                self.hear(id, report, now);
            }
        }
        if !round.lists.is_empty() {
            for (digest, names) in round.lists.iter().zip(list(next()?)?) {
                let RespValue::Bytes(bytes) = names else {
                    continue;
                };
                match BackendNames::decode(&bytes, *digest) {
                    Some(names) => self.members.learn(names),
                    None => self.rejected += 1,
                }
            }
        }
        for _ in [!round.gone.is_empty(), round.repair]
            .iter()
            .filter(|is| **is)
        {
            next()?;
        }
        if !round.table {
            return Ok(None);
        }
        self.table_due = now + TABLE_INTERVAL;
        Ok(Some(self.read_table(next()?)))
    }

    /// Command that asks for one field of the operator's states.
    pub(super) fn read_field(&self, key: &OperatorKey) -> Vec<u8> {
        words("HGET", [self.keys.operator(), key.to_string()])
    }

    /// The entry in the answer to [`StoreExchange::read_field`].
    pub(super) fn field(&mut self, key: &OperatorKey, answer: RespValue) -> StoredTable {
        let mut table = StoredTable::default();
        if let RespValue::Bytes(sealed) = answer {
            self.keep(&mut table, key.to_string(), sealed);
        }
        table
    }

    /// Command that writes an entry if the store still has what `table` has of it.
    pub(super) fn write(
        &mut self,
        key: &OperatorKey,
        entry: &OperatorEntry,
        table: &StoredTable,
    ) -> Vec<u8> {
        let field = key.to_string();
        let before = table.raw.get(&field).map(Vec::as_slice).unwrap_or_default();
        let sealed = self.secret.seal(&operator_place(&field), &entry.encode());
        self.set_if_same(&field, before, &sealed)
    }

    /// Commands that take fields out of a store that is nearly full: those that nobody has set,
    /// the oldest first. No member writes these back.
    pub(super) fn forget(&mut self, table: &StoredTable) -> Vec<Vec<u8>> {
        let surplus = table.raw.len().saturating_sub(MAX_FIELDS);
        let neutral = table.entries.iter();
        let mut neutral: Vec<_> = neutral.filter(|(_, one)| one.value.is_neutral()).collect();
        neutral.sort_by_key(|(_, entry)| entry.rev);
        let oldest = neutral.into_iter().take(surplus.min(MAX_FORGOTTEN));
        let commands = oldest.map(|(key, _)| {
            let field = key.to_string();
            let before = table.raw.get(&field).map(Vec::as_slice).unwrap_or_default();
            self.set_if_same(&field, before, b"")
        });
        commands.collect()
    }

    fn set_if_same(&mut self, field: &str, before: &[u8], value: &[u8]) -> Vec<u8> {
        // Like no other: the mark tells that something has changed, not what.
        self.seq += 1;
        let mark = format!("{:016x}-{}", self.boot, self.seq);
        command(&[
            b"EVAL",
            SET_IF_SAME.as_bytes(),
            b"2",
            self.keys.operator().as_bytes(),
            self.keys.mark().as_bytes(),
            field.as_bytes(),
            before,
            value,
            mark.as_bytes(),
        ])
    }

    /// Commands of a member that leaves.
    pub(super) fn leave(&self) -> Vec<Vec<u8>> {
        vec![
            words("DEL", [self.keys.member(&self.id)]),
            words("SREM", [self.keys.members(), self.id.clone()]),
        ]
    }

    /// Whether another balancer has the same id: it was heard lately, and again and again.
    pub(super) fn has_twin(&self, now: Instant) -> bool {
        let at = self.twin.heard_at;
        let is_late = at.is_some_and(|at| now.saturating_duration_since(at) < self.expire);
        is_late && self.twin.reports >= TWIN_REPORTS
    }

    fn hear(&mut self, id: &str, answer: RespValue, now: Instant) {
        match answer {
            RespValue::Bytes(sealed) => {
                let Some(bytes) = self.secret.open(&place(id), &sealed) else {
                    self.rejected += 1;
                    return;
                };
                // One of another version is not understood, and no stranger's.
                let report = MemberReport::decode(bytes);
                let heard = report.map(|report| self.members.hear(id, report, now));
                if heard == Some(Heard::Joined) {
                    tracing::info!(member = id, "a balancer is in the cluster");
                }
            }
            // It is late, or the store has lost it: its time runs.
            RespValue::Null => {}
            _ => self.rejected += 1,
        }
    }

    fn open(&self, id: &str, sealed: &[u8]) -> Option<MemberReport> {
        MemberReport::decode(self.secret.open(&place(id), sealed)?)
    }

    /// Counts reports under the own id that go on and are not of this process. The one before it
    /// has left one at most.
    fn notice_twin(&mut self, before: Option<RespValue>, now: Instant) {
        let Some(RespValue::Bytes(sealed)) = before else {
            return;
        };
        let report = self.open(&self.id, &sealed);
        let Some(report) = report.filter(|report| report.boot != self.boot) else {
            return;
        };
        let twin = &mut self.twin;
        if report.boot != twin.boot {
            (twin.boot, twin.seq, twin.reports) = (report.boot, report.seq, 0);
        } else if report.seq > twin.seq {
            (twin.seq, twin.reports) = (report.seq, twin.reports.saturating_add(1));
            twin.heard_at = Some(now);
        }
    }

    fn read_table(&mut self, answer: RespValue) -> StoredTable {
        let mut table = StoredTable::default();
        // Of another type, it is made anew by the next write.
        let RespValue::List(list) = answer else {
            self.rejected += 1;
            return table;
        };
        let mut list = list.into_iter();
        while let (Some(field), Some(value)) = (list.next(), list.next()) {
            let (RespValue::Bytes(field), RespValue::Bytes(sealed)) = (field, value) else {
                continue;
            };
            match String::from_utf8(field) {
                Ok(field) => self.keep(&mut table, field, sealed),
                Err(_) => self.rejected += 1,
            }
        }
        table
    }

    fn keep(&mut self, table: &mut StoredTable, field: String, sealed: Vec<u8>) {
        let key = OperatorKey::parse(&field);
        let opened = self.secret.open(&operator_place(&field), &sealed);
        if let Some((key, bytes)) = key.zip(opened) {
            match OperatorEntry::decode(bytes, key.field) {
                Some(entry) => {
                    table.entries.insert(key, entry);
                }
                None => {
                    table.foreign.insert(key);
                }
            }
        } else {
            self.rejected += 1;
        }
        table.raw.insert(field, sealed);
    }
}

/// Place that a member's report is sealed for.
fn place(id: &str) -> String {
    format!("n:{id}")
}

/// Place that a field of the operator's states is sealed for.
fn operator_place(field: &str) -> String {
    format!("op:{field}")
}

fn list(answer: RespValue) -> Result<Vec<RespValue>, StoreError> {
    match answer {
        RespValue::List(list) => Ok(list),
        _ => Err(StoreError::WrongType),
    }
}

/// An id in the set of members, which anybody may have written.
fn id_of(value: &RespValue) -> Option<String> {
    const MAX_ID: usize = 64;
    let RespValue::Bytes(bytes) = value else {
        return None;
    };
    let text = std::str::from_utf8(bytes).ok()?;
    let is_fine = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    let is_id = !text.is_empty() && text.len() <= MAX_ID && text.chars().all(is_fine);
    is_id.then(|| text.to_owned())
}

fn words(name: &str, arguments: impl IntoIterator<Item = String>) -> Vec<u8> {
    let all: Vec<String> = arguments.into_iter().collect();
    let all = all.iter().map(String::as_bytes);
    let all: Vec<&[u8]> = [name.as_bytes()].into_iter().chain(all).collect();
    command(&all)
}

fn set(key: &str, value: &[u8], expire: Duration) -> Vec<u8> {
    let expire = expire.as_millis().to_string();
    command(&[b"SET", key.as_bytes(), value, b"PX", expire.as_bytes()])
}
