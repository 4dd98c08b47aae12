//! All problems of one configuration file, at once: for people (with the line and a caret) and as
//! data.
//!
//! A problem never stops the decoder. It is noted with its place, and the file is refused at the
//! end.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// Problems shown to a person; more are only counted. Each costs a pass over the text to draw, and
/// nobody reads more.
const SHOWN: usize = 50;

/// Longest path of a key that is drawn, in characters: four names of the longest, and lists.
const KEY_SHOWN: usize = 160;

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The text is not TOML.
    Syntax,
    /// A key that does not exist.
    UnknownKey,
    /// A string where a number is needed, and the like.
    Type,
    /// Right type, but not among what is allowed.
    Value,
    /// Something needed is not there.
    Missing,
    /// Right alone, but it cannot go with what else is there.
    Conflict,
    /// A name of something that does not exist.
    Reference,
    /// A named file, or something of this machine, that cannot be used.
    File,
}

/// Effect of problems on the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken.
    Warning,
}

/// A problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub kind: ErrorKind,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Path of the key, such as `pool.chat.check.interval`; empty for the file as a whole.
    pub key: String,
    /// Sentence that says the problem, with the value.
    pub what: String,
    /// Values that would be right.
    pub allowed: Option<String>,
    /// A guess at what was meant.
    pub hint: Option<String>,
}

/// A problem as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigMessage {
    pub fault: ErrorKind,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the key, such as `pool.chat.check.interval`; empty for the file as a whole.
    pub key: String,
    /// The problem, the hint and the allowed values, on one line.
    pub message: String,
}

/// All that is wrong with a configuration file, or all that it is warned of; at least one problem.
/// `Display` draws each with its line and a caret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    text: String,
    problems: Vec<Problem>,
    severity: Severity,
}

impl ConfigErrors {
    pub(super) fn new(file: String, text: String, mut problems: Vec<Problem>) -> ConfigErrors {
        for problem in &mut problems {
            problem.span = within(&text, &problem.span);
        }
        let order = |problem: &Problem| (problem.span.start, problem.key.clone());
        problems.sort_by_cached_key(|problem| (order(problem), problem.what.clone()));
        problems.dedup();
        ConfigErrors {
            file,
            text,
            problems,
            severity: Severity::Error,
        }
    }

    pub(super) fn with(self, severity: Severity) -> ConfigErrors {
        ConfigErrors { severity, ..self }
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every problem in the order of the text.
    pub fn messages(&self) -> Vec<ConfigMessage> {
        let mut lines = LineIndex::new(&self.text);
        let message = |problem: &Problem| {
            let (line, column) = lines.place(problem.span.start);
            ConfigMessage {
                fault: problem.kind,
                line,
                column,
                key: problem.key.clone(),
                message: problem.to_string(),
            }
        };
        self.problems.iter().map(message).collect()
    }

    /// As `Display` writes it, with colours for a terminal if they are wanted.
    pub fn drawn(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let problems = self.problems.iter().take(SHOWN);
        let drawn = problems.map(|problem| format!("{}\n\n", self.render(problem, &renderer)));
        let mut text: String = drawn.collect();
        text.push_str(&self.count());
        text
    }

    fn count(&self) -> String {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let file = &self.file;
        match self.problems.len() {
            1 => format!("{file}: 1 {word}"),
            count if count > SHOWN => {
                format!("{file}: {count} {word}s, the first {SHOWN} are shown")
            }
            count => format!("{file}: {count} {word}s"),
        }
    }

    /// The help stands at the caret, where it is read first; what is allowed beside it comes below.
    fn render(&self, problem: &Problem, renderer: &Renderer) -> String {
        let caret = AnnotationKind::Primary.span(problem.span.clone());
        let (label, note) = problem.remarks();
        let caret = match label {
            Some(label) => caret.label(label),
            None => caret,
        };
        let snippet = Snippet::source(&self.text)
            .path(&self.file)
            .annotation(caret);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut report = Group::with_title(level.primary_title(problem.title())).element(snippet);
        if let Some(note) = note {
            report = report.element(Level::NOTE.message(note));
        }
        renderer.render(&[report])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.drawn(false))
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for ConfigErrors {}

impl Problem {
    fn title(&self) -> String {
        match self.key.as_str() {
            "" => self.what.clone(),
            key if key.chars().nth(KEY_SHOWN).is_some() => {
                let key: String = key.chars().take(KEY_SHOWN).collect();
                format!("{key}...: {}", self.what)
            }
            key => format!("{key}: {}", self.what),
        }
    }

    /// Remark at the caret, and remark below.
    fn remarks(&self) -> (Option<String>, Option<String>) {
        let help = self.hint.as_ref().map(|hint| format!("help: {hint}"));
        let allowed = self.allowed_beside_hint();
        match (help, allowed) {
            (None, Some(short)) if short.len() <= SHORT => (Some(short.to_owned()), None),
            (help, allowed) => (help, allowed.map(wrapped)),
        }
    }

    /// A key that is found needs no list of all others.
    fn allowed_beside_hint(&self) -> Option<&str> {
        let is_found = self.kind == ErrorKind::UnknownKey && self.hint.is_some();
        self.allowed.as_deref().filter(|_| !is_found)
    }
}

/// Longest remark at a caret, in bytes; it stands behind the value.
const SHORT: usize = 60;
/// Columns of a remark below.
const WIDTH: usize = 88;

/// Broken behind blanks.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines
            .last_mut()
            .filter(|line| line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        let more = [self.hint.as_deref(), self.allowed_beside_hint()];
        for more in more.into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

/// The part of `span` that can be shown: inside the text, at character boundaries, on the line
/// where it begins.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |length| start + length);
    let end = text.floor_char_boundary(span.end.min(line_end)).max(start);
    start..end
}

/// Turns rising offsets into lines and columns in one pass over the text.
struct LineIndex<'a> {
    text: &'a str,
    line: usize,
    line_start: usize,
}

impl<'a> LineIndex<'a> {
    fn new(text: &'a str) -> LineIndex<'a> {
        LineIndex {
            text,
            line: 1,
            line_start: 0,
        }
    }

    /// `offset` must not be below the last one asked for.
    fn place(&mut self, offset: usize) -> (usize, usize) {
        while let Some(length) = self.text[self.line_start..offset].find('\n') {
            self.line += 1;
            self.line_start += length + 1;
        }
        (
            self.line,
            self.text[self.line_start..offset].chars().count() + 1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(span: Range<usize>) -> Problem {
        Problem {
            kind: ErrorKind::Value,
            span,
            key: "global.workers".to_owned(),
            what: "\"x\" is wrong".to_owned(),
            allowed: Some("allowed is a number".to_owned()),
            hint: Some("write 1".to_owned()),
        }
    }

    fn errors(text: &str, problems: Vec<Problem>) -> ConfigErrors {
        ConfigErrors::new("a.toml".to_owned(), text.to_owned(), problems)
    }

    #[test]
    fn a_problem_is_drawn_with_its_line_and_a_caret() {
        let shown = errors("[global]\nworkers = 'x'\n", vec![problem(19..22)]).to_string();
        assert!(
            shown.contains("error: global.workers: \"x\" is wrong"),
            "{shown}"
        );
        assert!(shown.contains("--> a.toml:2:11"), "{shown}");
        assert!(shown.contains("^^^ help: write 1"), "{shown}");
        assert!(shown.contains("note: allowed is a number"), "{shown}");
        assert!(shown.ends_with("a.toml: 1 error"), "{shown}");
    }

    #[test]
    fn colours_are_for_terminals_and_change_no_word() {
        let found = errors("[global]\nworkers = 'x'\n", vec![problem(19..22)]);
        let (plain, coloured) = (found.drawn(false), found.drawn(true));
        assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
        let mut words = String::new();
        for (at, part) in coloured.split('\u{1b}').enumerate() {
            let text = part.split_once('m').filter(|_| at > 0);
            words.push_str(text.map_or(part, |(_, behind)| behind));
        }
        assert_eq!(words, plain);
    }

    #[test]
    fn a_key_that_is_found_is_shown_without_the_list_of_all_and_a_long_list_is_broken() {
        let allowed = format!("allowed: {}", ["some_key"; 30].join(", "));
        let mut unknown = Problem {
            kind: ErrorKind::UnknownKey,
            allowed: Some(allowed),
            ..problem(0..1)
        };
        let drawn = errors("a = 1\n", vec![unknown.clone()]).to_string();
        assert!(!drawn.contains("allowed"), "{drawn}");
        unknown.hint = None;
        let drawn = errors("a = 1\n", vec![unknown]).to_string();
        assert!(drawn.contains("note: allowed: some_key"), "{drawn}");
        assert!(drawn.lines().all(|line| line.len() <= 100), "{drawn}");
    }

    #[test]
    fn messages_come_in_the_order_of_the_text() {
        let found = errors("é = 1\nworkers = 2\n", vec![problem(7..8), problem(3..4)]).messages();
        let places: Vec<_> = found
            .iter()
            .map(|message| (message.line, message.column))
            .collect();
        assert_eq!(places, [(1, 3), (2, 1)]);
        assert_eq!(
            found[0].message,
            "\"x\" is wrong; write 1; allowed is a number"
        );
    }

    #[test]
    fn many_problems_are_all_listed_but_not_all_drawn() {
        let many = errors(
            &"\n".repeat(200),
            (0..200).map(|at| problem(at..at)).collect(),
        );
        assert_eq!(many.messages().len(), 200);
        assert!(
            many.to_string()
                .ends_with("200 errors, the first 50 are shown")
        );
    }

    proptest! {
        #[test]
        fn any_span_over_any_text_is_drawn(text in any::<String>(), start in 0usize..300, length in 0usize..300) {
            let found = errors(&text, vec![problem(start..start + length), problem(0..0)]);
            prop_assert!(!found.to_string().is_empty());
            prop_assert!(found.messages().iter().all(|message| message.line > 0 && message.column > 0));
        }
    }
}
