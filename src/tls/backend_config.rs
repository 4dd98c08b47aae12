//! TLS towards the backends of a pool: who is trusted, who we are, and under which name a backend is asked for.
//!
//! Sessions are resumed by rustls' own cache, bounded at its 256 names; it is this configuration's, so that a change of
//! what is trusted begins anew.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs as crypto;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate::{load_key_pair, parse_chain};
use super::client::{file_roots, system_roots};
use super::files::FileContents;
use super::verifier::{ServerTrust, ServerVerifier};
use super::{TlsError, TlsStream, describe_handshake_error, stream};
use crate::config::{BackendTls, TlsVersion};

/// An operator reads the reason, a certificate of a thousand names does not belong in it.
const MAX_REASON_CHARS: usize = 200;

/// A pool's (or a check's) TLS, read and checked.
pub struct BackendTlsConfig {
    config: Arc<ClientConfig>,
    sni: Option<ServerName<'static>>,
    fingerprint: [u8; 32],
}

impl fmt::Debug for BackendTlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Towards").finish_non_exhaustive()
    }
}

/// Two that do the same.
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
        let mut seen = Fingerprint::new(tls);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(tls.min_version))?;
        let verifier = match tls.verify {
            false => ServerTrust::Any,
            true => {
                let (roots, own) = match tls.ca.as_deref() {
                    Some(file) => (file_roots(file)?, parse_chain(file, contents.of(file)?)?),
                    None => (system_roots()?, Vec::new()),
                };
                for root in &roots.roots {
                    seen.add(root.subject.as_ref());
                    seen.add(root.subject_public_key_info.as_ref());
                }
                own.iter().for_each(|one| seen.add(one));
                ServerTrust::trusted(own, roots, &provider)?
            }
        };
        let verifier = ServerVerifier {
            trust: verifier,
            provider: Arc::clone(&provider),
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (cert, key) = (&identity.cert, &identity.key);
                seen.add(contents.of(cert)?);
                seen.add(contents.of(key)?);
                let pair = load_key_pair(cert, key, &contents, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        config.alpn_protocols = tls.alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        // The relay goes on with the traffic keys (`record::Session`).
        config.enable_secret_extraction = true;
        Ok(BackendTlsConfig {
            config: Arc::new(config),
            sni: tls.sni.as_deref().and_then(server_name),
            fingerprint: seen.finish(),
        })
    }

    /// The files that `tls` names.
    pub fn files(tls: &BackendTls) -> impl Iterator<Item = &PathBuf> + Clone {
        let named = tls.identity.iter().flat_map(|one| [&one.cert, &one.key]);
        named.chain(&tls.ca)
    }

    /// For a client that does without our record layer.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name to ask for and to verify: the configured one, or that of the backend: a host name or an IP address.
    /// `None`: neither is one that a certificate could hold.
    pub fn name(&self, backend: &str) -> Option<ServerName<'static>> {
        self.sni.clone().or_else(|| server_name(backend))
    }

    /// Makes the handshake on `io` with the backend called `name`. The caller sets the deadline, by dropping this.
    ///
    /// # Errors
    /// Of the handshake or the socket; the message is for the operator.
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

/// Why a handshake failed, in few words.
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

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static SINCE_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    static SINCE_13: &[&SupportedProtocolVersion] = &[&TLS13];
    match min {
        TlsVersion::Tls12 => SINCE_12,
        TlsVersion::Tls13 => SINCE_13,
    }
}

/// An address is verified as one and not sent as a name.
fn server_name(name: &str) -> Option<ServerName<'static>> {
    let name = name.trim_end_matches('.');
    match name.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::from(ip.to_canonical())),
        Err(_) => ServerName::try_from(name.to_owned()).ok(),
    }
}

/// Of the settings and of everything that they name: no two that differ in what they do have the same.
struct Fingerprint(digest::Context);

impl Fingerprint {
    fn new(tls: &BackendTls) -> Self {
        let mut fingerprint = Self(digest::Context::new(&digest::SHA256));
        fingerprint.add(format!("{tls:?}").as_bytes());
        fingerprint
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        fingerprint
    }
}
