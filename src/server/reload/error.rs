//! The error of a refused reload.

use crate::config::ConfigErrors;

/// Reasons why a reload changed nothing; the configuration before it stays in force.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .messages.join("\n"))]
pub(crate) struct ReloadError {
    /// Every reason found, at least one.
    pub messages: Vec<String>,
    /// Errors of the file or of the files that it names, each with its line and a caret, as `check`
    /// draws them.
    pub drawn: Option<String>,
}

impl From<Vec<String>> for ReloadError {
    fn from(messages: Vec<String>) -> ReloadError {
        ReloadError {
            messages,
            drawn: None,
        }
    }
}

/// Each error on one line, with its place.
pub(super) fn lines(errors: &ConfigErrors) -> Vec<String> {
    let file = errors.file();
    let messages = errors.messages().into_iter();
    messages
        .map(|found| {
            let key = match found.key.as_str() {
                "" => String::new(),
                key => format!("{key}: "),
            };
            let (line, column, message) = (found.line, found.column, found.message);
            format!("{file}:{line}:{column}: {key}{message}")
        })
        .collect()
}
