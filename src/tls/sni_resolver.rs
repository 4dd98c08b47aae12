//! Selection of a client's certificate: by the name it asks for, then by the signatures it
//! verifies.
//!
//! Exact name first, then a wildcard of one label (RFC 6125, 6.4.3), then the default; a name that
//! none covers is refused. Case and a trailing dot make no difference. Of several certificates for
//! one name, the first whose key can make a signature the client accepts: ECDSA before RSA, since
//! signing costs a tenth.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::certificate::LoadedCertificate;

/// Certificates of one listener by name.
#[derive(Debug)]
pub(super) struct SniResolver {
    /// Lower-case names, wildcards as `*.example.org`.
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Option<Arc<CertifiedKey>>,
}

impl SniResolver {
    pub(super) fn new(certificates: &[Arc<LoadedCertificate>]) -> SniResolver {
        let mut names: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.facts.names {
                names
                    .entry(name.clone())
                    .or_default()
                    .push(certificate.key.clone());
            }
        }
        for keys in names.values_mut() {
            // Stable: within one kind of key the file's order decides.
            keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        }
        let default = certificates.iter().find(|certificate| certificate.default);
        SniResolver {
            names,
            default: default.map(|certificate| certificate.key.clone()),
        }
    }

    fn select(&self, name: Option<&str>, offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(offered).is_some();
        match name.and_then(|name| self.certificates_for(name)) {
            // Where none is usable rustls sends the right alert: handshake_failure, not
            // access_denied.
            Some(keys) => keys.iter().find(usable).or(keys.first()).cloned(),
            None => self.default.clone(),
        }
    }

    /// Whether a client that asks for this name, or for none, gets a certificate.
    pub(super) fn serves(&self, name: Option<&str>) -> bool {
        self.default.is_some() || name.is_some_and(|name| self.certificates_for(name).is_some())
    }

    fn certificates_for(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(keys) = self.names.get(&name) {
            return Some(keys);
        }
        let (_, parent) = name.split_once('.')?;
        self.names.get(&format!("*.{parent}"))
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.select(hello.server_name(), hello.signature_schemes())
    }
}
