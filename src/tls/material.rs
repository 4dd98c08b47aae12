//! Key material of a listener, and the rustls configuration made of it.
//!
//! Each item (a certificate with its key, the policy for clients, the ticket keys) is loaded as a
//! whole or not at all; where one cannot be used, the last one stays in use.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use super::certificate::LoadedCertificate;
use super::ciphers::protocol_versions;
use super::client_verifier::ClientVerifier;
use super::error::FileFault;
use super::files::{FileContents, FileHash, Fingerprint, FromFiles};
use super::sni_resolver::SniResolver;
use super::tickets::{TicketScope, Tickets};
use super::{TlsError, record};
use crate::config::{Certificate, Terminate};
use crate::wire::ticket_keys::TicketKeys;

/// Version of the ticket format. The state within is rustls' own: change this with a version of
/// rustls that writes it differently.
const TICKET_FORMAT: &[u8] = b"evenkeel 1, rustls 0.23";

/// Certificates, client policy and ticket keys of a listener.
pub(super) struct TlsMaterial {
    /// In the configuration's order.
    pub certificates: Vec<Arc<LoadedCertificate>>,
    clients: Option<Arc<ClientVerifier>>,
    ticket_keys: Option<Arc<SharedTicketKeys>>,
}

struct SharedTicketKeys {
    keys: TicketKeys,
    fingerprint: Fingerprint,
}

/// Result of a load: the material, and the errors of items that could not be loaded.
pub(super) struct LoadedMaterial {
    /// `None`: an item could not be loaded, and there is no earlier one.
    pub material: Option<TlsMaterial>,
    pub errors: Vec<TlsError>,
}

/// Every file that these settings name.
pub(super) fn files(settings: &Terminate) -> impl Iterator<Item = &PathBuf> + Clone {
    let pairs = settings.certificates.iter();
    let pairs = pairs.flat_map(|Certificate { cert, key, .. }| [cert, key]);
    let clients = settings.client_auth.iter();
    let clients = clients.flat_map(|clients| [Some(&clients.ca), clients.crl.as_ref()]);
    pairs.chain(clients.flatten()).chain(&settings.ticket_keys)
}

impl TlsMaterial {
    /// Loads each item whose files have changed; the others, and those that fail, stay as `before`.
    pub(super) fn load(
        settings: &Terminate,
        contents: &FileContents,
        before: Option<&TlsMaterial>,
        provider: &Arc<CryptoProvider>,
    ) -> LoadedMaterial {
        let mut errors = Vec::new();
        let certificates = settings.certificates.iter().enumerate();
        let certificates: Option<Vec<_>> = certificates
            .map(|(index, certificate)| {
                let last = before.and_then(|before| before.certificates.get(index));
                let fingerprint = LoadedCertificate::fingerprint(certificate, contents);
                reuse_or_load(last, fingerprint, &mut errors, || {
                    LoadedCertificate::load(certificate, contents, provider)
                })
            })
            // Every certificate is looked at, so that all errors are found.
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
        let clients = settings.client_auth.as_ref().map(|clients| {
            let last = before.and_then(|before| before.clients.as_ref());
            let fingerprint = ClientVerifier::fingerprint(clients, contents);
            reuse_or_load(last, fingerprint, &mut errors, || {
                ClientVerifier::load(clients, contents, Arc::clone(provider))
            })
        });
        let ticket_keys = settings.ticket_keys.as_ref().map(|file| {
            let last = before.and_then(|before| before.ticket_keys.as_ref());
            let fingerprint = contents.fingerprint_of([file].into_iter());
            reuse_or_load(last, fingerprint, &mut errors, || {
                SharedTicketKeys::load(file, contents)
            })
        });
        LoadedMaterial {
            material: complete(certificates, clients, ticket_keys),
            errors,
        }
    }

    /// Fingerprint of all items.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hash = FileHash::new();
        for certificate in &self.certificates {
            hash.add(&certificate.fingerprint);
            hash.add(&[u8::from(certificate.default)]);
        }
        hash.add_optional(self.clients.as_ref().map(|clients| clients.fingerprint));
        hash.add_optional(self.ticket_keys.as_ref().map(|keys| keys.fingerprint));
        hash.finish()
    }

    /// The tickets of the listener `name` under the present policy for clients.
    ///
    /// # Errors
    /// There are no keys.
    pub(super) fn tickets(&self, name: &str) -> Result<Tickets, TlsError> {
        let scope = self.scope(name);
        Ok(match &self.ticket_keys {
            Some(shared) => Tickets::with_shared_keys(&shared.keys, scope)?,
            None => Tickets::with_process_keys(scope)?,
        })
    }

    /// Scope of the tickets. A resumed session is not verified again: a change of authorities or
    /// revocation lists invalidates every ticket.
    fn scope(&self, name: &str) -> TicketScope {
        let mut hash = FileHash::new();
        hash.add(TICKET_FORMAT);
        hash.add(name.as_bytes());
        hash.add_optional(self.clients.as_ref().map(|clients| clients.fingerprint));
        hash.finish()
    }

    /// A configuration with this material, without ALPN and tickets.
    ///
    /// # Errors
    /// rustls refuses the settings.
    pub(super) fn config(
        &self,
        settings: &Terminate,
        names: Arc<SniResolver>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(protocol_versions(settings.min_version))?;
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(names);
        // The relay goes on with the traffic keys (`record::TlsSession`).
        config.enable_secret_extraction = true;
        config.key_log = record::key_log();
        Ok(config)
    }
}

/// The last item where its files did not change, else a new one. Where that fails, notes the error
/// and stays with the last one, if there is one.
fn reuse_or_load<T: FromFiles>(
    last: Option<&Arc<T>>,
    fingerprint: Result<Fingerprint, TlsError>,
    errors: &mut Vec<TlsError>,
    load: impl FnOnce() -> Result<T, TlsError>,
) -> Option<Arc<T>> {
    let unchanged = |now| last.filter(|last| last.fingerprint() == now).cloned();
    let loaded = fingerprint.and_then(|now| match unchanged(now) {
        Some(last) => Ok(last),
        None => load().map(Arc::new),
    });
    loaded
        .map_err(|error| errors.push(error))
        .ok()
        .or_else(|| last.cloned())
}

/// The material, unless an item that is configured could not be loaded.
fn complete(
    certificates: Option<Vec<Arc<LoadedCertificate>>>,
    clients: Option<Option<Arc<ClientVerifier>>>,
    ticket_keys: Option<Option<Arc<SharedTicketKeys>>>,
) -> Option<TlsMaterial> {
    Some(TlsMaterial {
        certificates: certificates?,
        clients: clients.map_or(Some(None), |clients| clients.map(Some))?,
        ticket_keys: ticket_keys.map_or(Some(None), |keys| keys.map(Some))?,
    })
}

impl FromFiles for SharedTicketKeys {
    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl SharedTicketKeys {
    fn load(file: &PathBuf, contents: &FileContents) -> Result<SharedTicketKeys, TlsError> {
        let keys = TicketKeys::parse(contents.get(file)?)
            .map_err(|source| FileFault::TicketKeys(source).of(file))?;
        Ok(SharedTicketKeys {
            keys,
            fingerprint: contents.fingerprint_of([file].into_iter())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::acceptor::TlsAcceptor;
    use crate::tls::testing::{Folder, any, der, of_version, rsa_only, shake};
    use rcgen::{KeyPair, PKCS_RSA_SHA256};
    use rustls::{HandshakeKind, NamedGroup};

    fn default(certificate: Certificate) -> Certificate {
        Certificate {
            default: true,
            ..certificate
        }
    }

    /// The acceptor of these for the listener `chat`.
    fn server_config(
        certificates: &[Certificate],
        alpn: &[&[u8]],
    ) -> Result<TlsAcceptor, TlsError> {
        TlsAcceptor::load("chat", &Terminate::with(certificates.to_vec()), alpn)
    }

    /// The stem of the certificate a client that names `name` gets.
    fn served(loaded: &TlsAcceptor, folder: &Folder, stems: &[&str], name: &str) -> Option<String> {
        let got = shake(&loaded.config(), &any(), name).ok()?.certificate;
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
            shake(&loaded.config(), &client, "chat.test")
                .unwrap()
                .certificate
        };
        assert_eq!(got(any()), der(&certificates[1].cert));
        assert_eq!(got(rsa_only()), der(&certificates[0].cert));
    }

    // It was access_denied, which a scanner takes for another server's answer.
    #[test]
    fn a_client_without_a_usable_signature_hears_that_the_handshake_failed() {
        let folder = Folder::new();
        let certificates = [default(folder.make("ecdsa", &["chat.test"]))];
        let loaded = server_config(&certificates, &[]).unwrap();
        for name in ["chat.test", "unknown.test"] {
            let error = shake(&loaded.config(), &rsa_only(), name).err().unwrap();
            let none = matches!(error, rustls::Error::PeerIncompatible(_));
            assert!(none, "{name}: {error:?}");
        }
    }

    #[test]
    fn a_session_is_resumed_in_both_versions_and_after_a_reload() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = of_version(version, &certificates[0].cert);
            let before = server_config(&certificates, &[]).unwrap();
            let first = shake(&before.config(), &client, "chat.test").unwrap();
            assert_ne!(first.kind, HandshakeKind::Resumed);
            let after = server_config(&certificates, &[]).unwrap();
            let second = shake(&after.config(), &client, "chat.test").unwrap();
            assert_eq!(second.kind, HandshakeKind::Resumed, "{version:?}");
        }
    }

    #[test]
    fn the_post_quantum_group_is_preferred() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        let loaded = server_config(&certificates, &[]).unwrap();
        let config = loaded.config();
        let first = config.crypto_provider().kx_groups[0];
        assert_eq!(first.name(), NamedGroup::X25519MLKEM768);
        let shaken = shake(&loaded.config(), &any(), "chat.test").unwrap();
        assert_eq!(shaken.group, Some(NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn a_version_below_the_least_is_refused() {
        let folder = Folder::new();
        let certificates = vec![folder.make("chat", &["chat.test"])];
        let settings = Terminate {
            min_version: crate::config::TlsVersion::Tls13,
            ..Terminate::with(certificates.clone())
        };
        let loaded = TlsAcceptor::load("chat", &settings, &[]).unwrap();
        let try_with = |version| {
            let client = of_version(version, &certificates[0].cert);
            shake(&loaded.config(), &client, "chat.test").is_ok()
        };
        assert!(try_with(&rustls::version::TLS13));
        assert!(!try_with(&rustls::version::TLS12));
    }

    #[test]
    fn the_protocols_offered_are_negotiated() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        let loaded = server_config(&certificates, &[b"http/1.1"]).unwrap();
        let mut client = (*any()).clone();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let shaken = shake(&loaded.config(), &Arc::new(client), "chat.test").unwrap();
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
        assert_eq!(loaded.server_names(), ["*.chat.test", "a.test", "b.test"]);
        let new_year_2040 = std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_208_988_800);
        let certificates = loaded.certificates();
        let ends: Vec<_> = certificates.iter().map(|one| one.not_after).collect();
        assert_eq!(ends, [new_year_2040; 2]);
        let subjects: Vec<_> = certificates.iter().map(|one| &one.subject).collect();
        assert_eq!(subjects, ["b.test", "a.test"]);
    }

    #[test]
    fn the_fingerprint_changes_with_the_contents_alone() {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &["chat.test"])];
        let fingerprint = || server_config(&certificates, &[]).unwrap().fingerprint();
        let first = fingerprint();
        let contents = std::fs::read_to_string(&certificates[0].cert).unwrap();
        folder.write("chat.pem", &contents);
        assert_eq!(fingerprint(), first);
        folder.make("chat", &["chat.test"]);
        assert_ne!(fingerprint(), first);
    }
}
