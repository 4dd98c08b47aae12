//! Data of one metrics page.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::refusals::{EndpointValues, RefusalTotals};
use crate::admin::view::StatusView;
use crate::admin::{process, snapshot};
use crate::observe::ListenerCounters;
use crate::pool::{Backend, Pool};
use crate::server::{PoolFileStatus, Server};
use crate::tls::CertificateFacts;

/// Data of one page. Those of backends are read as they are written; the others are of one moment.
#[derive(Debug, Clone)]
pub(super) struct Scrape {
    /// The status; its pools have no backends.
    pub status: StatusView,
    /// Counters of the listeners, for their histograms.
    pub listeners: Vec<Arc<ListenerCounters>>,
    pub pools: Vec<Arc<Pool>>,
    /// All backends, pool by pool.
    pub backends: Vec<Arc<Backend>>,
    /// Whether each backend has metrics of its own.
    pub per_backend: bool,
    pub started_at: SystemTime,
    pub last_reload_ok_at: Option<SystemTime>,
    pub certificates: Vec<CertificateEnd>,
    /// Name of each listener that terminates TLS, and whether its files can be used now.
    pub tls_files: Vec<(String, bool)>,
    pub pool_files: Vec<PoolFileStatus>,
    /// Refusals by endpoint.
    pub refused: [(&'static str, EndpointValues); 2],
    pub resident_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
}

/// Expiry of one certificate.
#[derive(Debug, Clone)]
pub(super) struct CertificateEnd {
    pub listener: String,
    /// Path of its file.
    pub cert: String,
    pub name: String,
    pub not_after: SystemTime,
}

impl Scrape {
    pub(super) fn of(server: &Server, refused: &RefusalTotals, per_backend: bool) -> Scrape {
        let listeners = server.listeners();
        let above = server.endpoint_tls();
        let certificates = listeners
            .iter()
            .map(|one| (one.name.as_str(), one.certificates.clone()));
        let certificates = certificates
            .chain(above.iter().map(|one| (one.name(), one.certificates())))
            .flat_map(|(listener, certificates)| {
                let end = move |one: CertificateFacts| CertificateEnd {
                    listener: listener.to_owned(),
                    cert: one.cert.display().to_string(),
                    name: one.subject,
                    not_after: one.not_after,
                };
                certificates.into_iter().map(end)
            });
        let terminating = listeners.iter().filter(|one| !one.certificates.is_empty());
        let tls_files = terminating
            .map(|one| (one.name.clone(), one.certificate_error.is_none()))
            .chain(
                above
                    .iter()
                    .map(|one| (one.name().to_owned(), one.error().is_none())),
            )
            .collect();
        let pools = server.pools();
        let backends: Vec<_> = pools
            .iter()
            .flat_map(|pool| pool.backends().into_iter().chain(pool.retired()))
            .collect();
        Scrape {
            status: snapshot::status_of_pools(server),
            listeners: listeners
                .iter()
                .map(|one| Arc::clone(&one.counters))
                .collect(),
            backends,
            pools,
            per_backend,
            started_at: server.started_at(),
            last_reload_ok_at: server.reloads().last_ok_at,
            certificates: certificates.collect(),
            tls_files,
            pool_files: server.pool_files(),
            refused: refused.values(),
            resident_bytes: process::resident_bytes(),
            cpu_seconds: process::cpu_seconds(),
        }
    }
}
