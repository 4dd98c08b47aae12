//! The states of a backend: the one that the operator sets, and the effective one.

use std::fmt;

/// The state that the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorState {
    /// Takes connections, as far as checks and outlier detection let it.
    Ready,
    /// Takes no new connections; live ones go on.
    Drain,
    /// As `Drain`, and is not checked.
    Maint,
}

impl OperatorState {
    pub fn as_str(self) -> &'static str {
        match self {
            OperatorState::Ready => "ready",
            OperatorState::Drain => "drain",
            OperatorState::Maint => "maint",
        }
    }
}

impl fmt::Display for OperatorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The effective state of a backend; only `Up` takes new connections. Where several hold, the first
/// of `Maint`, `Drain`, `Unresolved`, `Down`, `Ejected` is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendState {
    Up,
    /// The active check failed.
    Down,
    Drain,
    Maint,
    /// Too many connect failures: out for a while.
    Ejected,
    /// The name has never been resolved.
    Unresolved,
}

impl BackendState {
    pub fn as_str(self) -> &'static str {
        match self {
            BackendState::Up => "up",
            BackendState::Down => "down",
            BackendState::Drain => "drain",
            BackendState::Maint => "maint",
            BackendState::Ejected => "ejected",
            BackendState::Unresolved => "unresolved",
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
