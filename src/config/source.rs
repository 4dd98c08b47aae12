//! One file being decoded: its text, its folder, and what was found wrong so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::Problem;

/// One file being decoded: what its values are read against, and what was found wrong so far.
pub struct Source<'a> {
    text: &'a str,
    /// Relative paths are joined to it.
    pub folder: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

/// Longest value shown in a message, in characters.
const SHOWN: usize = 60;

impl<'a> Source<'a> {
    pub fn new(text: &'a str, file: &Path) -> Source<'a> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Source {
            text,
            folder,
            problems: RefCell::default(),
        }
    }

    pub fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// A value as it is written, cut and without control characters.
    pub fn shown(&self, span: &Range<usize>) -> String {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let mut shown: String = written
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if written.chars().nth(SHOWN).is_some() {
            shown.push_str("...");
        }
        shown
    }
}
