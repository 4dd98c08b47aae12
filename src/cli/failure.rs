//! Why a command failed, as told on standard error before the exit code 1.

use crate::config::ConfigErrors;
use crate::server::{SourceError, StartError};

/// A failure that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Draws each problem with its line; needs no word before it.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Wraps an I/O error with what was being done.
    pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
        move |source| Failure::Io { what, source }
    }

    /// Prints it on standard error.
    pub fn tell(&self) {
        match self {
            Failure::Config(errors) => eprintln!("{errors}"),
            other => {
                for line in other.to_string().lines() {
                    eprintln!("evenkeel: {line}");
                }
            }
        }
    }
}
