//! What the server tells about itself: reloads and listeners.

use std::time::SystemTime;

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
