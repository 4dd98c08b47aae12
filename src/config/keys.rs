//! What a key of the file is: its name, its kind with what is allowed, what its absence means, and its words for people.
//!
//! The tables of keys stand beside their decoders in `sections`. The decoder, the schema and the reference file are all
//! held against them, so there is one place where a key is declared.

use std::time::Duration;

use crate::base::rate::Rate;
use crate::base::units::{format_duration, format_size};

/// A table of the file: `[global]`, one `[[listener]]`, the value of `check`.
pub struct Section {
    /// For people, in the schema.
    pub doc: &'static str,
    pub keys: &'static [Key],
}

/// One key of a table.
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub absent: Absent,
    /// For people, in the schema.
    pub doc: &'static str,
}

/// What it means that a key is not there.
pub enum Absent {
    /// It is an error.
    Required,
    /// There is none; the words of the key say what that means.
    None,
    Flag(bool),
    Number(u64),
    Time(Duration),
    Percent(u8),
    /// Bytes.
    Size(u64),
    Rate(Rate),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

/// What a value is, and what is allowed.
pub enum Kind {
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
    Rate {
        max: u64,
    },
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A list of these words.
    Words(fn() -> Vec<&'static str>),
    /// A string; the words say which are allowed.
    Text(&'static str),
    /// A list of strings.
    Texts(&'static str),
    /// A list of HTTP statuses and ranges of them.
    Statuses,
    /// A table of header names, each with its value.
    Headers,
    Table(&'static Section),
    /// `true` for a table of defaults, `false` for none.
    FlagOrTable(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
    /// A table whose keys are names that the operator chooses.
    Named(&'static Section),
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Declares a key.
pub const fn key(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        absent,
        doc,
    }
}

/// A whole number in these bounds.
pub const fn number(min: u64, max: u64) -> Kind {
    Kind::Number { min, max }
}

/// A time in these bounds, given in milliseconds and seconds.
pub const fn time(min_milliseconds: u64, max_seconds: u64) -> Kind {
    Kind::Time {
        min: Duration::from_millis(min_milliseconds),
        max: Duration::from_secs(max_seconds),
    }
}

/// A size in these bounds, given in bytes.
pub const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

/// A rate whose count, and so its burst, is at most this.
pub const fn rate(max: u64) -> Kind {
    Kind::Rate { max }
}

/// Bytes: as long as a frame can be (RFC 6455 section 5.2) is no bound; a tebibyte is one for all that is sent.
pub const SIZE_MAX: u64 = 1 << 40;
/// No setting is unlimited: nothing here is a billion.
pub const COUNT_MAX: u64 = 1_000_000_000;
/// In whatever time: more than a machine accepts in a minute.
pub const RATE_MAX: u64 = 1_000_000;
/// Seconds. A hand-shake of an hour is a mistake.
pub const HOUR: u64 = 3_600;
/// Seconds.
pub const DAY: u64 = 24 * HOUR;
/// Seconds. The longest that a connection may be quiet.
pub const YEAR: u64 = 365 * DAY;

impl Kind {
    /// The table that this kind is made of.
    pub fn section(&self) -> Option<&'static Section> {
        match self {
            Kind::Table(section)
            | Kind::FlagOrTable(section)
            | Kind::Tables(section)
            | Kind::Named(section) => Some(section),
            _ => None,
        }
    }

    /// What is allowed at the path of a key, for messages.
    pub fn allowed_at(&self, path: &str) -> String {
        match self {
            Kind::Tables(_) => {
                let names = path.split('.');
                let names = names.map(|part| part.split('[').next().unwrap_or_default());
                let header = names.collect::<Vec<_>>().join(".");
                format!("a list of tables, each written as [[{header}]] or {{ ... }}")
            }
            _ => self.allowed(),
        }
    }

    /// What is allowed, for the schema and for messages.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Flag => "true or false".to_owned(),
            Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Time { min, max } => format!(
                "a whole number and its unit (ms, s, m, h, d), from \"{}\" to \"{}\"",
                format_duration(*min),
                format_duration(*max)
            ),
            Kind::Percent { min, max } => format!("a percentage from \"{min}%\" to \"{max}%\""),
            Kind::Size { min, max } => format!(
                "a whole number and its unit (B, KiB, MiB, GiB), from \"{}\" to \"{}\"",
                format_size(*min),
                format_size(*max)
            ),
            Kind::Rate { max } => format!(
                "a count from 1 to {max} in a time (s, m, h, or one such as 5s), as in \"20/s\"; the count may come at once"
            ),
            Kind::Word(words) => quoted(&words(), "or"),
            Kind::Words(words) => format!("a list of {}", quoted(&words(), "and")),
            Kind::Text(which) => (*which).to_owned(),
            Kind::Texts(which) => format!("a list, each {which}"),
            Kind::Statuses => {
                "a list of statuses and ranges, such as [200, \"300-399\"]".to_owned()
            }
            Kind::Headers => "a table of header names with their values".to_owned(),
            Kind::Table(_) | Kind::Named(_) => "a table".to_owned(),
            Kind::FlagOrTable(_) => "true, false or a table".to_owned(),
            Kind::Tables(_) => "a list of tables, each written as [[name]] or { ... }".to_owned(),
        }
    }
}

/// `"a", "b" or "c"`
pub fn quoted(words: &[&str], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, before)) => format!("{} {last} {end}", before.join(", ")),
        None => String::new(),
    }
}
