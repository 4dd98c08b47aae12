//! TLS of connections that we make: `pool.tls`, and `check.tls`.

use std::path::PathBuf;

/// How a backend is connected to over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// Name sent and verified; default: the backend's host name, or its IP address. Lower case.
    pub sni: Option<String>,
    /// Whether the backend's certificate is verified. Default true.
    pub verify: bool,
    /// PEM file of roots; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What we show to a backend that asks for a certificate. Default none.
    pub identity: Option<Identity>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// Protocols offered, most wanted first. Default none.
    pub alpn: Vec<String>,
}

/// A client's certificate chain and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `check.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckTls {
    Plain,
    /// As the pool's connections, name and all.
    Pool,
    Own(BackendTls),
}
