//! Cursor of the decoder over one table of the file, beside its declared keys.
//!
//! A problem is noted and reading goes on, so that one pass finds everything; the file is refused
//! at the end. Unknown keys are noted as the table is opened.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::{ErrorKind, Problem};
use super::misplaced::{elsewhere, far};
use super::peers;
use super::source_file::SourceFile;
use super::spec::{KeySpec, TableSpec, ValueKind};
use super::value::ValueReader;
use crate::base::names::nearest;

/// A table of the file.
#[derive(Clone)]
pub(crate) struct TableReader<'a> {
    source: &'a SourceFile<'a>,
    spec: &'static TableSpec,
    /// `None`: the file has no such table, all is default.
    entries: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    path: String,
}

impl<'a> TableReader<'a> {
    /// Opens the file's root.
    pub(crate) fn root(source: &'a SourceFile<'a>, entries: &'a DeTable<'a>) -> TableReader<'a> {
        let table = TableReader {
            source,
            spec: source.root,
            entries: Some(entries),
            span: 0..0,
            path: String::new(),
        };
        table.open()
    }

    /// Opens the table that a value is. `None`: the value is something else, which is noted.
    pub(crate) fn within(value: &ValueReader<'a>) -> Option<TableReader<'a>> {
        let (DeValue::Table(entries), Some(spec)) = (value.value, value.kind.table()) else {
            value.wrong_type();
            return None;
        };
        let table = TableReader {
            source: value.source,
            spec,
            entries: Some(entries),
            span: value.span.clone(),
            path: value.path.clone(),
        };
        Some(table.open())
    }

    /// Notes the unknown keys.
    fn open(self) -> TableReader<'a> {
        self.source.mark(&self.path, &self.span, None);
        let keys = self.entries.into_iter().flat_map(DeTable::keys);
        for key in keys.filter(|key| self.spec.key(key.get_ref()).is_none()) {
            self.unknown(key.get_ref(), key.span());
        }
        self
    }

    fn unknown(&self, name: &str, span: Range<usize>) {
        let (root, path) = (self.source.root, self.path.as_str());
        let names = || self.spec.all().map(|key| key.name);
        let peers = peers::key(path, name).map(str::to_owned);
        let near = || nearest(name, names()).map(|near| format!("did you mean `{near}`?"));
        let names: Vec<_> = names().collect();
        self.source.note(Problem {
            kind: ErrorKind::UnknownKey,
            span,
            key: self.path_of(name),
            what: "unknown key".to_owned(),
            allowed: Some(format!("allowed: {}", names.join(", "))),
            hint: peers
                .or_else(|| elsewhere(root, path, self.spec, name))
                .or_else(near)
                .or_else(|| far(root, path, name)),
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

    fn declared(&self, name: &str) -> Option<&'static KeySpec> {
        self.spec.key(name)
    }

    fn found(&self, name: &str) -> Option<ValueReader<'a>> {
        let declared = self.declared(name)?;
        let (key, value) = self.entries?.get_key_value(name)?;
        let path = self.path_of(name);
        Some(ValueReader::new(
            self.source,
            &declared.kind,
            path,
            key,
            value,
        ))
    }

    /// The value of a key, if it is there. Asking for an undeclared key is a defect that the first
    /// test finds.
    pub(crate) fn value(&self, name: &str) -> Option<ValueReader<'a>> {
        debug_assert!(self.declared(name).is_some(), "{name} is not declared");
        self.found(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Reads a key that must be there.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        read: impl FnOnce(&ValueReader<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.found(name);
        if let (None, Some(declared)) = (&value, self.declared(name)) {
            let allowed = declared.kind.allowed_at(&self.path_of(name));
            self.missing(name, &format!("`{name}` is missing"), &allowed);
        }
        read(&value?)
    }

    /// Reads a key that has no default. `None`: the value is a table that is wrong.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&ValueReader<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.or_default(name, |value| read(value).map(Some), || None)
    }

    /// Reads a key whose absence is the empty value of its type.
    pub(crate) fn empty<T: Default>(
        &self,
        name: &str,
        read: impl FnOnce(&ValueReader<'a>) -> Option<T>,
    ) -> Option<T> {
        self.or_default(name, read, T::default)
    }

    /// Reads a key that has a default, which stands for a wrong value, too, so that the rest is
    /// still looked at. `None`: the value is a table that is wrong.
    pub(crate) fn or_default<T>(
        &self,
        name: &str,
        read: impl FnOnce(&ValueReader<'a>) -> Option<T>,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        let Some(value) = self.found(name) else {
            return Some(default());
        };
        let is_table = value.kind.table().is_some();
        read(&value).or_else(|| (!is_table).then(default))
    }

    /// A table in this one; when it is not there, one of defaults.
    pub(crate) fn table(&self, name: &str) -> TableReader<'a> {
        let found = self
            .found(name)
            .and_then(|value| TableReader::within(&value));
        let kind = self.declared(name).map(|key| &key.kind);
        found.unwrap_or_else(|| TableReader {
            source: self.source,
            spec: kind.and_then(ValueKind::table).unwrap_or(self.spec),
            entries: None,
            span: self.span.clone(),
            path: self.path_of(name),
        })
    }

    /// The tables of a list.
    pub(crate) fn tables(&self, name: &str) -> Vec<TableReader<'a>> {
        let list = self.value(name).filter(ValueReader::is_list);
        let items = list.iter().flat_map(ValueReader::items);
        items
            .filter_map(|item| TableReader::within(&item))
            .collect()
    }

    /// The tables of a table whose keys are chosen by the operator, with their names.
    pub(crate) fn named(&self, name: &str) -> Vec<(String, TableReader<'a>)> {
        let children = self.found(name).map(|value| value.children());
        let children = children.unwrap_or_default().into_iter();
        children
            .filter_map(|(name, child)| Some((name, TableReader::within(&child)?)))
            .collect()
    }

    /// Notes that this table lacks something.
    pub(crate) fn missing(&self, name: &str, what: &str, allowed: &str) {
        self.source.note(Problem {
            key: self.path_of(name),
            allowed: Some(format!("needed: {allowed}")),
            ..self.problem(ErrorKind::Missing, what)
        });
    }

    /// Notes that this table as a whole is wrong.
    pub(crate) fn refuse(&self, kind: ErrorKind, what: &str) {
        self.source.note(self.problem(kind, what));
    }

    /// Notes something about this table that the operator should know, and that refuses nothing.
    pub(crate) fn warn(&self, what: &str) {
        self.source.warn(self.problem(ErrorKind::Conflict, what));
    }

    fn problem(&self, kind: ErrorKind, what: &str) -> Problem {
        Problem {
            kind,
            span: self.span.clone(),
            key: self.path.clone(),
            what: what.to_owned(),
            allowed: None,
            hint: None,
        }
    }

    /// Notes that a key, if it is there, cannot go with the rest.
    pub(crate) fn conflict(&self, name: &str, why: &str) {
        if let Some(value) = self.value(name) {
            value.refuse(ErrorKind::Conflict, why);
        }
    }

    /// The key of two that is there; the first if both are.
    pub(crate) fn first_of(&self, [first, other]: [&'static str; 2]) -> &'static str {
        if self.has(first) { first } else { other }
    }

    /// Notes each of `tables` that has the same text at a key as an earlier one.
    pub(crate) fn refuse_same(tables: &[Self], key: &str, why: impl Fn(&str) -> String) {
        let mut known = BTreeSet::new();
        for value in tables.iter().filter_map(|table| table.value(key)) {
            let text = value.is_string().then(|| value.string()).flatten();
            if let Some(text) = text.filter(|text| !known.insert(*text)) {
                value.refuse(ErrorKind::Conflict, &why(text));
            }
        }
    }

    /// Notes that none of `names` can go with the rest.
    pub(crate) fn conflicts(&self, names: &[&str], why: &str) {
        for name in names {
            self.conflict(name, why);
        }
    }
}
