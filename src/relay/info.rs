//! Live connections as others see them.

use std::time::Duration;

use super::key::Handle;
use crate::observe::Summary;

/// A live connection as the operator sees it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    pub summary: Summary,
    /// Since the last byte either way.
    pub idle: Duration,
    /// TLS ends here on the client's side.
    pub tls: bool,
}

/// A live connection as a drain or rebalance job needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionInfo {
    pub handle: Handle,
    /// Since the last byte either way.
    pub idle: Duration,
    pub state: SessionState,
    /// Since accept.
    pub age: Duration,
    /// Whether it can be sent a Close frame before it is ended.
    pub takes_close_frame: bool,
    /// Another backend can take it.
    pub is_resumable: bool,
}

/// State of a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    Relaying,
    /// Between two backends: it goes on with the next one, unless it is ended.
    ChangingBackend,
    /// Being ended already.
    Closing,
}
