//! One value of the file beside the kind that was declared for it: it reads itself, or notes why it cannot.

mod hint;
mod table_form;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeValue};

use super::error::{Fault, Problem};
use super::keys::Kind;
use super::name::read_name;
use super::source::Source;
use super::table::Table;
use super::words::{Word, words};
use crate::base::names::nearest;
use crate::base::rate::{Rate, RateError};
use crate::base::units::{UnitError, parse_duration, parse_size};

/// One value of a table, or one item of a list in it.
pub struct Entry<'a> {
    source: &'a Source<'a>,
    kind: &'static Kind,
    path: String,
    span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Entry<'a> {
    pub fn new(
        source: &'a Source<'a>,
        kind: &'static Kind,
        path: String,
        key: &'a Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Entry<'a> {
        // The span of a table that has no header of its own is empty: its key stands for it.
        let span = if value.span().is_empty() {
            key.span()
        } else {
            value.span()
        };
        Entry {
            source,
            kind,
            path,
            span,
            value: value.get_ref(),
        }
    }

    /// Notes that this value is wrong beside what else is there.
    pub fn refuse(&self, fault: Fault, why: &str) {
        self.source.note(Problem {
            fault,
            span: self.span.clone(),
            key: self.path.clone(),
            what: format!("{} cannot stand here: {why}", self.source.shown(&self.span)),
            allowed: None,
            hint: self.meant_by_peers(),
        });
    }

    /// Notes that the value has the right type but is not allowed.
    pub fn refuse_value(&self, why: &str) {
        let what = format!("{} is not allowed: {why}", self.source.shown(&self.span));
        let hint = self.value.as_str().and_then(|text| self.meant(text));
        self.note_with_allowed(Fault::Value, what, hint);
    }

    /// Notes something that the operator should know, and that refuses nothing.
    pub fn warn(&self, what: String) {
        self.source.warn(Problem {
            fault: Fault::Value,
            span: self.span.clone(),
            key: self.path.clone(),
            what,
            allowed: None,
            hint: None,
        });
    }

    /// Remembers that this value names a file.
    pub fn mark_file(&self, file: &Path) {
        self.source.mark(&self.path, &self.span, Some(file));
    }

    /// Remembers where it stands, for what is found out about it later.
    pub fn mark(&self) {
        self.source.mark(&self.path, &self.span, None);
    }

    fn wrong_type(&self) {
        let shown = self.source.shown(&self.span);
        let hint = self.right_form(&shown);
        let what = format!("{shown} is a {}", type_name(self.value));
        self.note_with_allowed(Fault::Type, what, hint);
    }

    fn note_with_allowed(&self, fault: Fault, what: String, hint: Option<String>) {
        self.source.note(Problem {
            fault,
            span: self.span.clone(),
            key: self.path.clone(),
            what,
            allowed: Some(format!("allowed: {}", self.kind.allowed_at(&self.path))),
            hint,
        });
    }

    /// Notes that what this value names does not exist.
    pub fn unresolved(&self, what: &str, name: &str, existing: &[&str]) {
        self.unresolved_part(what, name, existing, str::to_owned);
    }

    /// The same of a part of the value; `whole` is the value with another name there.
    pub fn unresolved_part(
        &self,
        what: &str,
        name: &str,
        existing: &[&str],
        whole: impl Fn(&str) -> String,
    ) {
        let near = nearest(name, existing.iter().copied());
        let hint = near.map(|near| format!("did you mean \"{}\"?", whole(near)));
        let name: String = name.chars().take(NAME_SHOWN).collect();
        let allowed = match existing {
            [] => format!("there is no {what}"),
            _ => format!("there are: {}", existing.join(", ")),
        };
        self.source.note(Problem {
            fault: Fault::Reference,
            span: self.span.clone(),
            key: self.path.clone(),
            what: format!("there is no {what} \"{name}\""),
            allowed: Some(allowed),
            hint,
        });
    }

    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong_type();
        }
        flag
    }

    pub fn is_flag(&self) -> bool {
        self.value.is_bool()
    }

    pub fn number(&self) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            self.wrong_type();
            return None;
        };
        let number = whole(integer);
        let allowed = match self.kind {
            Kind::Number { min, max } => {
                number.is_some_and(|number| (*min..=*max).contains(&number))
            }
            _ => number.is_some(),
        };
        if !allowed {
            self.refuse_value("it is out of range");
        }
        number.filter(|_| allowed)
    }

    pub fn time(&self) -> Option<Duration> {
        let Kind::Time { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match parse_duration(text) {
            Ok(time) if time < *min => Err("it is too short"),
            Ok(time) if time > *max => Err("it is too long"),
            Ok(time) => Ok(time),
            Err(UnitError::Number) => Err("it must begin with a whole number"),
            Err(UnitError::NoUnit) => Err("the unit is missing"),
            Err(UnitError::Fraction) => Err(FRACTION),
            Err(UnitError::Unit) => Err("the unit is unknown"),
            Err(UnitError::TooLarge) => Err("it is too long"),
        })
    }

    /// In bytes.
    pub fn size(&self) -> Option<u64> {
        let Kind::Size { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match parse_size(text) {
            Ok(bytes) if bytes < *min => Err("it is too small"),
            Ok(bytes) if bytes > *max => Err("it is too large"),
            Ok(bytes) => Ok(bytes),
            Err(UnitError::Number) => Err("it must begin with a whole number"),
            Err(UnitError::NoUnit) => Err("the unit is missing"),
            Err(UnitError::Fraction) => Err(FRACTION),
            Err(UnitError::Unit) => Err("the unit is unknown"),
            Err(UnitError::TooLarge) => Err("it is too large"),
        })
    }

    pub fn rate(&self) -> Option<Rate> {
        let Kind::Rate { max } = self.kind else {
            return None;
        };
        self.text_by(|text| match text.parse::<Rate>() {
            Ok(rate) if rate.count() > *max => Err("it is too large"),
            Ok(rate) => Ok(rate),
            Err(RateError::Count) => Err("it must begin with a whole number above 0"),
            Err(RateError::Fraction) => Err(FRACTION),
            Err(RateError::NoTime) => Err("the time is missing"),
            Err(RateError::Time) => Err("the time is none, or longer than a day"),
            Err(RateError::TooLarge) => Err("it is too large"),
        })
    }

    pub fn percent(&self) -> Option<u8> {
        let Kind::Percent { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match text.strip_suffix('%').map(str::parse::<u8>) {
            Some(Ok(percent)) if (*min..=*max).contains(&percent) && !text.starts_with('+') => {
                Ok(percent)
            }
            Some(Ok(_)) => Err("it is out of range"),
            _ => Err("it is not a percentage"),
        })
    }

    pub fn word<T: Word>(&self) -> Option<T> {
        let word = self.string()?;
        let found = T::of(word);
        if found.is_none() {
            let near =
                || nearest(word, words::<T>()).map(|near| format!("did you mean \"{near}\"?"));
            let what = format!("{} is not allowed", self.source.shown(&self.span));
            self.note_with_allowed(Fault::Value, what, self.meant(word).or_else(near));
        }
        found
    }

    pub fn string(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.value else {
            self.wrong_type();
            return None;
        };
        Some(text)
    }

    pub fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|items| items.is_empty())
    }

    pub fn text_by<T>(&self, read: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        read(self.string()?)
            .map_err(|why| self.refuse_value(why))
            .ok()
    }

    pub fn table(&self) -> Option<Table<'a>> {
        let (DeValue::Table(entries), Some(section)) = (self.value, self.kind.section()) else {
            self.wrong_type();
            return None;
        };
        Some(Table::open(
            self.source,
            section,
            entries,
            self.span.clone(),
            self.path.clone(),
        ))
    }

    /// The values of a table whose keys are names that the operator chose; a bad name is noted.
    pub fn children(&self) -> Vec<(String, Entry<'a>)> {
        self.children_by(read_name)
    }

    /// The same, of names that `read` judges.
    pub fn children_by(
        &self,
        read: impl Fn(&str) -> Result<String, &'static str>,
    ) -> Vec<(String, Entry<'a>)> {
        let DeValue::Table(entries) = self.value else {
            self.wrong_type();
            return Vec::new();
        };
        let child = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let name = key.get_ref().to_string();
            let path = format!("{}.{name}", self.path);
            if let Err(why) = read(&name) {
                let at_key = Entry {
                    span: key.span(),
                    path: path.clone(),
                    ..*self
                };
                at_key.refuse(Fault::Value, why);
            }
            (name, Entry::new(self.source, self.kind, path, key, value))
        };
        entries.iter().map(child).collect()
    }

    /// The items of a list.
    pub fn items(&self) -> impl Iterator<Item = Entry<'a>> {
        let items = self.value.as_array();
        if items.is_none() {
            self.wrong_type();
        }
        let (source, kind, path) = (self.source, self.kind, self.path.clone());
        items
            .into_iter()
            .flat_map(|items| items.iter().enumerate())
            .map(move |(index, item)| Entry {
                source,
                kind,
                path: format!("{path}[{index}]"),
                span: item.span(),
                value: item.get_ref(),
            })
    }
}

/// Longest name in a message, in characters: no name of a file that is right is longer.
const NAME_SHOWN: usize = 64;

const FRACTION: &str = "a fraction is not taken, only a whole number";

fn whole(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "list",
        DeValue::Integer(_) => "whole number",
        DeValue::Float(_) => "fraction",
        DeValue::Datetime(_) => "date",
        other => other.type_str(),
    }
}
