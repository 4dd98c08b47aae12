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
    warnings: RefCell<Vec<Problem>>,
    places: RefCell<Vec<Place>>,
}

/// Where a table stands, or the path of a file.
pub struct Place {
    /// Path of the key.
    pub key: String,
    pub span: Range<usize>,
    /// `None`: a table.
    pub file: Option<PathBuf>,
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
            warnings: RefCell::default(),
            places: RefCell::default(),
        }
    }

    pub fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub fn warn(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    /// Remembers where something stands, for what is found out about it later.
    pub fn mark(&self, key: &str, span: &Range<usize>, file: Option<&Path>) {
        self.places.borrow_mut().push(Place {
            key: key.to_owned(),
            span: span.clone(),
            file: file.map(Path::to_owned),
        });
    }

    /// The problems, the warnings and the places.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>, Vec<Place>) {
        (
            self.problems.into_inner(),
            self.warnings.into_inner(),
            self.places.into_inner(),
        )
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
