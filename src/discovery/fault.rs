//! Faults of a source: a closed set of kinds for the metrics, a message for the operator.

use std::fmt;

use crate::remote::RemoteError;

/// Kind of a fault; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// No connection, or it broke.
    Unreachable,
    Timeout,
    /// A status that is no answer.
    Status,
    /// The token or the password is wrong, or may not do this.
    Denied,
    /// An answer that cannot be read.
    Malformed,
    TooLarge,
    /// An answer without a backend.
    Empty,
}

impl FaultKind {
    /// All kinds with their words, in the order of the declaration.
    pub(crate) const ALL: [(FaultKind, &'static str); 7] = [
        (FaultKind::Unreachable, "unreachable"),
        (FaultKind::Timeout, "timeout"),
        (FaultKind::Status, "status"),
        (FaultKind::Denied, "denied"),
        (FaultKind::Malformed, "malformed"),
        (FaultKind::TooLarge, "too_large"),
        (FaultKind::Empty, "empty"),
    ];
}

/// Why a source gave no answer. The message never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Malformed, message)
    }
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Fault {
        let kind = match &error {
            RemoteError::Unreachable(_) => FaultKind::Unreachable,
            RemoteError::Denied(_) => FaultKind::Denied,
            RemoteError::Malformed(_) => FaultKind::Malformed,
            RemoteError::TooLarge(_) => FaultKind::TooLarge,
        };
        Fault::new(kind, error.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
