//! Verification of server certificates beyond the system's roots: any certificate, pinned ones, or
//! listed ones beside roots. In each case the handshake must be signed by the certificate's key.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

/// Verifier for backends, checks and the command line.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub trust: ServerTrust,
    pub provider: Arc<CryptoProvider>,
}

/// Certificates that are accepted.
#[derive(Debug)]
pub(super) enum ServerTrust {
    Any,
    /// The listed certificates, whatever names are in them; and those that `roots` signed for the
    /// name.
    Pinned {
        listed: Vec<CertificateDer<'static>>,
        roots: Option<Arc<WebPkiServerVerifier>>,
    },
    /// Certificates that `roots` signed for the name; and each listed one while it is valid and has
    /// the name: most self-signed node certificates are marked as an authority's, which no chain
    /// may end with.
    Trusted {
        listed: Vec<CertificateDer<'static>>,
        roots: Arc<WebPkiServerVerifier>,
    },
}

impl ServerTrust {
    /// Trusts `roots` and the listed certificates.
    ///
    /// # Errors
    /// There are no roots.
    pub(super) fn roots_and(
        listed: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self::Trusted { listed, roots })
    }
}

impl ServerVerifier {
    /// Checks that the server has the key of its certificate. The library reads only version 3:
    /// where every certificate is accepted, one of another version is accepted unsigned. That adds
    /// no risk, as anybody can make one of version 3.
    fn check_signature(
        &self,
        cert: &CertificateDer<'_>,
        signed: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let is_old = || {
            let parsed = X509Certificate::from_der(cert);
            parsed.is_ok_and(|(_, parsed)| parsed.version() != X509Version::V3)
        };
        match (&self.trust, signed) {
            (ServerTrust::Any, Err(_)) if is_old() => Ok(HandshakeSignatureValid::assertion()),
            (_, signed) => signed,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = match &self.trust {
            ServerTrust::Any => return Ok(ServerCertVerified::assertion()),
            ServerTrust::Pinned { listed, .. } if listed.contains(end_entity) => {
                return Ok(ServerCertVerified::assertion());
            }
            ServerTrust::Trusted { listed, .. } if listed.contains(end_entity) => {
                return verify_listed(end_entity, server_name, now);
            }
            ServerTrust::Pinned { roots: None, .. } => {
                return Err(Error::General(
                    "it is not the certificate that the configuration names".to_owned(),
                ));
            }
            ServerTrust::Pinned {
                roots: Some(roots), ..
            }
            | ServerTrust::Trusted { roots, .. } => roots,
        };
        roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.check_signature(cert, verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.check_signature(cert, verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Verifies name and validity of a listed certificate.
fn verify_listed(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let not_before = time(parsed.validity().not_before);
    let not_after = time(parsed.validity().not_after);
    let time = now;
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    Ok(ServerCertVerified::assertion())
}

/// Time of a stamp; one before 1970 becomes 1970.
fn time(stamp: ASN1Time) -> UnixTime {
    let seconds = u64::try_from(stamp.timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["lb.example.org".to_owned()]).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn a_pinned_certificate_is_taken_for_any_name_and_no_other_is() {
        let (one, other) = (made(), made());
        let verifier = ServerVerifier {
            trust: ServerTrust::Pinned {
                listed: vec![one.clone()],
                roots: None,
            },
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let verify = |shown: &CertificateDer<'_>| {
            verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now())
        };
        assert!(verify(&one).is_ok());
        assert!(verify(&other).is_err());
    }
}
