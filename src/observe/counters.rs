//! Counters of listeners and backends.

use std::sync::atomic::AtomicU64;

/// What happened on one backend since it was first seen.
#[derive(Debug, Default)]
pub struct BackendCounters {
    pub connections: AtomicU64,
    pub connect_failures: AtomicU64,
    pub requests: AtomicU64,
    pub bytes_from_client: AtomicU64,
    pub bytes_from_backend: AtomicU64,
    pub checks_ok: AtomicU64,
    pub checks_failed: AtomicU64,
    pub state_changes: AtomicU64,
}
