//! Metrics of the certificates, those of the admin endpoint (`listener="admin"`) among them.

use std::fmt;

use prometheus_client::registry::Unit;

use super::CertificateEnd;
use super::page::{MetricsPage, epoch_seconds};
use crate::server::PoolFileStatus;

pub(super) fn encode(
    certificates: &[CertificateEnd],
    tls_files: &[(String, bool)],
    page: &mut MetricsPage<'_>,
) -> fmt::Result {
    let expiries = certificates.iter().map(|one| {
        let labels = vec![
            ("listener", one.listener.as_str()),
            ("cert", one.cert.as_str()),
            ("name", one.name.as_str()),
        ];
        (labels, epoch_seconds(one.not_after))
    });
    let help = "End of a certificate's validity, since the epoch";
    page.gauge(
        "certificate_expiry_timestamp",
        help,
        Some(Unit::Seconds),
        expiries,
    )?;
    let errors = tls_files
        .iter()
        .map(|(listener, is_good)| (vec![("listener", listener.as_str())], u64::from(!is_good)));
    let help = "1: a file of its TLS cannot be used as it is now, and the last good one serves";
    page.gauge("certificate_error", help, None, errors)
}

/// What pools are made of.
pub(super) fn encode_pool_files(
    files: &[PoolFileStatus],
    page: &mut MetricsPage<'_>,
) -> fmt::Result {
    let errors = files.iter().map(|one| {
        let labels = vec![("pool", one.pool.as_str()), ("kind", one.kind)];
        (labels, u64::from(one.error.is_some()))
    });
    let help = "1: a file of its tls, or of its sticky keys, cannot be used as it is now, and the last good one goes on";
    page.gauge("pool_file_error", help, None, errors)
}
