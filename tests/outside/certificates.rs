//! Certificates made for a test, and the client configurations that trust them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate that signs itself, as PEM files.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Writes `stem.pem` and `stem.key` into `folder`.
    pub fn write(folder: &Path, stem: &str, names: &[&str]) -> Certificate {
        Certificate::write_with(folder, stem, names, |_| {})
    }

    /// The same with a change, of its time or its purpose.
    pub fn write_with(
        folder: &Path,
        stem: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let signing_key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&signing_key).expect("a certificate");
        let cert = folder.join(format!("{stem}.pem"));
        let key = folder.join(format!("{stem}.key"));
        std::fs::write(&cert, made.pem()).expect("write a certificate");
        std::fs::write(&key, signing_key.serialize_pem()).expect("write a key");
        Certificate {
            cert,
            key,
            der: made.der().clone(),
        }
    }

    /// As the configuration names it.
    pub fn toml(&self) -> String {
        format!(
            "{{ cert = \"{}\", key = \"{}\" }}",
            self.cert.display(),
            self.key.display()
        )
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// A client that trusts exactly these.
pub fn client(trusted: &[&Certificate]) -> Arc<ClientConfig> {
    client_of(trusted, rustls::ALL_VERSIONS)
}

/// The same, for these versions of TLS only.
pub fn client_of(
    trusted: &[&Certificate],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
