//! TLS as one listener terminates it, kept up to date with its files: certificates, keys, authorities, revocation lists, ticket
//! keys. Only the next handshake sees a change.
//!
//! What changed is taken once two looks in a row see the same, so that no half of a file is served, and part by part: a
//! certificate that does not belong to its key yet leaves the last pair serving, and is tried again until it does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use super::TlsError;
use super::certificate::CertificateFacts;
use super::ciphers::{self, CipherOrder, ConfigByOrder};
use super::file_watch::{FileChange, FileWatch};
use super::files::{FileContents, Fingerprint};
use super::material::{LoadedMaterial, TlsMaterial, files};
use super::sni_resolver::SniResolver;
use super::tickets::{DecryptOnly, Tickets};
use crate::config::Terminate;

/// One listener's TLS.
pub struct TlsAcceptor {
    /// The listener's.
    name: String,
    settings: Terminate,
    alpn: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
    active: ArcSwap<ActiveConfig>,
    watch: Mutex<FileWatch>,
    /// What was wrong with the files that were taken last; empty when nothing was. Apart from the look, which a file system that
    /// hangs may hold.
    errors: ArcSwap<Vec<String>>,
}

struct ActiveConfig {
    material: TlsMaterial,
    names: Arc<SniResolver>,
    configs: Arc<ConfigByOrder>,
    /// See [`Terminator::config_of_resumed`].
    resumed: Arc<ConfigByOrder>,
    tickets: Tickets,
    fingerprint: Fingerprint,
}

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// Nothing new.
    Same,
    /// Something is being written: look again after [`super::SETTLE`].
    Unsettled,
    /// The files changed and were taken, as far as they can be used.
    Taken,
}

impl TlsAcceptor {
    /// Reads and checks everything that `settings` name, for the listener `name`. `alpn` lists the protocols offered, most wanted
    /// first; empty: none.
    ///
    /// # Errors
    /// Names the first file that cannot be used, and what is wrong with it.
    pub fn load(name: &str, settings: &Terminate, alpn: &[&[u8]]) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(ciphers::provider());
        let (look, contents) = FileWatch::start(files(settings));
        let LoadedMaterial { parts, errors } =
            TlsMaterial::load(settings, &contents, None, &provider);
        if let Some(first) = errors.into_iter().next() {
            return Err(first);
        }
        let alpn: Vec<_> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let parts = parts.ok_or_else(|| rustls::Error::NoCertificatesPresented)?;
        let serving = ActiveConfig::new(name, settings, &alpn, parts, &provider)?;
        Ok(TlsAcceptor {
            name: name.to_owned(),
            settings: settings.clone(),
            alpn,
            provider,
            active: ArcSwap::from_pointee(serving),
            watch: Mutex::new(look),
            errors: ArcSwap::default(),
        })
    }

    /// All that is wrong with the files of `settings`, where [`Terminator::load`] names the first.
    pub fn file_errors(settings: &Terminate) -> Vec<TlsError> {
        let (_, contents) = FileWatch::start(files(settings));
        TlsMaterial::load(settings, &contents, None, &Arc::new(ciphers::provider())).errors
    }

    /// For the next handshake of any client.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config_for(CipherOrder::Server)
    }

    /// For the next handshake of a client whose hello was read.
    pub fn config_for(&self, order: CipherOrder) -> Arc<ServerConfig> {
        Arc::clone(self.active.load().configs.get(order))
    }

    /// For a handshake that one of our tickets resumes. Where clients show certificates no new ticket comes of it: each would
    /// begin its life anew, and a client could go on for ever by a certificate that was verified once.
    pub fn resumption_config(&self, order: CipherOrder) -> Arc<ServerConfig> {
        Arc::clone(self.active.load().resumed.get(order))
    }

    /// Whether a client that asks for this name, or for none, gets a certificate.
    pub fn serves(&self, name: Option<&str>) -> bool {
        self.active.load().names.serves(name)
    }

    /// What opens the tickets of this listener, as they are now.
    pub fn tickets(&self) -> Tickets {
        self.active.load().tickets.clone()
    }

    /// The certificates that serve, in the configuration's order.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        let serving = self.active.load();
        let loaded = serving.material.certificates.iter();
        loaded.map(|one| one.facts.clone()).collect()
    }

    /// Every DNS name served, sorted; wildcards as `*.example.org`.
    pub fn server_names(&self) -> Vec<String> {
        let certificates = self.certificates().into_iter();
        let mut names: Vec<String> = certificates.flat_map(|one| one.names).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Of the contents that serve: differs when a file's content does, whatever its stamp.
    pub fn fingerprint(&self) -> Fingerprint {
        self.active.load().fingerprint
    }

    /// Why the files as they are now do not serve whole, each reason on one line; `None`: they do.
    pub fn error(&self) -> Option<String> {
        let errors = self.errors.load();
        (!errors.is_empty()).then(|| errors.join("\n"))
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks at the files and takes what changed and has settled. Blocks on file I/O. Logs each change of state once.
    pub fn refresh(&self) -> RefreshOutcome {
        let mut look = self.look();
        let always = !self.errors.load().is_empty();
        let contents = match look.again(self.files(), always) {
            FileChange::Same => return RefreshOutcome::Same,
            FileChange::Unsettled => return RefreshOutcome::Unsettled,
            FileChange::Changed(contents) => contents,
        };
        let errors = Arc::new(self.reload(&contents));
        // The status says it before the log does.
        let before = self.errors.swap(Arc::clone(&errors));
        self.log_changes(&before, &errors);
        RefreshOutcome::Taken
    }

    /// Serves with what can be used; gives what cannot.
    fn reload(&self, contents: &FileContents) -> Vec<String> {
        let serving = self.active.load();
        let LoadedMaterial { parts, mut errors } = TlsMaterial::load(
            &self.settings,
            contents,
            Some(&serving.material),
            &self.provider,
        );
        let parts = parts.filter(|parts| parts.fingerprint() != serving.fingerprint);
        if let Some(parts) = parts {
            match ActiveConfig::new(
                &self.name,
                &self.settings,
                &self.alpn,
                parts,
                &self.provider,
            ) {
                Ok(serving) => {
                    self.active.store(Arc::new(serving));
                    tracing::info!(listener = self.name, "tls files renewed");
                }
                Err(error) => errors.push(error),
            }
        }
        errors.iter().map(ToString::to_string).collect()
    }

    fn log_changes(&self, before: &[String], now: &[String]) {
        for error in now.iter().filter(|error| !before.contains(error)) {
            tracing::error!(
                listener = self.name,
                %error,
                "tls file cannot be used, the last good one goes on"
            );
        }
        if now.is_empty() && !before.is_empty() {
            tracing::info!(listener = self.name, "every tls file can be used again");
        }
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> + Clone {
        files(&self.settings)
    }

    fn look(&self) -> MutexGuard<'_, FileWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveConfig {
    fn new(
        name: &str,
        settings: &Terminate,
        alpn: &[Vec<u8>],
        parts: TlsMaterial,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ActiveConfig, TlsError> {
        let tickets = parts.tickets(name)?;
        let names = Arc::new(SniResolver::new(&parts.certificates));
        let config = parts.config(settings, alpn, &tickets, Arc::clone(&names), provider)?;
        let resumed = settings.client_auth.as_ref().map(|_| {
            let mut resumed = config.clone();
            resumed.ticketer = Arc::new(DecryptOnly(tickets.clone()));
            ConfigByOrder::new(resumed)
        });
        let configs = ConfigByOrder::new(config);
        Ok(ActiveConfig {
            names,
            resumed: resumed.unwrap_or_else(|| Arc::clone(&configs)),
            configs,
            fingerprint: parts.fingerprint(),
            tickets,
            material: parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Certificate, ClientAuth, ClientAuthMode};
    use crate::tls::client::tests::any;
    use crate::tls::material::tests::{Folder, der, shake};
    use data_encoding::BASE64;
    use rustls::HandshakeKind;

    fn load(settings: &Terminate) -> TlsAcceptor {
        TlsAcceptor::load("chat", settings, &[]).unwrap()
    }

    /// Looks until nothing new is found; true when something was taken.
    fn settle(terminator: &TlsAcceptor) -> bool {
        let mut taken = false;
        loop {
            match terminator.refresh() {
                RefreshOutcome::Same => return taken,
                RefreshOutcome::Unsettled => {}
                RefreshOutcome::Taken => taken = true,
            }
        }
    }

    fn served(terminator: &TlsAcceptor, name: &str) -> Vec<u8> {
        let shaken = shake(&terminator.config(), &any(), name);
        shaken.unwrap().certificate
    }

    /// The files of `from` take the place of those of `to`.
    fn copy(from: &Certificate, to: &Certificate) {
        std::fs::copy(&from.cert, &to.cert).unwrap();
        std::fs::copy(&from.key, &to.key).unwrap();
    }

    #[test]
    fn a_change_is_taken_by_the_second_look_that_sees_it() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let terminator = load(&Terminate::with(vec![chat.clone()]));
        assert_eq!(terminator.refresh(), RefreshOutcome::Same);
        copy(&folder.make("next", &["chat.test"]), &chat);
        assert_eq!(terminator.refresh(), RefreshOutcome::Unsettled);
        copy(&folder.make("last", &["chat.test"]), &chat);
        assert_eq!(terminator.refresh(), RefreshOutcome::Unsettled);
        assert_eq!(terminator.refresh(), RefreshOutcome::Taken);
        assert_eq!(
            served(&terminator, "chat.test"),
            der(&folder.file("last.pem"))
        );
        assert_eq!(terminator.refresh(), RefreshOutcome::Same);
    }

    // Once with a program that writes its two files at its leisure.
    #[test]
    fn a_pair_that_does_not_fit_leaves_the_last_one_of_its_name_serving() {
        let folder = Folder::new();
        let (one, two) = (
            folder.make("one", &["one.test"]),
            folder.make("two", &["two.test"]),
        );
        let terminator = load(&Terminate::with(vec![one.clone(), two.clone()]));
        let (first, next) = (der(&one.cert), folder.make("next", &["one.test"]));
        std::fs::copy(&next.cert, &one.cert).unwrap();
        copy(&folder.make("other", &["two.test"]), &two);
        assert!(settle(&terminator));
        assert_eq!(served(&terminator, "one.test"), first);
        assert_eq!(
            served(&terminator, "two.test"),
            der(&folder.file("other.pem"))
        );
        let error = terminator.error().unwrap();
        assert!(error.contains("one.key does not belong to "), "{error}");
        std::fs::copy(&next.key, &one.key).unwrap();
        assert!(settle(&terminator));
        assert_eq!(terminator.error(), None);
        assert_eq!(served(&terminator, "one.test"), der(&next.cert));
    }

    #[test]
    fn whatever_state_a_file_is_in_the_last_good_one_serves() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let keys = folder.file("tickets.key");
        let line = BASE64.encode(&[7; 48]);
        std::fs::write(&keys, &line).unwrap();
        let ca = folder.make("ca", &["ca.test"]).cert;
        let client_auth = ClientAuth {
            ca: ca.clone(),
            mode: ClientAuthMode::Optional,
            crl: None,
        };
        let terminator = load(&Terminate {
            ticket_keys: Some(keys.clone()),
            client_auth: Some(client_auth),
            ..Terminate::with(vec![chat.clone()])
        });
        let (first, fingerprint) = (der(&chat.cert), terminator.fingerprint());
        for file in [&chat.cert, &chat.key, &keys, &ca] {
            let good = std::fs::read(file).unwrap();
            for bad in [&b""[..], b"nonsense", &good[..good.len() / 2]] {
                std::fs::write(file, bad).unwrap();
                settle(&terminator);
                let error = terminator.error().unwrap();
                assert!(error.contains(&file.display().to_string()), "{error}");
                assert_eq!(served(&terminator, "chat.test"), first);
            }
            std::fs::remove_file(file).unwrap();
            settle(&terminator);
            assert!(terminator.error().unwrap().contains("No such file"));
            std::fs::write(file, good).unwrap();
            settle(&terminator);
            assert_eq!(terminator.error(), None);
        }
        assert_eq!(terminator.fingerprint(), fingerprint);
    }

    #[test]
    fn a_change_of_the_authorities_or_the_keys_voids_tickets_and_one_of_a_certificate_does_not() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let (ca, keys) = (
            folder.make("ca", &["ca.test"]).cert,
            folder.file("tickets.key"),
        );
        std::fs::write(&keys, BASE64.encode(&[7; 48])).unwrap();
        let with = |mode| Terminate {
            ticket_keys: Some(keys.clone()),
            client_auth: Some(ClientAuth {
                ca: ca.clone(),
                mode,
                crl: None,
            }),
            ..Terminate::with(vec![chat.clone()])
        };
        let terminator = load(&with(ClientAuthMode::Required));
        let ticket = || {
            let tickets = &terminator.config().ticketer;
            tickets.encrypt(b"state").unwrap()
        };
        let first = ticket();
        assert!(
            load(&with(ClientAuthMode::Required))
                .tickets()
                .opens(&first)
        );
        assert!(
            !load(&with(ClientAuthMode::Optional))
                .tickets()
                .opens(&first)
        );
        let elsewhere = TlsAcceptor::load("other", &with(ClientAuthMode::Required), &[]).unwrap();
        assert!(!elsewhere.tickets().opens(&first));
        copy(&folder.make("next", &["chat.test"]), &chat);
        assert!(settle(&terminator));
        assert!(terminator.tickets().opens(&first));
        std::fs::copy(folder.make("other", &["ca.test"]).cert, &ca).unwrap();
        assert!(settle(&terminator));
        assert!(!terminator.tickets().opens(&first));
        let second = ticket();
        let more = [[8; 48], [9; 48]].map(|key| BASE64.encode(&key)).join("\n");
        std::fs::write(&keys, more).unwrap();
        assert!(settle(&terminator));
        assert!(!terminator.tickets().opens(&second));
    }

    /// Each resumption gave a new ticket, so that a client went on for ever by a certificate that was verified once.
    #[test]
    fn a_resumed_session_of_a_verified_client_gives_no_new_ticket() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let client_auth = Some(ClientAuth {
            ca: folder.make("ca", &["ca.test"]).cert,
            mode: ClientAuthMode::Optional,
            crl: None,
        });
        let verifying = load(&Terminate {
            client_auth,
            ..Terminate::with(vec![chat.clone()])
        });
        let open = load(&Terminate::with(vec![chat]));
        let seals = |config: Arc<ServerConfig>| config.ticketer.encrypt(b"state").is_some();
        assert!(
            seals(verifying.config()) && !seals(verifying.resumption_config(CipherOrder::Server))
        );
        let ticket = verifying.config().ticketer.encrypt(b"state").unwrap();
        let opened = verifying
            .resumption_config(CipherOrder::Server)
            .ticketer
            .decrypt(&ticket);
        assert_eq!(opened.as_deref(), Some(&b"state"[..]));
        assert!(seals(open.config()) && seals(open.resumption_config(CipherOrder::Server)));
        // And rustls goes along with it.
        let client = any();
        let kind = |config| shake(&config, &client, "chat.test").unwrap().kind;
        assert_eq!(kind(verifying.config()), HandshakeKind::Full);
        // Once for each ticket that came of it.
        let resumed = (0..10).take_while(|_| {
            kind(verifying.resumption_config(CipherOrder::Server)) == HandshakeKind::Resumed
        });
        assert!((1..5).contains(&resumed.count()));
    }
}
