//! TLS towards the backends of a pool: trusted roots, our client certificate, and the server name.
//!
//! Sessions are resumed by rustls' own cache, bounded at its 256 names. It belongs to this
//! configuration, so that a change of the trusted roots starts without sessions.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs as crypto;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, Error};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate::{load_key_pair, parse_chain};
use super::ciphers::protocol_versions;
use super::client::{file_roots, system_roots};
use super::files::{FileContents, FileHash, Fingerprint};
use super::server_verifier::{ServerTrust, ServerVerifier};
use super::{TlsError, TlsStream, describe_handshake_error, record, stream};
use crate::config::BackendTls;

/// Longest reason shown: a certificate of a thousand names does not belong in a log line.
const MAX_REASON_CHARS: usize = 200;

/// A pool's (or a check's) TLS, read and checked.
pub struct BackendTlsConfig {
    config: Arc<ClientConfig>,
    sni: Option<ServerName<'static>>,
    /// Hash of the settings and of all files that they name.
    fingerprint: Fingerprint,
}

impl fmt::Debug for BackendTlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendTlsConfig").finish_non_exhaustive()
    }
}

/// Equal when both act the same.
impl PartialEq for BackendTlsConfig {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl BackendTlsConfig {
    /// Reads the files that `tls` names.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(tls: &BackendTls) -> Result<BackendTlsConfig, TlsError> {
        let provider = Arc::new(crypto::default_provider());
        let contents = FileContents::read(BackendTlsConfig::files(tls));
        let mut hash = FileHash::new();
        hash.add(format!("{tls:?}").as_bytes());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(protocol_versions(tls.min_version))?;
        let trust = if tls.verify {
            let (roots, listed) = match tls.ca.as_deref() {
                Some(file) => (file_roots(file)?, parse_chain(file, contents.get(file)?)?),
                None => (system_roots()?, Vec::new()),
            };
            for root in &roots.roots {
                hash.add(&root.subject);
                hash.add(&root.subject_public_key_info);
            }
            listed.iter().for_each(|one| hash.add(one));
            ServerTrust::roots_and(listed, roots, &provider)?
        } else {
            ServerTrust::Any
        };
        let verifier = ServerVerifier {
            trust,
            provider: Arc::clone(&provider),
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (cert, key) = (&identity.cert, &identity.key);
                hash.add(contents.get(cert)?);
                hash.add(contents.get(key)?);
                let pair = load_key_pair(cert, key, &contents, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        config.alpn_protocols = tls.alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        // The relay goes on with the traffic keys (`record::TlsSession`).
        config.enable_secret_extraction = true;
        config.key_log = record::key_log();
        Ok(BackendTlsConfig {
            config: Arc::new(config),
            sni: tls.sni.as_deref().and_then(server_name),
            fingerprint: hash.finish(),
        })
    }

    /// The files that `tls` names.
    pub fn files(tls: &BackendTls) -> impl Iterator<Item = &PathBuf> + Clone {
        let named = tls.identity.iter().flat_map(|one| [&one.cert, &one.key]);
        named.chain(&tls.ca)
    }

    /// The name to send and to verify: the configured one, or the backend's host name or IP
    /// address. `None`: neither can be in a certificate.
    pub fn name(&self, backend: &str) -> Option<ServerName<'static>> {
        self.sni.clone().or_else(|| server_name(backend))
    }

    /// Makes the handshake on `io` with a backend of this name. The caller sets the deadline, by
    /// dropping the future.
    ///
    /// # Errors
    /// The handshake's or the socket's; the message is for the operator.
    pub async fn connect<IO>(&self, io: IO, backend: &str) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.name(backend).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "no name to verify; set tls.sni",
            )
        })?;
        let connected = stream::connect(io, Arc::clone(&self.config), name).await;
        connected.map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            None => io::Error::new(error.kind(), reason(&error)),
        })
    }
}

/// Short reason of a failed handshake.
fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "closed before the end of the handshake".to_owned();
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) = inner {
        return "certificate of an unknown issuer; name it with tls.ca".to_owned();
    }
    let whole = describe_handshake_error(error);
    let short = whole
        .strip_prefix("invalid peer certificate: ")
        .unwrap_or(&whole);
    short.chars().take(MAX_REASON_CHARS).collect()
}

/// Name for verification. An IP address is verified as one and not sent as SNI.
fn server_name(name: &str) -> Option<ServerName<'static>> {
    let name = name.trim_end_matches('.');
    match name.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::from(ip.to_canonical())),
        Err(_) => ServerName::try_from(name.to_owned()).ok(),
    }
}
