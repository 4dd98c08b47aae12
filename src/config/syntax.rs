//! Problems of a text that is not TOML, in the words of somebody who wrote a configuration. The
//! parser names the first letter that it cannot read, and often several of one slip; here each slip
//! is one problem that shows what was meant.

mod twice;
mod value;

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, Error};

use super::error::{ErrorKind, Problem};

/// Longest word of the file in a message, in bytes.
const WORD_MAX: usize = 40;

/// A slip that is understood.
struct Slip {
    problem: Problem,
    /// Further errors in here come from the same slip.
    covers: Range<usize>,
}

/// The syntax errors with what else is surely wrong. Keys that the parser skipped seem to be
/// missing, and its guess at a broken line says nothing: problems of that kind would be noise.
pub(super) fn beside(
    text: &str,
    document: &DeTable<'_>,
    errors: &[Error],
    problems: Vec<Problem>,
) -> Vec<Problem> {
    if let Some(problem) = other_format(text, document, errors) {
        return vec![problem];
    }
    let syntax = each_once(text, document, errors);
    let line = lines(text);
    let broken: BTreeSet<usize> = syntax
        .iter()
        .map(|problem| line(problem.span.start))
        .collect();
    let sure = problems.into_iter().filter(|problem| {
        !matches!(
            problem.kind,
            ErrorKind::Missing | ErrorKind::Reference | ErrorKind::Conflict
        ) && !broken.contains(&line(problem.span.start))
    });
    let sure: Vec<Problem> = sure.collect();
    syntax.into_iter().chain(sure).collect()
}

/// The number of the line of an offset, from 0.
fn lines(text: &str) -> impl Fn(usize) -> usize {
    let ends = text.bytes().enumerate();
    let ends: Vec<usize> = ends
        .filter(|(_, byte)| *byte == b'\n')
        .map(|(at, _)| at)
        .collect();
    move |offset| ends.partition_point(|end| *end < offset)
}

fn each_once(text: &str, document: &DeTable<'_>, errors: &[Error]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut covered = 0..0;
    let start = |error: &Error| error.span().unwrap_or_default().start;
    // What is wrong with a value is said after what is wrong behind it.
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| start(error));
    for error in errors {
        let start = start(error);
        if covered.contains(&start) {
            continue;
        }
        let slip = twice::key(text, document, error).or_else(|| value::slip(text, error));
        match slip {
            Some(slip) => {
                covered = slip.covers;
                problems.push(slip.problem);
            }
            None => problems.push(plain(text, error)),
        }
    }
    problems
}

/// The words of the parser, with the word at which it stopped.
fn plain(text: &str, error: &Error) -> Problem {
    let span = error.span().unwrap_or_default();
    let after = text.get(span.start..).unwrap_or_default();
    let length = after
        .find(|c: char| !c.is_alphanumeric() && !"_-.:/".contains(c))
        .unwrap_or(after.len());
    let what = match cut(&after[..length]) {
        "" => format!("this is not TOML: {}", error.message()),
        word => format!("`{word}` is not TOML here: {}", error.message()),
    };
    problem(span, what, None)
}

fn problem(span: Range<usize>, what: String, hint: Option<String>) -> Problem {
    Problem {
        kind: ErrorKind::Syntax,
        span,
        key: String::new(),
        what,
        allowed: None,
        hint,
    }
}

fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(WORD_MAX)]
}

/// A file of another program: not one line of it could be read.
fn other_format(text: &str, document: &DeTable<'_>, errors: &[Error]) -> Option<Problem> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let is_unread = document.is_empty() || first.contains('\0');
    if errors.len() < 2 || !is_unread {
        return None;
    }
    let looks_like = match first {
        _ if first.contains('\0') => " (it looks like UTF-16; save it as UTF-8)",
        _ if first.starts_with('{') => " (it looks like JSON)",
        _ if first.ends_with('{') || first.ends_with(';') => {
            " (it looks like the file of another program, such as nginx)"
        }
        _ if first.ends_with(':') || first == "---" => " (it looks like YAML)",
        _ => "",
    };
    let hint = "a file has headers such as `[global]`, and keys below them: `log_level = \"info\"`";
    Some(problem(
        errors[0].span().unwrap_or_default(),
        format!("this file is no TOML{looks_like}"),
        Some(hint.to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{pool, read};
    use proptest::prelude::*;

    #[test]
    fn a_file_of_another_program_is_one_problem() {
        for (text, said) in [
            (
                "http {\n upstream a {\n  server 10.0.0.1:80;\n }\n}\n",
                "nginx",
            ),
            ("listener:\n  - name: a\n    bind: 0.0.0.0:80\n", "YAML"),
            ("{\"listener\": [\n{\"name\": \"a\"}\n]}\n", "JSON"),
            ("[\0g\0]\0\n\0a\0=\x001\0", "UTF-16"),
            ("frontend a\n  bind *:80\nbackend b\n", "no TOML"),
        ] {
            let messages = read(text).unwrap_err().messages();
            assert_eq!(messages.len(), 1, "{messages:?}");
            assert!(messages[0].message.contains(said), "{messages:?}");
        }
    }

    #[test]
    fn a_word_in_a_message_is_cut() {
        let text = pool(&format!("{} {}", "a".repeat(3_000), "b".repeat(3_000)));
        for message in read(&text).unwrap_err().messages() {
            assert!(message.message.len() < 200, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_drawn(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "[", "[[", "]", "{", "}", "=", ",", "\n", "\r\n", " ", "\"", "'", "#", ";", ".", "0", "07",
                    "bind", "weight", "pool", "é", "“", "”", "%", "\0", "[pool.p]\n", "retries = 3\n",
                ]),
                0..24,
            ),
            start in any::<bool>(),
        ) {
            let text = format!("{}{}", if start { pool("") } else { String::new() }, parts.concat());
            if let Err(errors) = read(&text) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}
