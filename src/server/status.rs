//! What the server tells about itself: reloads and listeners.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Bind, Protocol};
use crate::observe::ListenerCounters;
use crate::tls::CertificateFacts;

/// How the reloads went since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadStatus {
    /// Reloads that were applied, those without a difference included.
    pub ok: u64,
    /// Reloads that were refused.
    pub failed: u64,
    /// When the last one was tried, whatever became of it.
    pub last_at: Option<SystemTime>,
    /// When the last one was applied.
    pub last_ok_at: Option<SystemTime>,
    /// Why the last one was refused; `None` once one was applied after it.
    pub last_error: Option<String>,
}

impl ReloadStatus {
    pub(super) fn succeeded(&mut self, now: SystemTime) {
        self.ok += 1;
        self.last_at = Some(now);
        self.last_ok_at = Some(now);
        self.last_error = None;
    }

    pub(super) fn failed(&mut self, now: SystemTime, error: String) {
        self.failed += 1;
        self.last_at = Some(now);
        self.last_error = Some(error);
    }
}

/// One listener as it is now.
#[derive(Debug, Clone)]
pub struct ListenerStatus {
    pub name: String,
    /// The real address: with `bind = "...:0"`, the port that was given.
    pub bind: Bind,
    pub protocol: Protocol,
    pub state: ListenerState,
    pub counters: Arc<ListenerCounters>,
    /// Names that the certificates cover, sorted; empty unless TLS is terminated here.
    pub server_names: Vec<String>,
    /// Those that serve, in the order of the file.
    pub certificates: Vec<CertificateFacts>,
    /// Why its TLS files as they are now do not serve.
    pub certificate_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// Accepts connections.
    Listening,
    /// The operator drains it: clients that come are turned away.
    Draining,
    /// The server is stopping: accepts nothing more.
    Stopped,
}
