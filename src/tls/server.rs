//! The TLS configuration of a listener.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as crypto;
use rustls::server::ProducesTickets;

use super::TlsError;
use super::certificate::{Loaded, read_file};
use super::names::ByName;
use crate::config::Certificate;

/// A listener's certificates, read and checked.
#[derive(Debug, Clone)]
pub struct LoadedTls {
    pub config: Arc<ServerConfig>,
    /// SHA-256 over the contents of all files: differs when a file's content changed, whatever its stamp.
    pub fingerprint: [u8; 32],
    /// Every DNS name served, sorted; wildcards as `*.example.org`.
    pub names: Vec<String>,
    /// End of validity of each certificate, in the configuration's order.
    pub not_after: Vec<SystemTime>,
}

/// Reads certificates and keys and builds the configuration that serves them, TLS 1.2 and 1.3.
///
/// `alpn` lists the protocols offered, most wanted first; empty: none. A client that names an unknown host gets the
/// certificate marked `default`, or is refused when there is none.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn server_config(certificates: &[Certificate], alpn: &[&[u8]]) -> Result<LoadedTls, TlsError> {
    let provider = Arc::new(crypto::default_provider());
    let fingerprint = fingerprint(certificates)?;
    let loaded = certificates
        .iter()
        .map(|certificate| Loaded::read(certificate, &provider))
        .collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName::new(&loaded)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = ticketer()?;
    // The relay goes on with the traffic keys (`record::Session`).
    config.enable_secret_extraction = true;
    Ok(LoadedTls {
        config: Arc::new(config),
        fingerprint,
        names: all_names(&loaded),
        not_after: loaded.iter().map(|one| one.not_after).collect(),
    })
}

/// SHA-256 over the contents of every certificate and key file, to see a change without loading them.
///
/// # Errors
/// Names the file that cannot be read.
pub fn fingerprint(certificates: &[Certificate]) -> Result<[u8; 32], TlsError> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for Certificate { cert, key, default } in certificates {
        for file in [cert, key] {
            let contents = read_file(file)?;
            // The length keeps two files apart: bytes moved from one to the next would hash the same.
            hash.update(&(contents.len() as u64).to_be_bytes());
            hash.update(&contents);
        }
        hash.update(&[u8::from(*default)]);
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(hash.finish().as_ref());
    Ok(fingerprint)
}

fn all_names(loaded: &[Loaded]) -> Vec<String> {
    let mut names: Vec<String> = loaded.iter().flat_map(|one| one.names.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// One ticket key for the process, rotated by rustls: a reload must not void every client's ticket, or the reconnects
/// after it would all be full handshakes. A ticket names its host, and the certificate is chosen before it is looked at.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    static TICKETER: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();
    if let Some(ticketer) = TICKETER.get() {
        return Ok(ticketer.clone());
    }
    let made = crypto::Ticketer::new()?;
    Ok(TICKETER.get_or_init(|| made).clone())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tls::client::tests::{any, of_version, rsa_only};
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
    use rustls_pki_types::ServerName;
    use std::path::{Path, PathBuf};

    /// Certificates and keys made for one test.
    pub(in crate::tls) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(in crate::tls) fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        pub(in crate::tls) fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        pub(in crate::tls) fn write(&self, name: &str, contents: &str) {
            std::fs::write(self.file(name), contents).unwrap();
        }

        /// `stem.pem` and `stem.key`, for `names`.
        pub(in crate::tls) fn make(&self, stem: &str, names: &[&str]) -> Certificate {
            self.make_with(
                stem,
                names,
                &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            )
        }

        fn make_with(&self, stem: &str, names: &[&str], key: &KeyPair) -> Certificate {
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

        pub(in crate::tls) fn certificate(&self, stem: &str) -> Certificate {
            Certificate {
                cert: self.file(&format!("{stem}.pem")),
                key: self.file(&format!("{stem}.key")),
                default: false,
            }
        }
    }

    fn default(certificate: Certificate) -> Certificate {
        Certificate {
            default: true,
            ..certificate
        }
    }

    /// What a finished handshake in memory was.
    struct Shaken {
        certificate: Vec<u8>,
        kind: HandshakeKind,
        alpn: Option<Vec<u8>>,
    }

    fn shake(
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
        })
    }

    fn der(file: &Path) -> Vec<u8> {
        super::super::certificate::read_chain(file).unwrap()[0].to_vec()
    }

    /// The stem of the certificate a client that names `name` gets.
    fn served(loaded: &LoadedTls, folder: &Folder, stems: &[&str], name: &str) -> Option<String> {
        let got = shake(&loaded.config, &any(), name).ok()?.certificate;
        let stem = stems
            .iter()
            .find(|stem| der(&folder.file(&format!("{stem}.pem"))) == got);
        Some(stem.unwrap().to_string())
    }

    #[test]
    fn the_certificate_is_chosen_by_name() {
        let folder = Folder::new();
        let certificates = [
            folder.make("exact", &["a.chat.test", "Big.test"]),
            folder.make("wildcard", &["*.chat.test"]),
            default(folder.make("default", &["other.test"])),
        ];
        let stems = ["exact", "wildcard", "default"];
        let loaded = server_config(&certificates, &[]).unwrap();
        for (name, stem) in [
            ("a.chat.test", "exact"),
            ("BIG.TEST", "exact"),
            ("b.chat.test", "wildcard"),
            ("x.b.chat.test", "default"),
            ("chat.test", "default"),
            ("unknown.test", "default"),
            // An address is not sent as a name.
            ("127.0.0.1", "default"),
        ] {
            let got = served(&loaded, &folder, &stems, name);
            assert_eq!(got.as_deref(), Some(stem), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_without_a_default() {
        let folder = Folder::new();
        let loaded = server_config(&[folder.make("chat", &["chat.test"])], &[]).unwrap();
        let got = |name| served(&loaded, &folder, &["chat"], name);
        assert_eq!(got("chat.test").as_deref(), Some("chat"));
        assert_eq!(got("unknown.test"), None);
        assert_eq!(got("127.0.0.1"), None);
    }

    #[test]
    fn a_client_gets_the_kind_of_key_it_can_verify() {
        let folder = Folder::new();
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let certificates = [
            folder.make_with("rsa", &["chat.test"], &rsa),
            folder.make("ecdsa", &["chat.test"]),
        ];
        let loaded = server_config(&certificates, &[]).unwrap();
        let got = |client| {
            shake(&loaded.config, &client, "chat.test")
                .unwrap()
                .certificate
        };
        assert_eq!(got(any()), der(&certificates[1].cert));
        assert_eq!(got(rsa_only()), der(&certificates[0].cert));
    }

    #[test]
    fn a_session_is_resumed_in_both_versions_and_after_a_reload() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = of_version(version, &certificates[0].cert);
            let before = server_config(&certificates, &[]).unwrap();
            let first = shake(&before.config, &client, "chat.test").unwrap();
            assert_ne!(first.kind, HandshakeKind::Resumed);
            let after = server_config(&certificates, &[]).unwrap();
            let second = shake(&after.config, &client, "chat.test").unwrap();
            assert_eq!(second.kind, HandshakeKind::Resumed, "{version:?}");
        }
    }

    #[test]
    fn the_protocols_offered_are_negotiated() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        let loaded = server_config(&certificates, &[b"http/1.1"]).unwrap();
        let mut client = (*any()).clone();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let shaken = shake(&loaded.config, &Arc::new(client), "chat.test").unwrap();
        assert_eq!(shaken.alpn.as_deref(), Some(&b"http/1.1"[..]));
    }

    #[test]
    fn names_and_expiry_are_told() {
        let folder = Folder::new();
        let certificates = [
            folder.make("one", &["b.test", "*.Chat.test"]),
            folder.make("two", &["a.test", "b.test"]),
        ];
        let loaded = server_config(&certificates, &[]).unwrap();
        assert_eq!(loaded.names, ["*.chat.test", "a.test", "b.test"]);
        let new_year_2040 = std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_208_988_800);
        assert_eq!(loaded.not_after, [new_year_2040; 2]);
    }

    #[test]
    fn the_fingerprint_changes_with_the_contents_alone() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        let first = fingerprint(&certificates).unwrap();
        let contents = std::fs::read_to_string(&certificates[0].cert).unwrap();
        folder.write("chat.pem", &contents);
        assert_eq!(fingerprint(&certificates).unwrap(), first);
        folder.make("chat", &["chat.test"]);
        assert_ne!(fingerprint(&certificates).unwrap(), first);
        let loaded = server_config(&certificates, &[]).unwrap();
        assert_eq!(loaded.fingerprint, fingerprint(&certificates).unwrap());
    }
}
