//! A file being decoded: its text, its folder, and the problems found so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::Problem;
use super::spec::TableSpec;

/// A file being decoded.
pub(crate) struct SourceFile<'a> {
    text: &'a str,
    pub(super) root: &'static TableSpec,
    /// Relative paths are joined to it.
    pub(super) folder: PathBuf,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    places: RefCell<Vec<MarkedKey>>,
}

/// Where a table or the path of a file stands, for findings from outside of the text.
pub(crate) struct MarkedKey {
    /// Path of the key.
    pub(super) key: String,
    pub(super) span: Range<usize>,
    /// `None`: a table.
    pub(super) file: Option<PathBuf>,
}

/// Longest value shown in a message, in characters.
const SHOWN: usize = 60;

impl<'a> SourceFile<'a> {
    pub(super) fn new(text: &'a str, file: &Path, root: &'static TableSpec) -> SourceFile<'a> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        SourceFile {
            text,
            root,
            folder,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            places: RefCell::default(),
        }
    }

    pub(super) fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn warn(&self, problem: Problem) {
        self.warnings.borrow_mut().push(problem);
    }

    /// Remembers where something stands, for what is found out about it later.
    pub(super) fn mark(&self, key: &str, span: &Range<usize>, file: Option<&Path>) {
        self.places.borrow_mut().push(MarkedKey {
            key: key.to_owned(),
            span: span.clone(),
            file: file.map(Path::to_owned),
        });
    }

    /// The problems, the warnings and the places.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>, Vec<MarkedKey>) {
        (
            self.problems.into_inner(),
            self.warnings.into_inner(),
            self.places.into_inner(),
        )
    }

    /// A value as it is written, cut and without control characters.
    pub(super) fn shown(&self, span: &Range<usize>) -> String {
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
