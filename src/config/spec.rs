//! Declared tables and keys of the file. The decoder, the schema and the reference page read them.
//!
//! The macros in `declare` make them from the declarations in `tables`.

use std::time::Duration;

use serde_json::Value;

use crate::base::units::{format_duration, format_size};

/// A table of the file: `[global]`, one `[[listener]]`, the value of `check`.
pub(crate) struct TableSpec {
    /// The doc comment of its declaration.
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [KeySpec],
}

/// A key of a table.
pub(crate) struct KeySpec {
    /// Empty for a group of keys, [`ValueKind::Inline`].
    pub(crate) name: &'static str,
    pub(crate) kind: ValueKind,
    pub(crate) presence: Presence,
    /// The doc comment of its declaration: a description, then the reason for its default.
    pub(crate) doc: &'static str,
    /// Read at start only: a reload does not take a change over.
    pub(crate) at_start: bool,
}

/// Meaning of a key that is not there.
pub(crate) enum Presence {
    /// An error.
    Required,
    /// No value; the description says what that means.
    Optional,
    /// A table of defaults.
    Nested,
    /// The default, as the file would write it.
    Default(fn() -> Value),
}

/// Type of a value, and what is allowed.
pub(crate) enum ValueKind {
    Flag,
    Number {
        min: u64,
        max: u64,
    },
    Time {
        min: Duration,
        max: Duration,
    },
    Percent {
        min: u8,
        max: u8,
    },
    /// In bytes.
    Size {
        min: u64,
        max: u64,
    },
    /// A count in a time; the count is the burst, too.
    Rate,
    /// A word of this list.
    Word(fn() -> Vec<&'static str>),
    /// A list of words of this list.
    Words(fn() -> Vec<&'static str>),
    /// A string; the words say which are allowed.
    Text(&'static str),
    /// A list of strings.
    Texts(&'static str),
    /// A list of HTTP statuses and ranges of them.
    Statuses,
    /// A table of header names, each with its value.
    Headers,
    Table(&'static TableSpec),
    /// `true` for a table of defaults, `false` for none.
    FlagOrTable(&'static TableSpec),
    /// A list of tables.
    Tables(&'static TableSpec),
    /// A table whose keys are names that the operator chooses.
    Named(&'static TableSpec),
    /// Keys that stand in the table itself and are declared together.
    Inline(&'static TableSpec),
}

/// A whole number in these bounds.
pub(crate) const fn number(min: u64, max: u64) -> ValueKind {
    ValueKind::Number { min, max }
}

/// A time in these bounds, given in milliseconds and seconds.
pub(crate) const fn time(min_milliseconds: u64, max_seconds: u64) -> ValueKind {
    ValueKind::Time {
        min: Duration::from_millis(min_milliseconds),
        max: Duration::from_secs(max_seconds),
    }
}

/// A percentage in these bounds.
pub(crate) const fn percent(min: u8, max: u8) -> ValueKind {
    ValueKind::Percent { min, max }
}

/// A size in these bounds, given in bytes.
pub(crate) const fn size(min: u64, max: u64) -> ValueKind {
    ValueKind::Size { min, max }
}

/// A string; `allowed` says which.
pub(crate) const fn text(allowed: &'static str) -> ValueKind {
    ValueKind::Text(allowed)
}

/// A list of strings; `allowed` says what each may be.
pub(crate) const fn texts(allowed: &'static str) -> ValueKind {
    ValueKind::Texts(allowed)
}

/// Bytes: as long as a frame can be (RFC 6455 section 5.2) is no bound; a tebibyte is one for all
/// that is sent.
pub(crate) const SIZE_MAX: u64 = 1 << 40;
/// No setting is unlimited: nothing here is a billion.
pub(crate) const COUNT_MAX: u64 = 1_000_000_000;
/// In whatever time: more than a machine accepts in a minute.
pub(crate) const RATE_MAX: u64 = 1_000_000;
/// Seconds. A handshake of an hour is a mistake.
pub(crate) const HOUR: u64 = 3_600;
/// Seconds.
pub(crate) const DAY: u64 = 24 * HOUR;
/// Seconds. The longest that a connection may be quiet.
pub(crate) const YEAR: u64 = 365 * DAY;

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl TableSpec {
    /// All keys of the table, groups resolved.
    pub(crate) fn all(&'static self) -> impl Iterator<Item = &'static KeySpec> {
        let groups = self.keys.iter().map(|key| match key.kind {
            ValueKind::Inline(group) => group.all().collect(),
            _ => vec![key],
        });
        groups.flat_map(Vec::into_iter)
    }

    pub(crate) fn key(&'static self, name: &str) -> Option<&'static KeySpec> {
        self.keys.iter().find_map(|key| match key.kind {
            ValueKind::Inline(group) => group.key(name),
            _ => (key.name == name).then_some(key),
        })
    }

    /// Description for people.
    pub(crate) fn description(&self) -> String {
        paragraph(self.doc, 0).unwrap_or_default()
    }
}

impl KeySpec {
    /// Description for people.
    pub(crate) fn description(&self) -> String {
        paragraph(self.doc, 0).unwrap_or_default()
    }

    /// Reason for the default or the bounds.
    pub(crate) fn reason(&self) -> Option<String> {
        paragraph(self.doc, 1)
    }

    pub(crate) fn is_required(&self) -> bool {
        matches!(self.presence, Presence::Required)
    }

    /// The default as the file would write it.
    pub(crate) fn default(&self) -> Option<Value> {
        match self.presence {
            Presence::Default(shown) => Some(shown()),
            Presence::Required | Presence::Optional | Presence::Nested => None,
        }
    }
}

/// A paragraph of a doc comment, on one line.
fn paragraph(doc: &str, index: usize) -> Option<String> {
    let lines = doc.split("\n\n").nth(index)?.lines().map(str::trim);
    Some(lines.collect::<Vec<_>>().join(" "))
}

impl ValueKind {
    /// The table that this kind is made of.
    pub(crate) fn table(&self) -> Option<&'static TableSpec> {
        match self {
            ValueKind::Table(table)
            | ValueKind::FlagOrTable(table)
            | ValueKind::Tables(table)
            | ValueKind::Named(table) => Some(table),
            _ => None,
        }
    }

    /// Allowed values at the path of a key, for messages.
    pub(crate) fn allowed_at(&self, path: &str) -> String {
        match self {
            ValueKind::Tables(_) => {
                let names = path.split('.');
                let names = names.map(|part| part.split('[').next().unwrap_or_default());
                let header = names.collect::<Vec<_>>().join(".");
                format!("a list of tables, each written as [[{header}]] or {{ ... }}")
            }
            _ => self.allowed(),
        }
    }

    /// Allowed values, for the schema and for messages.
    pub(crate) fn allowed(&self) -> String {
        match self {
            ValueKind::Flag => "true or false".to_owned(),
            ValueKind::Number { min, max } => format!("a whole number from {min} to {max}"),
            ValueKind::Time { min, max } => format!(
                "a whole number and its unit (ms, s, m, h, d), from \"{}\" to \"{}\"",
                format_duration(*min),
                format_duration(*max)
            ),
            ValueKind::Percent { min, max } => {
                format!("a percentage from \"{min}%\" to \"{max}%\"")
            }
            ValueKind::Size { min, max } => format!(
                "a whole number and its unit (B, KiB, MiB, GiB), from \"{}\" to \"{}\"",
                format_size(*min),
                format_size(*max)
            ),
            ValueKind::Rate => format!(
                "a count from 1 to {RATE_MAX} in a time (s, m, h, or one such as 5s), as in \
                 \"20/s\"; the count may come at once"
            ),
            ValueKind::Word(words) => quoted(&words(), "or"),
            ValueKind::Words(words) => format!("a list of {}", quoted(&words(), "and")),
            ValueKind::Text(which) => (*which).to_owned(),
            ValueKind::Texts(which) => format!("a list, each {which}"),
            ValueKind::Statuses => {
                "a list of statuses and ranges, such as [200, \"300-399\"]".to_owned()
            }
            ValueKind::Headers => "a table of header names with their values".to_owned(),
            ValueKind::Table(_) | ValueKind::Named(_) | ValueKind::Inline(_) => {
                "a table".to_owned()
            }
            ValueKind::FlagOrTable(_) => "true, false or a table".to_owned(),
            ValueKind::Tables(_) => {
                "a list of tables, each written as [[name]] or { ... }".to_owned()
            }
        }
    }
}

/// `"a", "b" or "c"`
pub(crate) fn quoted(words: &[&str], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, before)) => format!("{} {last} {end}", before.join(", ")),
        None => String::new(),
    }
}
