//! Why a client got no backend, and how its record says so.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::net::ConnectError;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::AcquireError;

/// Reason for which a client got no backend.
#[derive(Debug, Error)]
pub(in crate::proxy) enum BackendUnavailable {
    /// The pool gave none; after failed connects, because no other is left.
    #[error("{0}")]
    Acquire(#[from] AcquireError),
    /// The last attempt that `retries` allows failed.
    #[error("connect to {backend}: {source}")]
    Connect {
        backend: Arc<str>,
        #[source]
        source: ConnectError,
    },
    /// The last attempt that `retries` allows was connected, and ended before a byte went either
    /// way.
    #[error("{backend} ended before the first byte: {how}")]
    Ended { backend: Arc<str>, how: Cause },
}

impl BackendUnavailable {
    /// Whether no backend is to blame, so that another would not help.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.is_ours())
    }

    /// The end of the client's record.
    pub(crate) fn end(&self) -> Termination {
        let (side, phase, cause) = match self {
            Self::Acquire(AcquireError::NoBackend) => {
                (Side::Evenkeel, Phase::Connect, Cause::Refused)
            }
            Self::Acquire(AcquireError::QueueTimeout(_)) => {
                (Side::Evenkeel, Phase::Queue, Cause::Timeout)
            }
            Self::Acquire(AcquireError::Full | AcquireError::QueueFull) => {
                (Side::Evenkeel, Phase::Queue, Cause::Full)
            }
            Self::Connect { source, .. } => match source {
                ConnectError::TimedOut(_) => (Side::Backend, Phase::Connect, Cause::Timeout),
                ConnectError::Refused(_) => (Side::Backend, Phase::Connect, Cause::Refused),
                ConnectError::Tls(error) => (Side::Backend, Phase::Connect, cause(error)),
                ConnectError::Local(_) => (Side::Evenkeel, Phase::Connect, Cause::Error),
            },
            Self::Ended { how, .. } => (Side::Backend, Phase::Connect, *how),
        };
        Termination::new(side, phase, cause)
    }
}

/// The cause for which a handshake with a backend ended.
fn cause(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::TimedOut => Cause::Timeout,
        io::ErrorKind::UnexpectedEof => Cause::Fin,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Cause::Invalid,
        _ => Cause::Rst,
    }
}
