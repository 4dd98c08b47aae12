//! Status values for the admin API: reloads, listeners, files of pools.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Bind, Protocol};
use crate::observe::ListenerCounters;
use crate::tls::CertificateFacts;

/// Results of the reloads since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReloadStatus {
    /// Applied reloads, those without a difference included.
    pub ok: u64,
    /// Reloads that were refused.
    pub failed: u64,
    /// Time of the last attempt, applied or refused.
    pub last_at: Option<SystemTime>,
    /// Time of the last one that was applied.
    pub last_ok_at: Option<SystemTime>,
    /// Reason of the last refusal; `None` once a later one was applied.
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

/// State of a listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerStatus {
    pub name: String,
    /// The real address: with `bind = "...:0"`, the port that was given.
    pub bind: Bind,
    pub protocol: Protocol,
    pub state: ListenerState,
    pub counters: Arc<ListenerCounters>,
    /// Certificates in use, in the order of the file.
    pub certificates: Vec<CertificateFacts>,
    /// Error of the TLS files on disk, if they cannot be used as they are now.
    pub certificate_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerState {
    /// Accepts connections.
    Listening,
    /// Drained by the operator: new clients are refused.
    Draining,
    /// The server is stopping: nothing more is accepted.
    Stopped,
}

/// State of the files of one kind that a pool uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolFileStatus {
    pub pool: String,
    /// Use of the files: `tls` or `sticky`.
    pub kind: &'static str,
    /// Error that keeps them from being used.
    pub error: Option<String>,
}
