//! What the admin endpoint's certificate must be. Where the configuration file names the certificate, exactly that
//! one is expected: it often is self-signed, and names a host rather than the loopback address that is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The system's roots.
    System,
    /// The certificates of a PEM file, each of them as a root and as the endpoint's own.
    Roots(PathBuf),
    /// The first certificate of a PEM file, and no other.
    Pinned(PathBuf),
}

impl Trust {
    /// # Errors
    /// When the file cannot be read.
    pub fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        match self {
            Trust::System => tls::client_config(None, true).map_err(io::Error::other),
            Trust::Roots(file) => roots(file).map_err(io::Error::other),
            Trust::Pinned(file) => pinned(file).map_err(io::Error::other),
        }
    }
}

fn pinned(file: &Path) -> Result<Arc<ClientConfig>, String> {
    let first = read(file)?.into_iter().take(1).collect();
    client_config(first, None)
}

fn roots(file: &Path) -> Result<Arc<ClientConfig>, String> {
    let own = read(file)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(own.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| format!("use the roots of {}: {error}", file.display()))?;
    client_config(own, Some(verifier))
}

/// At least one.
fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{shown} holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("read the certificate {shown}: {error}")),
    }
}

fn client_config(
    own: Vec<CertificateDer<'static>>,
    roots: Option<Arc<WebPkiServerVerifier>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Known {
        own,
        roots,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes a certificate that it knows by heart, whatever names are in it, and where there are roots, what they signed.
#[derive(Debug)]
struct Known {
    own: Vec<CertificateDer<'static>>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.roots {
            Some(roots) => {
                roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(Error::General(
                "it is not the certificate that the configuration names".to_owned(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        folder: tempfile::TempDir,
        der: CertificateDer<'static>,
    }

    impl Made {
        fn new() -> Made {
            let made = rcgen::generate_simple_self_signed(["lb.example.org".to_owned()]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("c.pem"), made.cert.pem()).unwrap();
            let der = made.cert.der().clone();
            Made { folder, der }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("c.pem")
        }
    }

    fn verify(known: &Known, shown: &CertificateDer<'_>) -> bool {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        known
            .verify_server_cert(shown, &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn a_pinned_certificate_is_taken_for_any_name_and_no_other_is() {
        let (one, other) = (Made::new(), Made::new());
        let known = Known {
            own: read(&one.file()).unwrap(),
            roots: None,
            provider: Arc::new(aws_lc_rs::default_provider()),
        };
        assert!(verify(&known, &one.der));
        assert!(!verify(&known, &other.der));
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        std::fs::write(&file, "").unwrap();
        assert!(
            Trust::Roots(file.clone())
                .client_config()
                .unwrap_err()
                .to_string()
                .contains("empty.pem")
        );
        assert!(
            Trust::Pinned(file)
                .client_config()
                .unwrap_err()
                .to_string()
                .contains("empty.pem")
        );
    }
}
