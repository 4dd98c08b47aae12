//! A value that TOML does not take as it is written: a text without quotes, a number with a zero in
//! front, a `;` at the end, a comma that is missing.

use std::ops::Range;

use toml::de::{DeTable, Error};

use super::{Slip, cut, problem};
use crate::config::declare::Declared;
use crate::config::tables::Config;
use crate::config::{meant, misplaced};

/// A value as it is written, of a key on the same line.
struct Written<'a> {
    key: &'a str,
    value: &'a str,
    /// Where the value stands.
    span: Range<usize>,
    /// Whether it stands in a table of one line, among keys that commas part.
    is_inline: bool,
}

/// The slip behind an error in a value.
pub(super) fn slip(text: &str, error: &Error) -> Option<Slip> {
    let start = error.span()?.start;
    if error.message().starts_with("missing comma") {
        let hint = "write a comma before it".to_owned();
        return Some(rest_of_line(text, start..start, "a comma is missing", hint));
    }
    let written = written(text, start)?;
    let Written { value, span, .. } = &written;
    let slip = |what: String, hint: Option<String>| Slip {
        problem: problem(span.clone(), what, hint),
        covers: span.clone(),
    };
    if let Some((first, next)) = followed_by_key(value) {
        let at = span.start..span.start + first.len();
        let (what, hint) = if written.is_inline {
            ("a comma is missing", format!("write `{first},`"))
        } else {
            (
                "each key needs a line of its own",
                format!("break the line before `{}`", cut(next)),
            )
        };
        return Some(rest_of_line(text, at, what, hint));
    }
    if let Some(inner) = value.strip_suffix(';').filter(|inner| is_toml(inner)) {
        let hint = format!("write {}", inner.trim_end());
        return Some(slip("a line does not end with `;`".to_owned(), Some(hint)));
    }
    if let Some(inner) = curly_quoted(value) {
        let hint = format!("write \"{}\"", cut(inner));
        return Some(slip("these are not straight quotes".to_owned(), Some(hint)));
    }
    let hint = hint(&written)?;
    let why = if has_leading_zero(value) {
        "a number does not begin with a zero"
    } else {
        error.message()
    };
    let what = format!("`{}` is not TOML here: {why}", cut(value));
    Some(slip(what, Some(hint)))
}

/// A problem for the rest of the line, at which the parser only guesses.
fn rest_of_line(text: &str, span: Range<usize>, what: &str, hint: String) -> Slip {
    let rest = text.get(span.end..).unwrap_or_default();
    let line_end = span.end + rest.find('\n').unwrap_or(rest.len());
    Slip {
        covers: span.start..line_end + 1,
        problem: problem(span, what.to_owned(), Some(hint)),
    }
}

/// The value at an offset, if it is of a key on the same line and the offset is in its first word.
fn written(text: &str, offset: usize) -> Option<Written<'_>> {
    let line_start = text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
    let rest = text.get(offset..)?;
    let line_end = offset + rest.find(['\n', '\r']).unwrap_or(rest.len());
    let before = &text[line_start..offset];
    let equals = before.rfind('=')?;
    let key = before[..equals].rsplit(['{', ',']).next()?.trim();
    let start = line_start + equals + 1;
    let start = start + (text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len());
    let begun = text.get(start..offset.max(start))?;
    if begun.contains([' ', ',', '"', '\'', '{']) {
        return None;
    }
    let value = text.get(start..line_end)?;
    let value = value.split(['#', ',', '}']).next().unwrap_or_default();
    let value = value.trim_end();
    let span = start..start + value.len();
    (!value.is_empty() && !value.starts_with(['"', '\''])).then_some(Written {
        key,
        value,
        span,
        is_inline: before[..equals].contains('{'),
    })
}

/// The first word and the key behind it, where the word is a value and the key has one of its own.
fn followed_by_key(value: &str) -> Option<(&str, &str)> {
    let (first, rest) = value.split_once(' ')?;
    let (key, _) = rest.split_once('=')?;
    let key = key.trim();
    let is_key = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (is_key && is_toml(first)).then_some((first, key))
}

fn is_toml(value: &str) -> bool {
    DeTable::parse(&format!("x = {value}")).is_ok()
}

/// The text in quotes of a word processor.
fn curly_quoted(value: &str) -> Option<&str> {
    const QUOTES: [char; 8] = ['“', '”', '„', '‟', '‘', '’', '«', '»'];
    value
        .starts_with(QUOTES)
        .then(|| value.trim_matches(QUOTES))
}

fn has_leading_zero(value: &str) -> bool {
    value.len() > 1 && value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// How the value is written. The kinds of all keys of this name are asked, mostly one.
fn hint(written: &Written<'_>) -> Option<String> {
    let Written { key, value, .. } = written;
    let name = key.rsplit('.').next().unwrap_or_default();
    let name = name.trim_matches(['"', '\'']);
    let places = misplaced::places_of(Config::SPEC, name);
    let mut kinds = places.iter().map(|place| place.kind);
    let hint = kinds.find_map(|kind| meant::written(kind, name, value));
    let is_known = !places.is_empty();
    hint.or_else(|| unknown(value, is_known))
}

/// Hint for an unknown key, or one whose kind has no such value.
fn unknown(value: &str, is_known: bool) -> Option<String> {
    if let Some(flag) = meant::flag(value).filter(|_| value.starts_with(char::is_alphabetic)) {
        return Some(format!("it takes no quotes: {flag}"));
    }
    let is_word = !value.contains(char::is_whitespace) && !value.contains(['"', '[', ';']);
    let is_text = !is_known || value.starts_with(char::is_alphabetic);
    (is_word && is_text && !has_leading_zero(value))
        .then(|| format!("a string needs quotes: \"{}\"", cut(value)))
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{listener, pool, read};

    /// The only message.
    fn said(text: &str) -> String {
        let messages = read(text).unwrap_err().messages();
        assert_eq!(messages.len(), 1, "{text}\n{messages:?}");
        messages[0].message.clone()
    }

    fn backend(keys: &str) -> String {
        pool("").replace("name = \"n\"", keys)
    }

    #[test]
    fn each_slip_is_one_problem_with_the_form_that_was_meant() {
        let listener = |keys: &str| listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"));
        let bind = |value: &str| pool("").replace("\"[::]:80\"", value);
        for (text, wanted) in [
            (listener("mode = 0660"), "needs quotes: \"0660\""),
            (
                backend("weight = 007"),
                "does not begin with a zero; write 7",
            ),
            (pool("retries = 05"), "does not begin with a zero; write 5"),
            (
                pool("rebalance = { threshold = 20% }"),
                "needs quotes: \"20%\"",
            ),
            (pool("idle_timeout = 05s"), "needs quotes: \"5s\""),
            (pool("retries = 3;"), "does not end with `;`; write 3"),
            (
                backend("weight = 1 max_connections = 2"),
                "a comma is missing; write `1,`",
            ),
            (
                backend("name = \"a\" weight = 2"),
                "a comma is missing; write a comma before it",
            ),
            (
                listener("allow = [\"10.0.0.0/8\" \"11.0.0.0/8\"]"),
                "a comma is missing",
            ),
            (
                pool("retries = 3 max_queue = 2"),
                "a line of its own; break the line before `max_queue`",
            ),
            (bind("0.0.0.0:8080"), "needs quotes: \"0.0.0.0:8080\""),
            (bind("[::]:8080"), "needs quotes: \"[::]:8080\""),
            (
                bind("\u{201c}[::]:80\u{201d}"),
                "these are not straight quotes; write \"[::]:80\"",
            ),
        ] {
            let said = said(&text);
            assert!(said.contains(wanted), "{text}\n{said}");
        }
    }

    #[test]
    fn the_caret_is_below_the_whole_value() {
        let drawn = read(&pool("retries = 0005")).unwrap_err().to_string();
        assert!(drawn.contains(" ^^^^ help: write 5"), "{drawn}");
    }
}
