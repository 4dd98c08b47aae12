//! A key or a table that stands twice: where it stands first.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::{Slip, cut, lines, problem};

/// The slip behind the error of a repeated key.
pub(super) fn key(text: &str, document: &DeTable<'_>, error: &Error) -> Option<Slip> {
    if error.message() != "duplicate key" {
        return None;
    }
    let span = error.span()?;
    let (before, _) = text.split_at_checked(span.start)?;
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(line_start..)?.lines().next()?.trim();
    let header = line.split_inclusive(']').next();
    match header.filter(|header| header.starts_with('[') && before[line_start..].contains('[')) {
        Some(header) => Some(table(text, line_start, header, span)),
        None => Some(own_key(text, document, span)),
    }
}

/// A header. The keys below it are repeated, too, which goes without saying.
fn table(text: &str, line_start: usize, header: &str, span: Range<usize>) -> Slip {
    let below = text.get(span.end..).unwrap_or_default();
    let next = below.find("\n[").map_or(text.len(), |at| span.end + at);
    let first = header_before(&text[..line_start], header)
        .or_else(|| assignment_before(&text[..line_start], header));
    let what = format!("the table {} stands twice", cut(header));
    let hint = "write all its keys below one header";
    Slip {
        problem: problem(
            span.clone(),
            with_first(text, what, first),
            Some(hint.to_owned()),
        ),
        covers: span.start..next,
    }
}

fn own_key(text: &str, document: &DeTable<'_>, span: Range<usize>) -> Slip {
    let name = text.get(span.clone()).unwrap_or_default();
    let mut places = Vec::new();
    collect(document, name.trim_matches(['"', '\'']), &mut places);
    places.retain(|place| place.end <= span.start);
    places.sort_by_key(|place| place.start);
    let is_beside =
        |place: &&Range<usize>| is_one_table(text.get(place.end..span.start).unwrap_or_default());
    let first = places.iter().rev().find(is_beside).map(|place| place.start);
    let what = format!("the key `{}` stands twice", cut(name));
    Slip {
        problem: problem(span.clone(), with_first(text, what, first), None),
        covers: span,
    }
}

fn with_first(text: &str, what: String, first: Option<usize>) -> String {
    match first {
        Some(first) => format!("{what}, first in line {}", lines(text)(first) + 1),
        None => what,
    }
}

fn header_before(before: &str, header: &str) -> Option<usize> {
    offsets(before).find_map(|(at, line)| line.trim().starts_with(header).then_some(at))
}

/// The last key of the header as a key with a value: `check = {...}` before `[pool.p.check]`.
fn assignment_before(before: &str, header: &str) -> Option<usize> {
    let name = header.trim_matches(['[', ']']).rsplit('.').next()?;
    let found = offsets(before).filter(|(_, line)| {
        let behind = line.trim().strip_prefix(name);
        behind.is_some_and(|behind| behind.trim_start().starts_with(['=', '.']))
    });
    found.last().map(|(at, _)| at)
}

fn offsets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    })
}

fn collect(table: &DeTable<'_>, name: &str, places: &mut Vec<Range<usize>>) {
    for (key, value) in table.iter() {
        if key.get_ref() == name {
            places.push(key.span());
        }
        collect_in(value.get_ref(), name, places);
    }
}

fn collect_in(value: &DeValue<'_>, name: &str, places: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => collect(table, name, places),
        DeValue::Array(items) => {
            for item in items.iter() {
                collect_in(item.get_ref(), name, places);
            }
        }
        _ => {}
    }
}

/// Whether what stands before and behind `between` are keys of one table: no brace is left open or
/// closed, and no header stands in it.
fn is_one_table(between: &str) -> bool {
    let mut depth = 0_i32;
    let mut quote = None;
    let mut is_line_start = false;
    let mut is_comment = false;
    for c in between.chars() {
        match (c, quote) {
            ('\n', _) => (is_comment, quote) = (false, None),
            _ if is_comment => {}
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('#', None) => is_comment = true,
            ('[', None) if is_line_start && depth == 0 => return false,
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
        is_line_start = c == '\n' || is_line_start && c.is_whitespace();
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{pool, read};

    #[test]
    fn what_stands_twice_is_one_problem_and_says_where_it_stands_first() {
        let backend = "backend = [{ name = \"n\", address = \"10.0.0.1:80\" }]\n";
        let twice = pool(&format!("[global]\n[pool.p]\n{backend}"));
        let inline = pool("").replace("name = \"n\"", "name = \"n\", name = \"m\"");
        for (text, wanted) in [
            (
                pool("retries = 3\nretries = 4"),
                "the key `retries` stands twice, first in line 8",
            ),
            (
                // Each check has a type of its own.
                pool(
                    "check = { type = \"tcp\" }\nretries = 1\n[access_log]\n[pool.q]\nretries = 3\n# [x]\nretries = 4",
                ),
                "the key `retries` stands twice, first in line 12",
            ),
            (inline, "the key `name` stands twice, first in line 7"),
            (
                pool("[global]\n[access_log]\n[global]"),
                "the table [global] stands twice, first in line 8",
            ),
            (twice, "the table [pool.p] stands twice, first in line 6"),
            (
                pool("check = { type = \"tcp\" }\n[pool.p.check]\ntype = \"tcp\""),
                "the table [pool.p.check] stands twice, first in line 8",
            ),
        ] {
            let messages = read(&text).unwrap_err().messages();
            assert_eq!(messages.len(), 1, "{messages:?}");
            assert!(messages[0].message.starts_with(wanted), "{messages:?}");
        }
    }
}
