//! Cursor over one value of the file, beside the kind that was declared for it.
//!
//! It reads the value, or notes why that cannot be done.

mod hint;
mod table_form;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeValue};

use super::error::{ErrorKind, Problem};
use super::name::read_name;
use super::source_file::SourceFile;
use super::spec::{RATE_MAX, ValueKind};
use crate::base::names::nearest;
use crate::base::rate::{Rate, RateError};
use crate::base::units::{UnitError, parse_duration, parse_size};

/// A value of a table, or an item of a list in it.
pub(crate) struct ValueReader<'a> {
    pub(super) source: &'a SourceFile<'a>,
    pub(super) kind: &'static ValueKind,
    pub(super) path: String,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> ValueReader<'a> {
    pub(crate) fn new(
        source: &'a SourceFile<'a>,
        kind: &'static ValueKind,
        path: String,
        key: &'a Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> ValueReader<'a> {
        // The span of a table that has no header of its own is empty: its key stands for it.
        let span = if value.span().is_empty() {
            key.span()
        } else {
            value.span()
        };
        ValueReader {
            source,
            kind,
            path,
            span,
            value: value.get_ref(),
        }
    }

    /// Notes that this value cannot go with the rest of the file.
    pub(crate) fn refuse(&self, kind: ErrorKind, why: &str) {
        let shown = self.source.shown(&self.span);
        self.source.note(Problem {
            hint: self.meant_by_peers(),
            ..self.problem(kind, format!("{shown} cannot be used here: {why}"))
        });
    }

    /// Notes that the value has the right type but is not allowed.
    pub(crate) fn refuse_value(&self, why: &str) {
        let what = format!("{} is not allowed: {why}", self.source.shown(&self.span));
        let hint = self.value.as_str().and_then(|text| self.meant(text));
        self.note_with_allowed(ErrorKind::Value, what, hint);
    }

    /// Notes something that the operator should know, and that refuses nothing.
    pub(crate) fn warn(&self, what: String) {
        self.source.warn(self.problem(ErrorKind::Value, what));
    }

    /// Remembers the place of the value, for findings from outside of the text.
    pub(crate) fn mark(&self) {
        self.source.mark(&self.path, &self.span, None);
    }

    pub(super) fn wrong_type(&self) {
        let shown = self.source.shown(&self.span);
        let hint = self.right_form(&shown);
        let what = format!("{shown} is a {}", type_name(self.value));
        self.note_with_allowed(ErrorKind::Type, what, hint);
    }

    fn note_with_allowed(&self, kind: ErrorKind, what: String, hint: Option<String>) {
        self.source.note(Problem {
            allowed: Some(format!("allowed: {}", self.kind.allowed_at(&self.path))),
            hint,
            ..self.problem(kind, what)
        });
    }

    fn problem(&self, kind: ErrorKind, what: String) -> Problem {
        Problem {
            kind,
            span: self.span.clone(),
            key: self.path.clone(),
            what,
            allowed: None,
            hint: None,
        }
    }

    /// Notes that the value names something that does not exist.
    pub(crate) fn unresolved(&self, what: &str, name: &str, existing: &[&str]) {
        self.unresolved_part(what, name, existing, str::to_owned);
    }

    /// Notes the same of a part of the value; `whole` is the value with another name there.
    pub(crate) fn unresolved_part(
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
        let missing = format!("there is no {what} \"{name}\"");
        self.source.note(Problem {
            allowed: Some(allowed),
            hint,
            ..self.problem(ErrorKind::Reference, missing)
        });
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.wrong_type();
        }
        flag
    }

    pub(crate) fn is_flag(&self) -> bool {
        self.value.is_bool()
    }

    /// A whole number, a size in bytes, or a percentage.
    pub(crate) fn whole_number(&self) -> Option<u64> {
        match self.kind {
            ValueKind::Size { .. } => self.size(),
            ValueKind::Percent { .. } => self.percent(),
            _ => self.number(),
        }
    }

    fn number(&self) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            self.wrong_type();
            return None;
        };
        let number = whole(integer);
        let allowed = match self.kind {
            ValueKind::Number { min, max } => *min..=*max,
            _ => 0..=u64::MAX,
        };
        let allowed = number.filter(|number| allowed.contains(number));
        if allowed.is_none() {
            self.refuse_value("it is out of range");
        }
        allowed
    }

    pub(crate) fn time(&self) -> Option<Duration> {
        let ValueKind::Time { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match parse_duration(text) {
            Ok(time) if time < *min => Err("it is too short"),
            Ok(time) if time > *max => Err("it is too long"),
            Ok(time) => Ok(time),
            Err(error) => Err(unit_error(error, "it is too long")),
        })
    }

    /// In bytes.
    fn size(&self) -> Option<u64> {
        let ValueKind::Size { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match parse_size(text) {
            Ok(bytes) if bytes < *min => Err("it is too small"),
            Ok(bytes) if bytes > *max => Err("it is too large"),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(unit_error(error, "it is too large")),
        })
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        self.text_by(|text| match text.parse::<Rate>() {
            Ok(rate) if rate.count() > RATE_MAX => Err("it is too large"),
            Ok(rate) => Ok(rate),
            Err(RateError::Count) => Err("it must begin with a whole number above 0"),
            Err(RateError::Fraction) => Err(FRACTION),
            Err(RateError::NoTime) => Err("the time is missing"),
            Err(RateError::Time) => Err("the time is none, or longer than a day"),
            Err(RateError::TooLarge) => Err("it is too large"),
        })
    }

    fn percent(&self) -> Option<u64> {
        let ValueKind::Percent { min, max } = self.kind else {
            return None;
        };
        self.text_by(|text| match text.strip_suffix('%').map(str::parse::<u8>) {
            Some(Ok(percent)) if (*min..=*max).contains(&percent) && !text.starts_with('+') => {
                Ok(u64::from(percent))
            }
            Some(Ok(_)) => Err("it is out of range"),
            _ => Err("it is not a percentage"),
        })
    }

    /// A word of `words`.
    pub(crate) fn word(&self, words: &[&'static str]) -> Option<&'static str> {
        let word = self.string()?;
        let found = words.iter().copied().find(|known| *known == word);
        if found.is_none() {
            let near = || {
                let near = nearest(word, words.iter().copied());
                near.map(|near| format!("did you mean \"{near}\"?"))
            };
            let what = format!("{} is not allowed", self.source.shown(&self.span));
            self.note_with_allowed(ErrorKind::Value, what, self.meant(word).or_else(near));
        }
        found
    }

    /// Those of `words` that a list has.
    pub(crate) fn words(&self, words: &[&'static str]) -> Vec<&'static str> {
        self.items().filter_map(|item| item.word(words)).collect()
    }

    /// The path of a file, joined to the folder of the configuration.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let path = self.text_by(|text| match text {
            "" => Err("it is empty"),
            _ => Ok(self.source.folder.join(text)),
        })?;
        self.source.mark(&self.path, &self.span, Some(&path));
        Some(path)
    }

    pub(crate) fn string(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.value else {
            self.wrong_type();
            return None;
        };
        Some(text)
    }

    pub(crate) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub(crate) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|items| items.is_empty())
    }

    pub(crate) fn text_by<T>(&self, read: impl Fn(&str) -> Result<T, &'static str>) -> Option<T> {
        read(self.string()?)
            .map_err(|why| self.refuse_value(why))
            .ok()
    }

    /// The values of a table whose keys are names that the operator chose; a bad name is noted.
    pub(crate) fn children(&self) -> Vec<(String, ValueReader<'a>)> {
        self.children_by(read_name)
    }

    /// Values of such a table, with names that `read` judges.
    pub(crate) fn children_by(
        &self,
        read: impl Fn(&str) -> Result<String, &'static str>,
    ) -> Vec<(String, ValueReader<'a>)> {
        let DeValue::Table(entries) = self.value else {
            self.wrong_type();
            return Vec::new();
        };
        let child = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let name = key.get_ref().to_string();
            let path = format!("{}.{name}", self.path);
            if let Err(why) = read(&name) {
                let at_key = ValueReader {
                    span: key.span(),
                    path: path.clone(),
                    ..*self
                };
                at_key.refuse(ErrorKind::Value, why);
            }
            (
                name,
                ValueReader::new(self.source, self.kind, path, key, value),
            )
        };
        entries.iter().map(child).collect()
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> impl Iterator<Item = ValueReader<'a>> {
        let items = self.value.as_array();
        if items.is_none() {
            self.wrong_type();
        }
        let (source, kind, path) = (self.source, self.kind, self.path.clone());
        items
            .into_iter()
            .flat_map(|items| items.iter().enumerate())
            .map(move |(index, item)| ValueReader {
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

const FRACTION: &str = "fractions are not allowed; write a whole number";

fn unit_error(error: UnitError, too_large: &'static str) -> &'static str {
    match error {
        UnitError::Number => "it must begin with a whole number",
        UnitError::NoUnit => "the unit is missing",
        UnitError::Fraction => FRACTION,
        UnitError::Unit => "the unit is unknown",
        UnitError::TooLarge => too_large,
    }
}

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
