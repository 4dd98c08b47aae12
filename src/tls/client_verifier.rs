//! Verification of client certificates (`listener.tls.client_auth`): authorities and revocation
//! lists.
//!
//! Revocation is checked for the whole chain, as OpenSSL's `CRL_CHECK_ALL` does: a chain with an
//! authority that no list covers is refused. An expired list stays in use: to refuse every client
//! would turn a late renewal into an outage.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

use super::certificate::{parse_chain, roots_of};
use super::error::FileFault;
use super::files::{FileContents, FileHash, Fingerprint, FromFiles};
use super::{TlsError, describe};
use crate::config::{ClientAuth, ClientAuthMode};

/// Verifier of client certificates.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Fingerprint of the policy: mode, authorities, lists.
    pub fingerprint: Fingerprint,
}

impl ClientVerifier {
    /// Loads the authorities and revocation lists.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn load(
        settings: &ClientAuth,
        contents: &FileContents,
        provider: Arc<CryptoProvider>,
    ) -> Result<ClientVerifier, TlsError> {
        let ClientAuth { ca, mode, crl } = settings;
        let roots = roots_of(ca, parse_chain(ca, contents.get(ca)?)?)?;
        let lists = match crl {
            Some(crl) => lists(crl, contents)?,
            None => Vec::new(),
        };
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
        if *mode == ClientAuthMode::Optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| {
            FileFault::ClientAuth(describe(&error)).of(crl.as_ref().unwrap_or(ca))
        })?;
        Ok(ClientVerifier {
            verifier,
            fingerprint: ClientVerifier::fingerprint(settings, contents)?,
        })
    }

    /// Fingerprint that [`ClientVerifier::load`] would give, without loading.
    pub(super) fn fingerprint(
        settings: &ClientAuth,
        contents: &FileContents,
    ) -> Result<Fingerprint, TlsError> {
        let ClientAuth { ca, mode, crl } = settings;
        let mut hash = FileHash::new();
        hash.add(match mode {
            ClientAuthMode::Required => b"required",
            ClientAuthMode::Optional => b"optional",
        });
        hash.add(contents.get(ca)?);
        if let Some(crl) = crl {
            hash.add(contents.get(crl)?);
        }
        Ok(hash.finish())
    }
}

impl FromFiles for ClientVerifier {
    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

fn lists(
    file: &Path,
    contents: &FileContents,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(contents.get(file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| FileFault::Pem(source).of(file))?;
    if lists.is_empty() {
        return Err(FileFault::NoRevocationList.of(file));
    }
    Ok(lists)
}
