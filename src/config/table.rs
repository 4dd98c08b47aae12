//! The cursor of the decoder: one table of the file beside its declared keys.
//!
//! It notes what is wrong and gives a value nevertheless, so that one pass finds everything; what it gives after a
//! problem is never seen, because the file is refused at the end. Unknown keys are noted as the table is opened.

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeTable;

use super::entry::Entry;
use super::error::{Fault, Problem};
use super::keys::{Absent, Key, Kind, Section};
use super::misplaced::{elsewhere, far};
use super::peers;
use super::source::Source;
use super::words::Word;
use crate::base::names::nearest;
use crate::base::rate::Rate;

/// One table.
#[derive(Clone)]
pub struct Table<'a> {
    source: &'a Source<'a>,
    section: &'static Section,
    /// `None`: the file has no such table, all is default.
    entries: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    path: String,
}

impl<'a> Table<'a> {
    /// Opens the file's root.
    pub fn root(
        source: &'a Source<'a>,
        section: &'static Section,
        entries: &'a DeTable<'a>,
    ) -> Table<'a> {
        Table::open(source, section, entries, 0..0, String::new())
    }

    /// Opens a table and notes its unknown keys.
    pub fn open(
        source: &'a Source<'a>,
        section: &'static Section,
        entries: &'a DeTable<'a>,
        span: Range<usize>,
        path: String,
    ) -> Table<'a> {
        let table = Table {
            source,
            section,
            entries: Some(entries),
            span,
            path,
        };
        source.mark(&table.path, &table.span, None);
        for key in entries
            .keys()
            .filter(|key| section.key(key.get_ref()).is_none())
        {
            table.unknown(key.get_ref(), key.span());
        }
        table
    }

    fn unknown(&self, name: &str, span: Range<usize>) {
        let names = || self.section.keys.iter().map(|key| key.name);
        let peers = peers::key(&self.path, name).map(str::to_owned);
        let near = || nearest(name, names()).map(|near| format!("did you mean `{near}`?"));
        let elsewhere = || elsewhere(&self.path, self.section, name);
        self.source.note(Problem {
            fault: Fault::UnknownKey,
            span,
            key: self.path_of(name),
            what: "unknown key".to_owned(),
            allowed: Some(format!(
                "allowed: {}",
                names().collect::<Vec<_>>().join(", ")
            )),
            hint: peers
                .or_else(elsewhere)
                .or_else(near)
                .or_else(|| far(&self.path, name)),
        });
    }

    /// The path of a key of this table; of the table itself for an empty name.
    fn path_of(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    /// The declaration of a key. A decoder that asks for an undeclared one is a defect that the first test finds.
    fn declared(&self, name: &str) -> &'static Key {
        static UNDECLARED: Key = super::keys::key("", Kind::Flag, Absent::None, "");
        debug_assert!(self.section.key(name).is_some(), "{name} is not declared");
        self.section.key(name).unwrap_or(&UNDECLARED)
    }

    /// The value of a key, if it is there.
    pub fn entry(&self, name: &str) -> Option<Entry<'a>> {
        let declared = self.declared(name);
        let (key, value) = self.entries?.get_key_value(name)?;
        let path = self.path_of(name);
        Some(Entry::new(self.source, &declared.kind, path, key, value))
    }

    /// Like [`Table::entry`], but a required key that is not there is noted.
    fn expected(&self, name: &str) -> Option<Entry<'a>> {
        let entry = self.entry(name);
        let declared = self.declared(name);
        if entry.is_none() && matches!(declared.absent, Absent::Required) {
            self.missing(
                name,
                &format!("`{name}` is missing"),
                &declared.kind.allowed_at(&self.path_of(name)),
            );
        }
        entry
    }

    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Notes that this table lacks something.
    pub fn missing(&self, name: &str, what: &str, allowed: &str) {
        self.source.note(Problem {
            fault: Fault::Missing,
            span: self.span.clone(),
            key: self.path_of(name),
            what: what.to_owned(),
            allowed: Some(format!("needed: {allowed}")),
            hint: None,
        });
    }

    /// Notes that this table as a whole is wrong.
    pub fn refuse(&self, fault: Fault, what: &str) {
        self.source.note(Problem {
            fault,
            span: self.span.clone(),
            key: self.path.clone(),
            what: what.to_owned(),
            allowed: None,
            hint: None,
        });
    }

    /// Notes something about this table that the operator should know, and that refuses nothing.
    pub fn warn(&self, what: String) {
        self.source.warn(Problem {
            fault: Fault::Conflict,
            span: self.span.clone(),
            key: self.path.clone(),
            what,
            allowed: None,
            hint: None,
        });
    }

    /// Notes that a key, if it is there, cannot go with the rest.
    pub fn conflict(&self, name: &str, why: &str) {
        if let Some(entry) = self.entry(name) {
            entry.refuse(Fault::Conflict, why);
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.flag().unwrap_or_default(),
            (None, Absent::Flag(default)) => *default,
            _ => false,
        }
    }

    pub fn number<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        self.maybe_number(name).unwrap_or_default()
    }

    /// `None` when it is not there and has no default.
    pub fn maybe_number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        let number = match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.number(),
            (None, Absent::Number(default)) => Some(*default),
            _ => None,
        };
        number.and_then(|number| T::try_from(number).ok())
    }

    pub fn time(&self, name: &str) -> Duration {
        self.maybe_time(name).unwrap_or_default()
    }

    /// `None` when it is not there and has no default.
    pub fn maybe_time(&self, name: &str) -> Option<Duration> {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.time(),
            (None, Absent::Time(default)) => Some(*default),
            _ => None,
        }
    }

    /// In bytes.
    pub fn size<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        let bytes = match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.size(),
            (None, Absent::Size(default)) => Some(*default),
            _ => None,
        };
        let bytes = bytes.and_then(|bytes| T::try_from(bytes).ok());
        bytes.unwrap_or_default()
    }

    /// In bytes; `None` when it is not there.
    pub fn maybe_size(&self, name: &str) -> Option<u64> {
        self.expected(name)?.size()
    }

    /// `None` when it is not there and has no default.
    pub fn maybe_rate(&self, name: &str) -> Option<Rate> {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.rate(),
            (None, Absent::Rate(default)) => Some(*default),
            _ => None,
        }
    }

    pub fn percent(&self, name: &str) -> u8 {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.percent().unwrap_or_default(),
            (None, Absent::Percent(default)) => *default,
            _ => 0,
        }
    }

    pub fn word<T: Word>(&self, name: &str) -> T {
        self.maybe_word(name).unwrap_or(const { T::WORDS[0].1 })
    }

    /// `None` when it is wrong, or not there and without a default.
    pub fn maybe_word<T: Word>(&self, name: &str) -> Option<T> {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.word(),
            (None, Absent::Text(default)) => T::of(default),
            _ => None,
        }
    }

    pub fn words<T: Word>(&self, name: &str) -> Vec<T> {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.items().filter_map(|item| item.word()).collect(),
            (None, Absent::Texts(default)) => {
                default.iter().filter_map(|word| T::of(word)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A string read by its type; the default, if there is one, too.
    pub fn text<T: FromStr<Err = &'static str>>(&self, name: &str) -> Option<T> {
        self.text_by(name, T::from_str)
    }

    /// A string read by `read`; the default, if there is one, too.
    pub fn text_by<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        match (self.expected(name), &self.declared(name).absent) {
            (Some(entry), _) => entry.text_by(read),
            (None, Absent::Text(default)) => read(default).ok(),
            _ => None,
        }
    }

    /// A list of strings.
    pub fn texts_by<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let items = self
            .expected(name)
            .into_iter()
            .flat_map(|entry| entry.items().collect::<Vec<_>>());
        items.filter_map(|item| item.text_by(&read)).collect()
    }

    /// The path of a file, joined to the folder of the configuration.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let folder = &self.source.folder;
        let path = self.text_by(name, |text| {
            if text.is_empty() {
                Err("it is empty")
            } else {
                Ok(folder.join(text))
            }
        })?;
        if let Some(entry) = self.entry(name) {
            entry.mark_file(&path);
        }
        Some(path)
    }

    /// A table in this one; when it is not there, one of defaults.
    pub fn table(&self, name: &str) -> Table<'a> {
        self.maybe_table(name).unwrap_or_else(|| {
            let section = self.declared(name).kind.section().unwrap_or(self.section);
            let (span, path) = (self.span.clone(), self.path_of(name));
            Table {
                source: self.source,
                section,
                entries: None,
                span,
                path,
            }
        })
    }

    pub fn maybe_table(&self, name: &str) -> Option<Table<'a>> {
        self.expected(name)?.table()
    }

    /// The tables of a list.
    pub fn tables(&self, name: &str) -> Vec<Table<'a>> {
        let Some(entry) = self.expected(name) else {
            return Vec::new();
        };
        entry.items().filter_map(|item| item.table()).collect()
    }

    /// The tables of a table whose keys are chosen by the operator, with their names.
    pub fn named(&self, name: &str) -> Vec<(String, Table<'a>)> {
        let children = self
            .expected(name)
            .map(|entry| entry.children())
            .unwrap_or_default();
        children
            .into_iter()
            .filter_map(|(name, child)| Some((name, child.table()?)))
            .collect()
    }
}
