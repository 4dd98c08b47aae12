//! Errors of the files and values that a configuration needs.

use std::fmt::{self, Display};
use std::path::Path;

use crate::config::{self, Finding};

/// A part of a configuration that needs something that cannot be used.
#[derive(Debug)]
pub(super) struct LoadError {
    /// The part, as it is called where no file is shown.
    part: String,
    pub finding: Finding,
}

impl LoadError {
    pub(super) fn new(
        part: &str,
        key: String,
        file: Option<&Path>,
        what: &impl Display,
    ) -> LoadError {
        LoadError {
            part: part.to_owned(),
            finding: Finding {
                key,
                file: file.map(Path::to_owned),
                what: what.to_string(),
            },
        }
    }

    pub(super) fn of_pool(
        pool: &config::Pool,
        key: &str,
        file: Option<&Path>,
        what: &impl Display,
    ) -> LoadError {
        let part = format!("pool {}: {key}", pool.name);
        LoadError::new(&part, format!("pool.{}.{key}", pool.name), file, what)
    }
}

impl Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.finding.what)
    }
}
