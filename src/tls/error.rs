//! Errors in certificates, keys, and files of roots, revocation lists or ticket keys. Every message
//! names the file.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::CertificateError;
use rustls_pki_types::{UnixTime, pem};

use crate::wire::ticket_keys::TicketKeysError;

/// Why a TLS configuration could not be built. The operator must act; never a peer's fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {fault}", file.display())]
    File { file: PathBuf, fault: FileFault },
    #[error("{} does not belong to {}", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("{} holds the private key and {} the certificate: swap the two", cert.display(), key.display())]
    Swapped { cert: PathBuf, key: PathBuf },
    #[error(
        "the system has no trusted root certificates{}; name a file with `ca`",
        hint(errors)
    )]
    NoRoots { errors: Vec<String> },
    #[error("tls: {}", describe(.0))]
    Rustls(#[from] rustls::Error),
}

/// Fault of one file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error("{0}")]
    Read(#[source] Arc<io::Error>),
    #[error("larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("not valid PEM: {}", describe_pem_error(.0))]
    Pem(pem::Error),
    #[error("no certificate found")]
    NoCertificate,
    #[error("no private key found")]
    NoKey,
    #[error(
        "the private key is encrypted, and there is no way to enter a passphrase; decrypt it with `openssl pkey -in {} -out KEY`",
        file.display()
    )]
    EncryptedKey { file: PathBuf },
    #[error("not a valid certificate: {0}")]
    Certificate(String),
    #[error(
        "an X.509 certificate of version {version}, which TLS clients refuse; issue one of version 3, with a subjectAltName"
    )]
    OldVersion { version: u32 },
    #[error("the private key cannot be used: {}", describe(.0))]
    Key(#[source] rustls::Error),
    #[error(
        "the certificate names no host (no DNS subjectAltName), so that no client could get it; set default = true to serve it to every client"
    )]
    NoNames,
    #[error("{0}")]
    TicketKeys(#[source] TicketKeysError),
    #[error("no revocation list found")]
    NoRevocationList,
    #[error("client certificates could not be verified: {0}")]
    ClientAuth(String),
}

impl FileFault {
    pub(super) fn of(self, file: &Path) -> TlsError {
        let file = file.to_owned();
        TlsError::File { file, fault: self }
    }

    pub(super) fn certificate(error: &impl fmt::Display) -> FileFault {
        FileFault::Certificate(describe(error))
    }
}

impl TlsError {
    /// The file at fault; the key of a pair.
    pub fn file(&self) -> Option<&Path> {
        match self {
            TlsError::File { file, .. }
            | TlsError::Mismatch { key: file, .. }
            | TlsError::Swapped { key: file, .. } => Some(file),
            TlsError::NoRoots { .. } | TlsError::Rustls(_) => None,
        }
    }
}

fn hint(errors: &[String]) -> String {
    match errors.first() {
        Some(first) => format!(" ({first})"),
        None => String::new(),
    }
}

/// Message of a failed handshake.
pub(crate) fn describe_handshake_error(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(why)) => {
            validity(why).unwrap_or_else(|| describe(error))
        }
        Some(_) => describe(error),
        None => error.to_string(),
    }
}

/// Message of a certificate outside its validity, with a date: the library shows seconds since
/// 1970.
fn validity(error: &CertificateError) -> Option<String> {
    let date = |time: &UnixTime| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))?;
        Some(humantime::format_rfc3339_seconds(time).to_string())
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("certificate expired at {}", date(not_after)?))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let begin = date(not_before)?;
            Some(format!("certificate is not valid before {begin}"))
        }
        _ => None,
    }
}

/// Message of a library's error, with the names of variants as text: "bad encoding" for
/// `BadEncoding`. Fields of variants are left out.
pub(crate) fn describe(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split(" {").next().unwrap_or_default();
    let words = text.split(' ').map(|one| split_variant(&unwrapped(one)));
    words.collect::<Vec<_>>().join(" ")
}

/// `a.example` of `DnsName("a.example")`; any other word as is.
fn unwrapped(word: &str) -> Cow<'_, str> {
    let parts = word.split_once('(').and_then(|(variant, rest)| {
        let (inner, behind) = rest.rsplit_once(')')?;
        is_variant(variant).then_some((inner, behind))
    });
    parts.map_or(Cow::Borrowed(word), |(inner, behind)| {
        Cow::Owned(format!("{}{behind}", inner.trim_matches('"')))
    })
}

/// Whether a word is the name of a variant: two words or more in one.
fn is_variant(word: &str) -> bool {
    let letters = word.as_bytes();
    let begins = |pair: &[u8; 2]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && letters.iter().all(u8::is_ascii_alphanumeric)
        && letters.array_windows().any(begins)
}

/// Separate words of the name of a variant; any other word as is.
fn split_variant(word: &str) -> String {
    if !is_variant(word) {
        return word.to_owned();
    }
    let mut text = String::new();
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && text.ends_with(|c: char| c.is_ascii_lowercase()) {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Message of a PEM error: the library shows lines as lists of numbers.
fn describe_pem_error(error: &pem::Error) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line `-----END {}-----` is missing", text(end_marker))
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("the line `{}` begins nothing", text(line).trim_end())
        }
        pem::Error::Base64Decode(_) => "the text between BEGIN and END is not base64".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, Error, PeerIncompatible};
    use rustls_pki_types::ServerName;

    #[test]
    fn no_name_of_a_variant_is_shown() {
        let said = |error: Error| describe(&error);
        assert_eq!(
            said(Error::PeerIncompatible(
                PeerIncompatible::NoCipherSuitesInCommon
            )),
            "peer is incompatible: no cipher suites in common"
        );
        let expected = ServerName::try_from("10.0.0.1").unwrap();
        let presented = ["DnsName(\"a.example\")", "IpAddress(192.0.2.1)"];
        let presented = presented.map(str::to_owned).to_vec();
        assert_eq!(
            said(Error::InvalidCertificate(
                CertificateError::NotValidForNameContext {
                    expected,
                    presented
                }
            )),
            "invalid peer certificate: certificate not valid for name \"10.0.0.1\"; certificate is only valid \
             for a.example or 192.0.2.1"
        );
        assert_eq!(
            said(Error::AlertReceived(AlertDescription::HandshakeFailure)),
            "received fatal alert: handshake failure"
        );
        assert_eq!(
            said(Error::InvalidCertificate(CertificateError::BadEncoding)),
            "invalid peer certificate: bad encoding"
        );
        let context = "Unusable UnsupportedThing { signature_id: [1, 2] }";
        assert_eq!(describe(&context), "Unusable unsupported thing");
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(86_400)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(60)),
        };
        let error = io::Error::other(Error::InvalidCertificate(expired));
        assert_eq!(
            describe_handshake_error(&error),
            "certificate expired at 1970-01-01T00:01:00Z"
        );
        for plain in [
            "a PKCS#8 key of O=ExampleCorp, TLS 1.3",
            "",
            "lb.Example.org",
        ] {
            assert_eq!(describe(&plain), plain);
        }
    }
}
