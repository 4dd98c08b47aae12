//! A certificate chain and its key: read, parsed, checked against each other.
//!
//! Expiry only causes a warning: an expired certificate still serves clients that do not check it,
//! and refusing it would turn a late renewal into an outage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::error::FileFault;
use super::files::{FileContents, Fingerprint, FromFiles, read_file};
use super::{TlsError, describe};
use crate::config::Certificate;

/// A certificate ready to serve.
#[derive(Debug)]
pub(super) struct LoadedCertificate {
    pub key: Arc<CertifiedKey>,
    pub facts: CertificateFacts,
    pub default: bool,
    /// Fingerprint of both files.
    pub fingerprint: Fingerprint,
}

/// Facts about a certificate, for the status and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The file.
    pub cert: PathBuf,
    /// DNS names of the subjectAltName, lower case; wildcards as `*.example.org`.
    pub names: Vec<String>,
    /// The first DNS name, or the subject where there is none.
    pub subject: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl LoadedCertificate {
    /// Checks one configured certificate.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn load(
        certificate: &Certificate,
        contents: &FileContents,
        provider: &CryptoProvider,
    ) -> Result<LoadedCertificate, TlsError> {
        let Certificate { cert, key, default } = certificate;
        let certified = load_key_pair(cert, key, contents, provider)?;
        let facts = facts(cert, &certified.cert)?;
        if facts.names.is_empty() && !default {
            return Err(FileFault::NoNames.of(cert));
        }
        warn_if_expired(cert, facts.not_after);
        Ok(LoadedCertificate {
            key: Arc::new(certified),
            facts,
            default: *default,
            fingerprint: LoadedCertificate::fingerprint(certificate, contents)?,
        })
    }

    /// Fingerprint that [`LoadedCertificate::load`] would give, without loading.
    pub(super) fn fingerprint(
        certificate: &Certificate,
        contents: &FileContents,
    ) -> Result<Fingerprint, TlsError> {
        let files = [&certificate.cert, &certificate.key];
        contents.fingerprint_of(files.into_iter())
    }
}

impl FromFiles for LoadedCertificate {
    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Loads a chain and its private key, and checks that they match. Names and validity are not
/// checked.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(super) fn load_key_pair(
    cert: &Path,
    key: &Path,
    contents: &FileContents,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    refuse_swapped(cert, key, contents)?;
    let chain = parse_chain(cert, contents.get(cert)?)?;
    refuse_old_version(cert, &chain)?;
    let signing_key = provider
        .key_provider
        .load_private_key(parse_key(key, contents.get(key)?)?)
        .map_err(|source| FileFault::Key(source).of(key))?;
    let certified = CertifiedKey::new(chain, signing_key);
    check_pair(&certified, cert, key)?;
    Ok(certified)
}

fn refuse_swapped(cert: &Path, key: &Path, contents: &FileContents) -> Result<(), TlsError> {
    let (cert_contents, key_contents) = (contents.get(cert)?, contents.get(key)?);
    let has_key = PrivateKeyDer::from_pem_slice(cert_contents).is_ok();
    let has_certificate =
        |contents: &[u8]| CertificateDer::pem_slice_iter(contents).any(|one| one.is_ok());
    if has_key && !has_certificate(cert_contents) && has_certificate(key_contents) {
        return Err(TlsError::Swapped {
            cert: cert.to_owned(),
            key: key.to_owned(),
        });
    }
    Ok(())
}

/// Facts about the first certificate of a PEM file; `None`: it cannot be read.
pub(crate) fn certificate_facts(file: &Path) -> Option<CertificateFacts> {
    facts(file, &read_chain(file).ok()?).ok()
}

/// Every certificate of a PEM file, in file order; at least one.
pub(super) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parse_chain(file, &read_file(file)?)
}

/// As [`read_chain`], of contents that were read already.
pub(super) fn parse_chain(
    file: &Path,
    contents: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(contents)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| FileFault::Pem(source).of(file))?;
    if chain.is_empty() {
        return Err(FileFault::NoCertificate.of(file));
    }
    Ok(chain)
}

/// A store of roots with these certificates.
pub(super) fn roots_of(
    file: &Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|error| FileFault::certificate(&error).of(file))?;
    }
    Ok(roots)
}

fn parse_key(file: &Path, contents: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(contents).map_err(|source| match source {
        _ if is_encrypted(contents) => FileFault::EncryptedKey {
            file: file.to_owned(),
        }
        .of(file),
        pem::Error::NoItemsFound => FileFault::NoKey.of(file),
        source => FileFault::Pem(source).of(file),
    })
}

/// Whether a key is encrypted, by PKCS#8 or by OpenSSL's older form (RFC 1421, 4.6.1.1).
fn is_encrypted(contents: &[u8]) -> bool {
    const PKCS8: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let says_encrypted = |line: &[u8]| {
        let traditional = line.strip_prefix(b"Proc-Type:");
        let traditional =
            traditional.is_some_and(|value| value.trim_ascii().ends_with(b",ENCRYPTED"));
        line.starts_with(PKCS8) || traditional
    };
    contents
        .split(|byte| *byte == b'\n' || *byte == b'\r')
        .any(says_encrypted)
}

fn check_pair(certified: &CertifiedKey, cert: &Path, key: &Path) -> Result<(), TlsError> {
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        Err(other) => Err(FileFault::Certificate(describe_own(&other)).of(cert)),
    }
}

/// Message of an error about our own certificate: rustls takes every certificate for a peer's.
fn describe_own(error: &Error) -> String {
    let text = describe(error);
    let text = text.strip_prefix("invalid peer certificate: ");
    text.map_or_else(|| describe(error), str::to_owned)
}

/// Refuses a certificate of version 1 or 2. The library does, too, but without a message for it.
fn refuse_old_version(file: &Path, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    match chain.first().map(|first| X509Certificate::from_der(first)) {
        Some(Ok((_, parsed))) if parsed.version() != X509Version::V3 => {
            Err(FileFault::OldVersion {
                version: parsed.version().0 + 1,
            }
            .of(file))
        }
        _ => Ok(()),
    }
}

/// Facts about the chain's first certificate.
fn facts(file: &Path, chain: &[CertificateDer<'static>]) -> Result<CertificateFacts, TlsError> {
    let end_entity = chain
        .first()
        .ok_or_else(|| FileFault::NoCertificate.of(file))?;
    let (_, parsed) = X509Certificate::from_der(end_entity)
        .map_err(|error| FileFault::certificate(&error).of(file))?;
    let mut names = Vec::new();
    if let Some(alternative) = parsed
        .subject_alternative_name()
        .map_err(|error| FileFault::certificate(&error).of(file))?
    {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    let subject = names.first().cloned();
    Ok(CertificateFacts {
        cert: file.to_owned(),
        subject: subject.unwrap_or_else(|| parsed.subject().to_string()),
        names,
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
    })
}

/// Time of a stamp; one before 1970 becomes 1970: long expired either way.
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
    use crate::tls::testing::Folder;

    fn error(certificate: &Certificate) -> String {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        read(certificate, &provider).unwrap_err().to_string()
    }

    fn read(
        certificate: &Certificate,
        provider: &CryptoProvider,
    ) -> Result<LoadedCertificate, TlsError> {
        let Certificate { cert, key, .. } = certificate;
        let contents = FileContents::read([cert, key].into_iter());
        LoadedCertificate::load(certificate, &contents, provider)
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
        let said = error(&chat);
        assert!(
            said.contains("chat.key holds the private key and "),
            "{said}"
        );
        ends(&said, "chat.pem the certificate: swap the two");
        let cert = std::mem::replace(&mut chat.key, chat.cert.clone());
        ends(&error(&chat), "chat.key: no certificate found");
        chat.key = cert;
        chat.cert = chat.key.clone();
        ends(&error(&chat), "chat.pem: no private key found");
    }

    #[test]
    fn an_encrypted_key_says_so_in_either_form() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let good = std::fs::read_to_string(&chat.key).unwrap();
        let pkcs8 = good.replace(" PRIVATE", " ENCRYPTED PRIVATE");
        let header = "KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\n";
        let traditional = good.replace(
            "BEGIN PRIVATE KEY-----\n",
            &format!("BEGIN RSA PRIVATE {header}"),
        );
        assert!(traditional.contains("DEK-Info"), "{good}");
        for encrypted in [pkcs8, traditional] {
            folder.write("chat.key", &encrypted);
            let error = error(&chat);
            assert!(
                error.contains("chat.key: the private key is encrypted"),
                "{error}"
            );
        }
        // What can be used wins over what cannot.
        folder.write("chat.key", &format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n{good}"));
        assert!(read(&chat, &rustls::crypto::aws_lc_rs::default_provider()).is_ok());
    }

    #[test]
    fn byte_order_marks_are_passed_over_in_joined_files_too() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let mark = |file: &Path| format!("\u{feff}{}", std::fs::read_to_string(file).unwrap());
        let (chain, key) = (mark(&chat.cert).repeat(2), mark(&chat.key));
        folder.write("chat.pem", &chain);
        folder.write("chat.key", &key);
        let loaded = read(&chat, &rustls::crypto::aws_lc_rs::default_provider()).unwrap();
        assert_eq!(loaded.key.cert.len(), 2);
    }

    #[test]
    fn errors_of_files_are_plain_text() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        for (text, says) in [
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "the line `-----END CERTIFICATE-----` is missing",
            ),
            (
                "-----BEGIN CERTIFICATE\nAAAA\n",
                "the line `-----BEGIN CERTIFICATE` begins nothing",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                "is not base64",
            ),
        ] {
            folder.write("chat.pem", text);
            ends(&error(&chat), says);
        }
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
    fn a_certificate_without_a_host_name_can_only_be_the_default() {
        let folder = Folder::new();
        let mut certificate = folder.make("ip", &["127.0.0.1"]);
        assert!(error(&certificate).contains("names no host"));
        certificate.default = true;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        assert_eq!(
            read(&certificate, &provider).unwrap().facts.names,
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
        let loaded = read(&folder.certificate("old"), &provider).unwrap();
        assert!(loaded.facts.not_after < SystemTime::now());
    }
}
