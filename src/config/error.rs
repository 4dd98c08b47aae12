//! Everything that is wrong with one configuration file, at once: for people (with the line and a caret) and as data.
//!
//! A problem never stops the decoder; it is noted with its place, and the file is refused at the end if there is one.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// Problems shown to a person; what is beyond is counted. Each costs a pass over the text to draw, and nobody reads more.
const SHOWN: usize = 50;

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
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
    /// It names something that does not exist.
    Reference,
    /// A file that it names, or what it asks of this machine, cannot be used.
    File,
}

/// What problems mean for the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// It is refused.
    Error,
    /// It is taken.
    Warning,
}

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub fault: Fault,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Path of the key, such as `pool.chat.check.interval`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, with the value.
    pub what: String,
    /// What would be right.
    pub allowed: Option<String>,
    /// A guess at what was meant.
    pub hint: Option<String>,
}

/// One problem as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigMessage {
    pub fault: Fault,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the key, such as `pool.chat.check.interval`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, what is allowed and the hint, on one line.
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
        problems.sort_by(|a, b| (a.span.start, &a.key).cmp(&(b.span.start, &b.key)));
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
        let mut lines = Lines::new(&self.text);
        let message = |problem: &Problem| {
            let (line, column) = lines.place(problem.span.start);
            ConfigMessage {
                fault: problem.fault,
                line,
                column,
                key: problem.key.clone(),
                message: problem.to_string(),
            }
        };
        self.problems.iter().map(message).collect()
    }

    fn render(&self, problem: &Problem) -> String {
        let label = problem.allowed.clone().unwrap_or_default();
        let caret = AnnotationKind::Primary.span(problem.span.clone());
        let caret = if label.is_empty() {
            caret
        } else {
            caret.label(label)
        };
        let snippet = Snippet::source(&self.text)
            .path(&self.file)
            .annotation(caret);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut report =
            vec![Group::with_title(level.primary_title(problem.title())).element(snippet)];
        if let Some(hint) = &problem.hint {
            report.push(Group::with_title(
                Level::HELP.secondary_title(hint.as_str()),
            ));
        }
        Renderer::plain().render(&report)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(SHOWN) {
            writeln!(f, "{}\n", self.render(problem))?;
        }
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let file = &self.file;
        match self.problems.len() {
            1 => write!(f, "{file}: 1 {word}"),
            count if count > SHOWN => {
                write!(f, "{file}: {count} {word}s, the first {SHOWN} are shown")
            }
            count => write!(f, "{file}: {count} {word}s"),
        }
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
            key => format!("{key}: {}", self.what),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for more in [&self.allowed, &self.hint].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

/// The part of `span` that can be shown: inside the text, at character boundaries, on the line where it begins.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |length| start + length);
    let end = text.floor_char_boundary(span.end.min(line_end)).max(start);
    start..end
}

/// Turns rising offsets into lines and columns in one pass over the text.
struct Lines<'a> {
    text: &'a str,
    line: usize,
    line_start: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        Lines {
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
            fault: Fault::Value,
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
        assert!(shown.contains("^^^ allowed is a number"), "{shown}");
        assert!(shown.contains("help: write 1"), "{shown}");
        assert!(shown.ends_with("a.toml: 1 error"), "{shown}");
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
            "\"x\" is wrong; allowed is a number; write 1"
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
