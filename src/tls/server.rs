//! The TLS configuration of a listener.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as crypto;
use rustls::server::ProducesTickets;

use super::TlsError;
use super::certificate::{Loaded, read_file};
use super::names::ByName;
use crate::config::Certificate;

/// A listener's certificates, read and checked.
#[derive(Debug, Clone)]
pub struct LoadedTls {
    pub config: Arc<ServerConfig>,
    /// SHA-256 over the contents of all files: differs when a file's content changed, whatever its stamp.
    pub fingerprint: [u8; 32],
    /// Every DNS name served, sorted; wildcards as `*.example.org`.
    pub names: Vec<String>,
    /// End of validity of each certificate, in the configuration's order.
    pub not_after: Vec<SystemTime>,
}

/// Reads certificates and keys and builds the configuration that serves them, TLS 1.2 and 1.3.
///
/// `alpn` lists the protocols offered, most wanted first; empty: none. A client that names an unknown host gets the
/// certificate marked `default`, or is refused when there is none.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn server_config(certificates: &[Certificate], alpn: &[&[u8]]) -> Result<LoadedTls, TlsError> {
    let provider = Arc::new(crypto::default_provider());
    let fingerprint = fingerprint(certificates)?;
    let loaded = certificates
        .iter()
        .map(|certificate| Loaded::read(certificate, &provider))
        .collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName::new(&loaded)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = ticketer()?;
    Ok(LoadedTls {
        config: Arc::new(config),
        fingerprint,
        names: all_names(&loaded),
        not_after: loaded.iter().map(|one| one.not_after).collect(),
    })
}

/// SHA-256 over the contents of every certificate and key file, to see a change without loading them.
///
/// # Errors
/// Names the file that cannot be read.
pub fn fingerprint(certificates: &[Certificate]) -> Result<[u8; 32], TlsError> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for Certificate { cert, key, default } in certificates {
        for file in [cert, key] {
            let contents = read_file(file)?;
            // The length keeps two files apart: bytes moved from one to the next would hash the same.
            hash.update(&(contents.len() as u64).to_be_bytes());
            hash.update(&contents);
        }
        hash.update(&[u8::from(*default)]);
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(hash.finish().as_ref());
    Ok(fingerprint)
}

fn all_names(loaded: &[Loaded]) -> Vec<String> {
    let mut names: Vec<String> = loaded.iter().flat_map(|one| one.names.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// One ticket key for the process, rotated by rustls: a reload must not void every client's ticket, or the reconnects
/// after it would all be full handshakes. A ticket names its host, and the certificate is chosen before it is looked at.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    static TICKETER: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();
    if let Some(ticketer) = TICKETER.get() {
        return Ok(ticketer.clone());
    }
    let made = crypto::Ticketer::new()?;
    Ok(TICKETER.get_or_init(|| made).clone())
}
