//! A configuration as far as it could be read, with all that is wrong so far. Files that it names
//! are opened elsewhere; their problems are noted here, so that everything is told at once and each
//! with its line.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::declare::Declared;
use super::error::{ConfigErrors, ErrorKind, Problem, Severity};
use super::reader::TableReader;
use super::source_file::{MarkedKey, SourceFile};
use super::tables::Config;
use super::{FILE_MAX, decode, syntax, too_large};

/// A finding about a part of a configuration from outside of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The part, such as `listener[0].tls` or `pool.chat`.
    pub key: String,
    /// The file in question, if it is about one that the part names.
    pub file: Option<PathBuf>,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// See the module.
pub struct Draft {
    file: String,
    text: String,
    config: Option<Config>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    places: Vec<MarkedKey>,
}

impl Draft {
    /// Reads a text. Pure: no file is opened; relative paths in it are joined to the folder of
    /// `file`.
    pub fn read(text: &str, file: &Path) -> Draft {
        let mut draft = Draft {
            file: file.display().to_string(),
            text: text.to_owned(),
            config: None,
            problems: Vec::new(),
            warnings: Vec::new(),
            places: Vec::new(),
        };
        if text.len() > FILE_MAX {
            draft.problems.push(too_large());
            return draft;
        }
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        let source = SourceFile::new(text, file, Config::SPEC);
        draft.config = decode::config(&TableReader::root(&source, document.get_ref()));
        (draft.problems, draft.warnings, draft.places) = source.into_parts();
        if !syntax_errors.is_empty() {
            // What the parser guessed is not worth a look.
            draft.config = None;
            draft.places.clear();
            let tree = document.get_ref();
            draft.problems = syntax::beside(text, tree, &syntax_errors, draft.problems);
        }
        draft
    }

    /// The model, where all that it needs is there; something else may be wrong.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// Whether nothing is wrong so far.
    pub fn is_sound(&self) -> bool {
        self.config.is_some() && self.problems.is_empty()
    }

    /// Every file that it names to be read, with the path of its key.
    pub fn files_to_read(&self) -> impl Iterator<Item = (&str, &Path)> {
        let places = self.places.iter();
        let read = places.filter(|place| !place.key.starts_with("access_log"));
        read.filter_map(|place| Some((place.key.as_str(), place.file.as_deref()?)))
    }

    /// Notes that it cannot be used.
    pub fn refuse(&mut self, finding: &Finding) {
        let found = self.problems_of(finding);
        self.problems.extend(found);
    }

    /// Notes what the operator should know.
    pub fn warn(&mut self, finding: &Finding) {
        let found = self.problems_of(finding);
        self.warnings.extend(found);
    }

    /// All that was warned of; `None`: nothing.
    pub fn warnings(&self) -> Option<ConfigErrors> {
        let (file, text) = (self.file.clone(), self.text.clone());
        let drawn = || ConfigErrors::new(file, text, self.warnings.clone()).with(Severity::Warning);
        (!self.warnings.is_empty()).then(drawn)
    }

    /// # Errors
    /// All that is wrong.
    pub fn finish(self) -> Result<Config, ConfigErrors> {
        match self.config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigErrors::new(self.file, self.text, self.problems)),
        }
    }

    /// Problems at each place of the part that names the file; else at the part itself, or at the
    /// table around it.
    fn problems_of(&self, finding: &Finding) -> Vec<Problem> {
        let naming = |place: &&MarkedKey| {
            place.file.is_some()
                && place.file == finding.file
                && is_within(&place.key, &finding.key)
        };
        let mut places: Vec<&MarkedKey> = self.places.iter().filter(naming).collect();
        if places.is_empty() {
            let around = self.places.iter();
            let around = around.filter(|place| is_within(&finding.key, &place.key));
            places.extend(around.max_by_key(|place| place.key.len()));
        }
        let problem = |key: &str, span: Range<usize>| Problem {
            kind: ErrorKind::File,
            span,
            key: key.to_owned(),
            what: finding.what.clone(),
            allowed: None,
            hint: None,
        };
        match places[..] {
            [] => vec![problem(&finding.key, 0..0)],
            _ => {
                let places = places.into_iter();
                places
                    .map(|place| problem(&place.key, place.span.clone()))
                    .collect()
            }
        }
    }
}

/// Whether `key` is `outer` or a key below it.
fn is_within(key: &str, outer: &str) -> bool {
    let rest = key.strip_prefix(outer);
    rest.is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::pool;

    fn finding(key: &str, file: Option<&str>) -> Finding {
        Finding {
            key: key.to_owned(),
            file: file.map(PathBuf::from),
            what: "it is wrong".to_owned(),
        }
    }

    #[test]
    fn a_file_is_drawn_where_it_is_named_and_anything_else_at_its_part() {
        let text = pool("tls = { ca = \"a.pem\" }\ncheck = { type = \"tcp\", intervall = \"1s\" }");
        let mut draft = Draft::read(&text, Path::new("/etc/evenkeel/b.toml"));
        assert!(draft.config().is_some() && !draft.is_sound());
        draft.refuse(&finding("pool.p.tls", Some("/etc/evenkeel/a.pem")));
        draft.refuse(&finding("pool.p.check.host", None));
        draft.refuse(&finding("admin", None));
        let found = draft.finish().unwrap_err();
        let keys = found.messages().into_iter();
        let keys: Vec<_> = keys.map(|message| (message.key, message.line)).collect();
        let last = text.lines().count();
        let wanted = [
            (String::new(), 1),
            ("pool.p.tls.ca".to_owned(), last - 1),
            ("pool.p.check".to_owned(), last),
            ("pool.p.check.intervall".to_owned(), last),
        ];
        assert_eq!(keys, wanted);
        assert!(found.to_string().contains("ca = \"a.pem\""));
    }

    #[test]
    fn warnings_refuse_nothing() {
        let text = pool("check = { type = \"tcp\" }");
        let mut draft = Draft::read(&text, Path::new("b.toml"));
        draft.warn(&finding("pool.p", None));
        let said = draft.warnings().unwrap().to_string();
        assert!(said.starts_with("warning: pool.p: it is wrong"), "{said}");
        assert!(draft.finish().is_ok());
    }
}
