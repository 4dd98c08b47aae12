//! What can be wrong with a certificate, its key, a file of roots, of revocation lists or of ticket keys. Every message names the file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::pem;

use crate::wire::ticket_keys::TicketKeysError;

/// Why a TLS configuration could not be built. The operator's to repair; never a peer's fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}", file.display())]
    Read {
        file: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("{}: larger than {limit_bytes} bytes", file.display())]
    TooLarge { file: PathBuf, limit_bytes: u64 },
    #[error("{}: not valid PEM: {}", file.display(), pem_words(source))]
    Pem { file: PathBuf, source: pem::Error },
    #[error("{}: no certificate found", file.display())]
    NoCertificate { file: PathBuf },
    #[error("{}: no private key found", file.display())]
    NoKey { file: PathBuf },
    #[error(
        "{}: the private key is encrypted, and nobody is there to give the passphrase; decrypt it with `openssl pkey -in {} -out KEY`",
        file.display(),
        file.display()
    )]
    EncryptedKey { file: PathBuf },
    #[error("{}: not a valid certificate: {why}", file.display())]
    Certificate { file: PathBuf, why: String },
    #[error("{}: the private key cannot be used: {source}", file.display())]
    Key {
        file: PathBuf,
        source: rustls::Error,
    },
    #[error("{} does not belong to {}", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "{}: the certificate names no host (no DNS subjectAltName), so that no client could get it; set default = true to serve it to every client",
        file.display()
    )]
    NoNames { file: PathBuf },
    #[error("{}: {source}", file.display())]
    TicketKeys {
        file: PathBuf,
        source: TicketKeysError,
    },
    #[error("{}: no revocation list found", file.display())]
    NoRevocationList { file: PathBuf },
    #[error("{}: client certificates could not be verified: {why}", file.display())]
    ClientAuth { file: PathBuf, why: String },
    #[error(
        "the system has no trusted root certificates{}; name a file with `ca`",
        hint(errors)
    )]
    NoRoots { errors: Vec<String> },
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

fn hint(errors: &[String]) -> String {
    match errors.first() {
        Some(first) => format!(" ({first})"),
        None => String::new(),
    }
}

/// The library shows lines as lists of numbers.
fn pem_words(error: &pem::Error) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line `{}` is missing", text(end_marker).trim_end())
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("the line `{}` begins nothing", text(line).trim_end())
        }
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64".to_owned(),
        other => other.to_string(),
    }
}
