//! Live connections as others see them.

use std::time::Duration;

use super::key::Handle;
use crate::observe::Summary;

/// One live connection of the table.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    pub summary: Summary,
    /// Since the last byte either way.
    pub idle: Duration,
    /// TLS ends here on the client's side.
    pub tls: bool,
}

/// One live connection as a drain or rebalance job needs it.
#[derive(Debug, Clone, Copy)]
pub struct SessionInfo {
    pub handle: Handle,
    /// Since the last byte either way.
    pub idle: Duration,
    /// It is being ended already.
    pub is_closing: bool,
    /// It is between two backends: it goes on with the next one, unless it is ended.
    pub is_changing_backend: bool,
    /// Since accept.
    pub age: Duration,
    /// It can be sent a Close frame before it is ended.
    pub takes_close_frame: bool,
    /// Another backend can take it.
    pub is_resumable: bool,
}
