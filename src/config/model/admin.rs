//! The endpoints of the operator.

use std::path::PathBuf;

use super::{Access, Bind, Certificate, FileRights};

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Off loopback and off a unix socket, `tls` and a token are required.
    pub bind: Bind,
    /// File that holds the bearer token; read at start and reload. Default none.
    pub token_file: Option<PathBuf>,
    /// Further tokens, each with what it may do. Default none.
    pub tokens: Vec<AdminToken>,
    pub tls: Option<Certificate>,
    /// Host headers accepted beside the bound address, `localhost` and loopback addresses. Default none.
    pub allowed_hosts: Vec<String>,
    /// Who may connect. Default everybody.
    pub access: Access,
    /// Of a unix socket. Default 0600.
    pub file: FileRights,
}

/// `[[admin.token]]`: somebody who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Stands in the log beside what was done with it.
    pub name: String,
    /// File that holds the token; read at start and reload.
    pub file: PathBuf,
    pub role: AdminRole,
    /// The only backend that it may act on. `None`: whatever its role allows.
    pub backend: Option<BackendName>,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRole {
    /// To look.
    Read,
    /// To look and to act.
    Operate,
}

/// A backend and its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendName {
    pub pool: String,
    pub backend: String,
}

impl std::fmt::Display for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

/// `[metrics]`: `/metrics`, `/healthz` and `/readyz` on an address of their own, read-only, open to probes and scrapers.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    pub bind: Bind,
    /// Who may connect. Default everybody.
    pub access: Access,
    /// Of a unix socket. Default as the umask has it.
    pub file: FileRights,
}
