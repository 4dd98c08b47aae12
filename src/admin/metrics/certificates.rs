//! Metrics of the certificates and of the files of TLS and pools. `listener="admin"` is the admin
//! endpoint.

use std::fmt;

use super::page::{MetricsPage, epoch_seconds};
use super::scrape::Scrape;
use crate::observe::Metric;

const EXPIRY: Metric = Metric::gauge("certificate_expiry_timestamp")
    .seconds()
    .help("End of a certificate's validity, since the epoch");
const CERTIFICATE_ERROR: Metric = Metric::gauge("certificate_error")
    .help("1: a file of its TLS cannot be used as it is now, and the last good one serves");
const POOL_FILE_ERROR: Metric = Metric::gauge("pool_file_error")
    .help("1: a file of its tls or sticky keys cannot be used, and the last good one serves");

pub(super) fn encode(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    let expiries = scrape.certificates.iter().map(|one| {
        let labels = vec![
            ("listener", one.listener.as_str()),
            ("cert", one.cert.as_str()),
            ("name", one.name.as_str()),
        ];
        (labels, epoch_seconds(one.not_after))
    });
    page.family(EXPIRY, expiries)?;
    let errors = scrape
        .tls_files
        .iter()
        .map(|(listener, is_good)| (vec![("listener", listener.as_str())], u64::from(!is_good)));
    page.family(CERTIFICATE_ERROR, errors)?;
    let errors = scrape.pool_files.iter().map(|one| {
        let labels = vec![("pool", one.pool.as_str()), ("kind", one.kind)];
        (labels, u64::from(one.error.is_some()))
    });
    page.family(POOL_FILE_ERROR, errors)
}
