//! One certificate chain and its key: read, parsed, checked against each other.
//!
//! Expiry is only warned about: an expired certificate still serves clients that do not look, and refusing it would
//! turn a late renewal into an outage.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use crate::config::Certificate;

/// Largest PEM file read. Chains are a few KiB, a bundle of every public root is about 250 KiB; what is larger is a
/// wrong path (a log, a device).
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A certificate ready to serve.
#[derive(Debug)]
pub(super) struct Loaded {
    pub key: Arc<CertifiedKey>,
    /// DNS names of the subjectAltName, lower case; wildcards as `*.example.org`.
    pub names: Vec<String>,
    pub not_after: SystemTime,
    pub default: bool,
}

impl Loaded {
    /// Reads and checks one configured certificate.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn read(
        certificate: &Certificate,
        provider: &CryptoProvider,
    ) -> Result<Loaded, TlsError> {
        let Certificate { cert, key, default } = certificate;
        let chain = read_chain(cert)?;
        let signing_key = provider
            .key_provider
            .load_private_key(read_key(key)?)
            .map_err(|source| TlsError::Key {
                file: key.clone(),
                source,
            })?;
        let (names, not_after) = facts(cert, &chain)?;
        if names.is_empty() && !default {
            return Err(TlsError::NoNames { file: cert.clone() });
        }
        let certified = CertifiedKey::new(chain, signing_key);
        check_pair(&certified, cert, key)?;
        warn_if_expired(cert, not_after);
        Ok(Loaded {
            key: Arc::new(certified),
            names,
            not_after,
            default: *default,
        })
    }
}

/// The whole file, bounded.
pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        file: file.to_owned(),
        source,
    };
    let mut contents = Vec::new();
    File::open(file)
        .map_err(failed)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut contents)
        .map_err(failed)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge {
            file: file.to_owned(),
            limit_bytes: MAX_FILE_BYTES,
        });
    }
    Ok(contents)
}

/// Every certificate of a PEM file, in file order; at least one.
pub(super) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let contents = read_file(file)?;
    let chain = CertificateDer::pem_slice_iter(&contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            file: file.to_owned(),
            source,
        })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    Ok(chain)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let contents = read_file(file)?;
    PrivateKeyDer::from_pem_slice(&contents).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey {
            file: file.to_owned(),
        },
        source => TlsError::Pem {
            file: file.to_owned(),
            source,
        },
    })
}

fn check_pair(certified: &CertifiedKey, cert: &Path, key: &Path) -> Result<(), TlsError> {
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        Err(other) => Err(TlsError::Certificate {
            file: cert.to_owned(),
            why: other.to_string(),
        }),
    }
}

/// DNS names and end of validity of the chain's first certificate.
fn facts(
    file: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<(Vec<String>, SystemTime), TlsError> {
    let wrong = |why: String| TlsError::Certificate {
        file: file.to_owned(),
        why,
    };
    let end_entity = chain.first().ok_or_else(|| TlsError::NoCertificate {
        file: file.to_owned(),
    })?;
    let (_, parsed) =
        X509Certificate::from_der(end_entity).map_err(|error| wrong(error.to_string()))?;
    let mut names = Vec::new();
    if let Some(alternative) = parsed
        .subject_alternative_name()
        .map_err(|error| wrong(error.to_string()))?
    {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    Ok((names, time(parsed.validity().not_after.timestamp())))
}

/// A stamp before 1970 becomes 1970: long expired either way.
fn time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}

fn warn_if_expired(file: &Path, not_after: SystemTime) {
    if not_after < SystemTime::now() {
        tracing::warn!(file = %file.display(), "certificate has expired");
    }
}
