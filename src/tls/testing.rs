//! Certificates, clients and handshakes for the tests of this room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::ServerName;

use super::certificate::read_chain;
use super::client::{client_config, file_roots};
use super::server_verifier::{ServerTrust, ServerVerifier};
use crate::config::Certificate;

/// Certificates and keys made for one test.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, contents: &str) {
        std::fs::write(self.file(name), contents).unwrap();
    }

    /// `stem.pem` and `stem.key`, for `names`.
    pub(super) fn make(&self, stem: &str, names: &[&str]) -> Certificate {
        self.make_with(
            stem,
            names,
            &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        )
    }

    pub(super) fn make_with(&self, stem: &str, names: &[&str], key: &KeyPair) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        self.write(
            &format!("{stem}.pem"),
            &params.self_signed(key).unwrap().pem(),
        );
        self.write(&format!("{stem}.key"), &key.serialize_pem());
        self.certificate(stem)
    }

    pub(super) fn certificate(&self, stem: &str) -> Certificate {
        Certificate {
            cert: self.file(&format!("{stem}.pem")),
            key: self.file(&format!("{stem}.key")),
            default: false,
        }
    }
}

/// A client that takes any certificate.
pub(super) fn any() -> Arc<ClientConfig> {
    client_config(None, false).unwrap()
}

/// A client that takes any certificate, but verifies RSA signatures only.
pub(super) fn rsa_only() -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    let known = provider.signature_verification_algorithms.mapping;
    let rsa = known
        .iter()
        .position(|(scheme, _)| *scheme == SignatureScheme::RSA_PSS_SHA256)
        .unwrap();
    provider.signature_verification_algorithms.mapping = &known[rsa..=rsa];
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier {
            trust: ServerTrust::Any,
            provider,
        }))
        .with_no_client_auth();
    Arc::new(config)
}

/// A client of one version that trusts `root`.
pub(super) fn of_version(
    version: &'static SupportedProtocolVersion,
    root: &Path,
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(file_roots(root).unwrap())
        .with_no_client_auth();
    Arc::new(config)
}

/// Result of a handshake in memory.
pub(super) struct Shaken {
    pub certificate: Vec<u8>,
    pub kind: HandshakeKind,
    pub alpn: Option<Vec<u8>>,
    pub group: Option<NamedGroup>,
}

pub(super) fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Shaken, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets()?;
        }
        wire.clear();
    }
    Ok(Shaken {
        certificate: client.peer_certificates().unwrap()[0].to_vec(),
        kind: client.handshake_kind().unwrap(),
        alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        group: client
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
    })
}

pub(super) fn der(file: &Path) -> Vec<u8> {
    read_chain(file).unwrap()[0].to_vec()
}
