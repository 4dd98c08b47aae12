//! TLS configurations of our own clients, such as checks and the command line.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::TlsError;
use super::certificate::{read_chain, roots_of};
use super::error::FileFault;
use super::server_verifier::{ServerTrust, ServerVerifier};

/// A configuration for TLS 1.2 and 1.3, without ALPN.
///
/// `ca` is a PEM file of roots; `None` means the system's. With `verify` false any certificate is
/// accepted.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn client_config(
    ca: Option<&Path>,
    verify: bool,
) -> Result<Arc<ClientConfig>, TlsError> {
    if !verify {
        return config_with(ServerTrust::Any);
    }
    let roots = match ca {
        Some(file) => file_roots(file)?,
        None => system_roots()?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A configuration that accepts the first certificate of a PEM file, whatever names are in it, and
/// no other.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn pinned_client_config(file: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    config_with(ServerTrust::Pinned {
        listed: read_chain(file)?.into_iter().take(1).collect(),
        roots: None,
    })
}

/// A configuration that accepts each certificate of a PEM file, whatever names are in it, and those
/// that they signed.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn known_client_config(file: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let listed = read_chain(file)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(listed.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| FileFault::certificate(&error).of(file))?;
    config_with(ServerTrust::Pinned {
        listed,
        roots: Some(roots),
    })
}

fn config_with(trust: ServerTrust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ServerVerifier {
        trust,
        provider: provider.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

pub(super) fn file_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    roots_of(file, read_chain(file)?)
}

pub(super) fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A root that rustls cannot parse is skipped, as every client does: systems carry some from
    // before the rules.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots { errors });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Folder;

    #[test]
    fn a_file_of_roots_must_hold_certificates() {
        let folder = Folder::new();
        let certificate = folder.make("ca", &["chat.test"]);
        assert!(client_config(Some(&certificate.cert), true).is_ok());
        let error = client_config(Some(&certificate.key), true).unwrap_err();
        assert!(
            error.to_string().ends_with("ca.key: no certificate found"),
            "{error}"
        );
        let missing = folder.file("missing.pem");
        let error = client_config(Some(&missing), true).unwrap_err();
        assert!(error.to_string().contains("missing.pem: "), "{error}");
    }
}
