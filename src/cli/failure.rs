//! Failure of a command, as shown on standard error before the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use tracing::Level;

use super::colour::colour_on_stderr;
use super::journal::{prefix, prefixed, stderr_is_journal};
use crate::config::ConfigErrors;
use crate::server::{SourceError, StartError, SuccessorError};

/// Failure that ends a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// Shown with each problem's line; needs no word before it.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The running balancer refused a configuration, and drew its problems.
    #[error("{error}\n{drawn}")]
    Drawn { error: String, drawn: String },
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Start(#[from] StartError),
    /// A service manager or a container engine decides by it whether to start anew.
    #[error("{0}")]
    Successor(#[from] SuccessorError),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The store of the cluster is away, and `--local` would do it on one balancer alone.
    #[error("{0}")]
    NotShared(String),
    #[error("{0}")]
    Other(String),
}

impl CommandError {
    /// Wraps an I/O error with what was being done.
    pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> CommandError {
        move |source| CommandError::Io { what, source }
    }

    /// Returns 2 for wrong usage, as clap has it; the status of a new process that has failed;
    /// else 1.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            CommandError::Usage(_) => ExitCode::from(2),
            CommandError::Successor(error) => ExitCode::from(error.code),
            _ => ExitCode::FAILURE,
        }
    }

    /// Prints it on standard error.
    pub(super) fn tell(&self) {
        let text = self.text();
        let text = if stderr_is_journal() {
            prefixed(prefix(Level::ERROR), &text)
        } else {
            text
        };
        // In one piece: in an upgrade the old process writes its log to the same place.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }

    fn text(&self) -> String {
        match self {
            CommandError::Config(errors) => errors.drawn(colour_on_stderr()),
            CommandError::Drawn { error, drawn } => format!("evenkeel: {error}\n{drawn}"),
            // As clap writes it.
            CommandError::Usage(message) => {
                format!("error: {message}\n\nFor more information, try '--help'.")
            }
            other => {
                let text = other.to_string();
                let lines = text.lines().map(|line| format!("evenkeel: {line}"));
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }
}
