//! Which certificates a client of ours takes where the system's way does not do: any, or those that it knows by heart.
//! Every handshake must be signed by the certificate's key nevertheless.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

#[derive(Debug)]
pub(super) struct Verifier {
    pub accepted: Accepted,
    pub provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub(super) enum Accepted {
    Any,
    /// These, whatever names are in them, and where there are roots, what those signed for the name asked for.
    Known {
        own: Vec<CertificateDer<'static>>,
        roots: Option<Arc<WebPkiServerVerifier>>,
    },
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (own, roots) = match &self.accepted {
            Accepted::Any => return Ok(ServerCertVerified::assertion()),
            Accepted::Known { own, roots } => (own, roots),
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

    fn made() -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["lb.example.org".to_owned()]).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn a_pinned_certificate_is_taken_for_any_name_and_no_other_is() {
        let (one, other) = (made(), made());
        let verifier = Verifier {
            accepted: Accepted::Known {
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
