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
        let certified = read_pair(cert, key, provider)?;
        let (names, not_after) = facts(cert, &certified.cert)?;
        if names.is_empty() && !default {
            return Err(TlsError::NoNames { file: cert.clone() });
        }
        warn_if_expired(cert, not_after);
        Ok(Loaded {
            key: Arc::new(certified),
            names,
            not_after,
            default: *default,
        })
    }
}

/// A chain and its private key, which belong to each other. Whom it names and until when is not looked at.
pub(super) fn read_pair(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = read_chain(cert)?;
    let signing_key = provider
        .key_provider
        .load_private_key(read_key(key)?)
        .map_err(|source| TlsError::Key {
            file: key.to_owned(),
            source,
        })?;
    let certified = CertifiedKey::new(chain, signing_key);
    check_pair(&certified, cert, key)?;
    Ok(certified)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::server::tests::Folder;

    fn error(certificate: &Certificate) -> String {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Loaded::read(certificate, &provider)
            .unwrap_err()
            .to_string()
    }

    fn ends(error: &str, end: &str) {
        assert!(error.ends_with(end), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = Folder::new();
        let mut chat = folder.make("chat", &["chat.test"]);
        chat.key = folder.make("other", &["chat.test"]).key;
        let error = error(&chat);
        assert!(error.contains("other.key does not belong to "), "{error}");
        ends(&error, "chat.pem");
    }

    #[test]
    fn files_swapped_by_mistake_are_named() {
        let folder = Folder::new();
        let mut chat = folder.make("chat", &["chat.test"]);
        std::mem::swap(&mut chat.cert, &mut chat.key);
        ends(&error(&chat), "chat.key: no certificate found");
        chat.cert = chat.key.clone();
        ends(&error(&chat), "chat.pem: no private key found");
    }

    #[test]
    fn a_missing_an_empty_and_a_broken_file_are_named() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let with = |contents: &str| {
            folder.write("chat.pem", contents);
            error(&chat)
        };
        ends(&with(""), "chat.pem: no certificate found");
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(with(cut).contains("chat.pem: not valid PEM: "));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(with(nonsense).contains("chat.pem: not a valid certificate: "));
        std::fs::remove_file(&chat.cert).unwrap();
        assert!(error(&chat).contains("chat.pem: No such file"));
    }

    #[test]
    fn a_certificate_cut_off_anywhere_is_an_error() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let whole = std::fs::read_to_string(&chat.cert).unwrap();
        for cut in 0..whole.trim_end().len() {
            folder.write("chat.pem", &whole[..cut]);
            error(&chat);
        }
    }

    #[test]
    fn a_file_too_large_to_be_a_certificate_is_not_read_to_its_end() {
        let file = Path::new("/dev/zero");
        let error = read_file(file).unwrap_err().to_string();
        ends(&error, "/dev/zero: larger than 4194304 bytes");
    }

    #[test]
    fn a_certificate_without_a_host_name_can_only_be_the_default() {
        let folder = Folder::new();
        let mut certificate = folder.make("ip", &["127.0.0.1"]);
        assert!(error(&certificate).contains("names no host"));
        certificate.default = true;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        assert_eq!(
            Loaded::read(&certificate, &provider).unwrap().names,
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_expired_certificate_still_loads() {
        let folder = Folder::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["chat.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        folder.write("old.pem", &params.self_signed(&key).unwrap().pem());
        folder.write("old.key", &key.serialize_pem());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let loaded = Loaded::read(&folder.certificate("old"), &provider).unwrap();
        assert!(loaded.not_after < SystemTime::now());
    }
}
