//! Verification of client certificates (`listener.tls.client_auth`): authorities and revocation lists.
//!
//! Revocation is asked for the whole chain, as OpenSSL's `CRL_CHECK_ALL` does: a chain with an authority that no list speaks for
//! is refused. A list whose time is over goes on being used: refusing every client would turn a late renewal into an outage.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

use super::certificate::parse_chain;
use super::files::{FileContents, FileHash, Fingerprint};
use super::{TlsError, words};
use crate::config::{ClientAuth, ClientAuthMode};

/// How clients are verified.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Of the policy: mode, authorities, lists.
    pub fingerprint: Fingerprint,
}

impl ClientVerifier {
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(
        settings: &ClientAuth,
        contents: &FileContents,
        provider: Arc<CryptoProvider>,
    ) -> Result<ClientVerifier, TlsError> {
        let ClientAuth { ca, mode, crl } = settings;
        let mut roots = RootCertStore::empty();
        for authority in parse_chain(ca, contents.of(ca)?)? {
            roots
                .add(authority)
                .map_err(|error| TlsError::Certificate {
                    file: ca.clone(),
                    why: words(&error),
                })?;
        }
        let lists = match crl {
            Some(crl) => lists(crl, contents)?,
            None => Vec::new(),
        };
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
        if *mode == ClientAuthMode::Optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| TlsError::ClientAuth {
            file: crl.as_ref().unwrap_or(ca).clone(),
            why: words(&error),
        })?;
        Ok(ClientVerifier {
            verifier,
            fingerprint: ClientVerifier::fingerprint(settings, contents)?,
        })
    }

    /// What [`Clients::take`] would make's, without making it.
    pub fn fingerprint(
        settings: &ClientAuth,
        contents: &FileContents,
    ) -> Result<Fingerprint, TlsError> {
        let ClientAuth { ca, mode, crl } = settings;
        let mut hash = FileHash::new();
        hash.add(match mode {
            ClientAuthMode::Required => b"required",
            ClientAuthMode::Optional => b"optional",
        });
        hash.add(contents.of(ca)?);
        if let Some(crl) = crl {
            hash.add(contents.of(crl)?);
        }
        Ok(hash.finish())
    }
}

fn lists(
    file: &Path,
    contents: &FileContents,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(contents.of(file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            file: file.to_owned(),
            source,
        })?;
    if lists.is_empty() {
        return Err(TlsError::NoRevocationList {
            file: file.to_owned(),
        });
    }
    Ok(lists)
}
