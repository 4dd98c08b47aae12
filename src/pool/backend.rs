//! One node of a pool.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::Address;
use crate::net::Endpoint;
use crate::observe::BackendCounters;

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorState {
    /// Takes connections, as far as checks and outlier detection let it.
    Ready,
    /// Takes no new connections; live ones go on.
    Drain,
    /// As `Drain`, and is not checked.
    Maint,
}

/// The effective state of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Up,
    /// The active check failed.
    Down,
    Drain,
    Maint,
    /// Too many connect failures: out for a while.
    Ejected,
    /// Its name has never been resolved.
    Unresolved,
}

/// One node of a pool: its identity is (pool, name).
#[derive(Debug)]
pub struct Backend {
    pool: Arc<str>,
    name: Arc<str>,
    counters: Arc<BackendCounters>,
}

#[expect(unused_variables, reason = "signatures first")]
impl Backend {
    pub fn pool(&self) -> &Arc<str> {
        &self.pool
    }
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    pub fn counters(&self) -> &Arc<BackendCounters> {
        &self.counters
    }
    pub fn address(&self) -> Address {
        Address::Name(String::new(), 0)
    }
    pub fn endpoint(&self) -> Option<Endpoint> {
        None
    }
    /// The discovery plane's answer for a static `Name` address; an error keeps the last good one.
    pub fn resolved(&self, answer: Result<Endpoint, String>) {}
    /// A connect succeeded.
    pub fn connected(&self, now: Instant) {}
    /// A connect failed, and it was the backend's fault (`!ConnectError::is_ours()`).
    pub fn connect_failed(&self, now: Instant, why: &str) {}
    /// The active check's verdict, after rise/fall.
    pub fn set_check(&self, up: bool, reason: &str, now: Instant) {}
    pub fn check_up(&self) -> bool {
        true
    }
    pub fn set_operator(&self, operator: OperatorState) {}
    pub fn operator(&self) -> OperatorState {
        OperatorState::Ready
    }
    /// The operator's weight; `None` = the configured one.
    pub fn set_weight(&self, weight: Option<u16>) {}
    pub fn weight(&self) -> u16 {
        1
    }
    pub fn max_connections(&self) -> u64 {
        0
    }
    pub fn backup(&self) -> bool {
        false
    }
    /// Removed by a reload or by discovery; listed until its last connection is gone.
    pub fn is_retired(&self) -> bool {
        false
    }
    pub fn state(&self, now: Instant) -> State {
        State::Up
    }
    pub fn reason(&self) -> String {
        String::new()
    }
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    pub fn live(&self) -> u64 {
        0
    }
    /// Returns when no connection is live.
    pub async fn emptied(&self) {}
}

/// Counts one connection on one backend; dropping it uncounts.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}
