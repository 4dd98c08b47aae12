//! Which certificates a client of ours takes where the system's way does not do: any, or those that it knows by heart.
//! Every handshake must be signed by the certificate's key nevertheless.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub trust: ServerTrust,
    pub provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub(super) enum ServerTrust {
    Any,
    /// These, whatever names are in them, and where there are roots, what those signed for the name asked for.
    Pinned {
        own: Vec<CertificateDer<'static>>,
        roots: Option<Arc<WebPkiServerVerifier>>,
    },
    /// What `roots` signed; and each of `own` itself while it is valid and names the backend: most who sign a node's
    /// certificate with its own key make it one of an authority, which no chain may end with.
    Trusted {
        own: Vec<CertificateDer<'static>>,
        roots: Arc<WebPkiServerVerifier>,
    },
}

impl ServerTrust {
    /// # Errors
    /// There are no roots.
    pub fn trusted(
        own: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self::Trusted { own, roots })
    }
}

impl ServerVerifier {
    /// Whether the server has shown the key of its certificate. The library reads version 3 alone:
    /// where every certificate is taken, one of another version is taken unsigned, which keeps out
    /// nobody who could not have made one of version 3.
    fn checked(
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
        let (own, roots) = match &self.trust {
            ServerTrust::Any => return Ok(ServerCertVerified::assertion()),
            ServerTrust::Pinned { own, roots } => (own, roots),
            ServerTrust::Trusted { own, .. } if own.contains(end_entity) => {
                return verify_own(end_entity, server_name, now);
            }
            ServerTrust::Trusted { roots, .. } => {
                return roots.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
            }
        };
        if own.contains(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match roots {
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
        self.checked(cert, verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.checked(cert, verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A certificate that is trusted as it is: what is left is its name and its time.
fn verify_own(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let (not_before, not_after) = (
        time(parsed.validity().not_before),
        time(parsed.validity().not_after),
    );
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        }
        .into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    Ok(ServerCertVerified::assertion())
}

/// A stamp before 1970 becomes 1970.
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
                own: vec![one.clone()],
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
