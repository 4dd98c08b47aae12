//! Move of a live session to another backend, for the access log.

use std::sync::Arc;
use std::time::Duration;

/// Facts of one move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Name of the former backend.
    pub from: Option<Arc<str>>,
    /// Time without a backend.
    pub gap: Duration,
    /// Most messages of the client that can be lost; `None`: not known.
    pub lost: Option<u32>,
}
