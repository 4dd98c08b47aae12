//! Where the configuration comes from, and reading it.

use std::path::{Path, PathBuf};

/// The origin of a configuration; a reload reads it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// Embedded, for the demo and for tests. `file` is the name used in messages and the base of relative paths.
    Text {
        text: String,
        file: PathBuf,
    },
}

/// The file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {source}", .file.display())]
pub struct SourceError {
    file: PathBuf,
    source: std::io::Error,
}

impl Source {
    /// The name used in messages.
    pub fn file(&self) -> &Path {
        match self {
            Source::File(file) | Source::Text { file, .. } => file,
        }
    }

    /// The present text. Blocks on file I/O.
    ///
    /// # Errors
    /// The file cannot be read or is not UTF-8.
    pub fn read(&self) -> Result<String, SourceError> {
        match self {
            Source::Text { text, .. } => Ok(text.clone()),
            Source::File(file) => std::fs::read_to_string(file).map_err(|source| SourceError {
                file: file.clone(),
                source,
            }),
        }
    }
}
