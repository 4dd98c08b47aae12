//! TLS of one listener, kept up to date with its files: certificates, keys, authorities, revocation
//! lists, ticket keys. Only the next handshake sees a change.
//!
//! A change is loaded once two polls in a row see the same contents, so that no half of a file is
//! served. Items are loaded one by one: while a certificate does not match its key, the last pair
//! goes on serving, and the new one is tried again until it does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
use super::tickets::DecryptOnly;
use crate::config::Terminate;

/// TLS of one listener.
pub struct TlsAcceptor {
    context: AcceptorContext,
    active: ArcSwap<ActiveConfig>,
    watch: Mutex<FileWatch>,
    /// Errors of the last load; empty when there were none. Apart from the watch, which a file
    /// system that hangs may hold.
    errors: ArcSwap<Vec<String>>,
}

/// Inputs of a configuration that stay the same while its files change.
struct AcceptorContext {
    /// The listener's.
    name: String,
    settings: Terminate,
    alpn: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

struct ActiveConfig {
    material: TlsMaterial,
    names: Arc<SniResolver>,
    configs: Arc<ConfigByOrder>,
    /// See [`TlsAcceptor::resumption_config`].
    resumed: Arc<ConfigByOrder>,
    fingerprint: Fingerprint,
}

/// Result of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// Nothing new.
    Same,
    /// A file is being written: refresh again after this time.
    Unsettled(Duration),
    /// The files changed and were loaded, as far as they can be used.
    Reloaded,
}

impl TlsAcceptor {
    /// Reads and checks all files of `settings`, for the listener `name`. `alpn` lists the
    /// protocols offered, most wanted first; empty: none.
    ///
    /// # Errors
    /// Names the first file that cannot be used, and what is wrong with it.
    pub fn load(name: &str, settings: &Terminate, alpn: &[&[u8]]) -> Result<TlsAcceptor, TlsError> {
        let (watch, contents) = FileWatch::start(files(settings));
        let alpn: Vec<_> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let context = AcceptorContext {
            name: name.to_owned(),
            settings: settings.clone(),
            alpn,
            provider: Arc::new(ciphers::provider()),
        };
        let LoadedMaterial { material, errors } = context.load(&contents, None);
        if let Some(first) = errors.into_iter().next() {
            return Err(first);
        }
        let material = material.ok_or_else(|| rustls::Error::NoCertificatesPresented)?;
        let active = ActiveConfig::new(&context, material)?;
        Ok(TlsAcceptor {
            context,
            active: ArcSwap::from_pointee(active),
            watch: Mutex::new(watch),
            errors: ArcSwap::default(),
        })
    }

    /// Every error in the files of `settings`; [`TlsAcceptor::load`] returns the first.
    pub fn file_errors(settings: &Terminate) -> Vec<TlsError> {
        let (_, contents) = FileWatch::start(files(settings));
        TlsMaterial::load(settings, &contents, None, &Arc::new(ciphers::provider())).errors
    }

    /// Configuration for the next handshake of any client.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config_for(CipherOrder::Server)
    }

    /// Configuration for the next handshake of a client whose hello was read.
    pub fn config_for(&self, order: CipherOrder) -> Arc<ServerConfig> {
        Arc::clone(self.active.load().configs.get(order))
    }

    /// Configuration for a handshake that one of our tickets resumes. Where clients show
    /// certificates it issues no new ticket: each would have a full lifetime, and a client could go
    /// on for ever by a certificate that was verified once.
    pub fn resumption_config(&self, order: CipherOrder) -> Arc<ServerConfig> {
        Arc::clone(self.active.load().resumed.get(order))
    }

    /// Whether a client that asks for this name, or for none, gets a certificate.
    pub fn serves(&self, name: Option<&str>) -> bool {
        self.active.load().names.serves(name)
    }

    /// The certificates that serve, in the configuration's order.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        let active = self.active.load();
        let loaded = active.material.certificates.iter();
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

    /// Fingerprint of the contents in use: differs when a file's content does, whatever its stamp.
    pub fn fingerprint(&self) -> Fingerprint {
        self.active.load().fingerprint
    }

    /// Why the present files are not in use as a whole, a reason per line; `None`: they are.
    pub fn error(&self) -> Option<String> {
        let errors = self.errors.load();
        (!errors.is_empty()).then(|| errors.join("\n"))
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Every file that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> + Clone {
        files(&self.context.settings)
    }

    /// Polls the files at `now` and loads changes that have settled. Blocks on file I/O. Logs each
    /// change of state once.
    pub fn refresh(&self, now: Instant) -> RefreshOutcome {
        let mut watch = self.lock_watch();
        let always = !self.errors.load().is_empty();
        let contents = match watch.poll(files(&self.context.settings), always, now) {
            FileChange::Same => return RefreshOutcome::Same,
            FileChange::Unsettled(rest) => return RefreshOutcome::Unsettled(rest),
            FileChange::Changed(contents) => contents,
        };
        let errors = Arc::new(self.reload(&contents));
        // The status says it before the log does.
        let before = self.errors.swap(Arc::clone(&errors));
        self.log_changes(&before, &errors);
        RefreshOutcome::Reloaded
    }

    /// Activates what can be used, and returns the errors of the rest.
    fn reload(&self, contents: &FileContents) -> Vec<String> {
        let active = self.active.load();
        let loaded = self.context.load(contents, Some(&active.material));
        let LoadedMaterial {
            material,
            mut errors,
        } = loaded;
        let changed = material.filter(|new| new.fingerprint() != active.fingerprint);
        if let Some(material) = changed {
            match ActiveConfig::new(&self.context, material) {
                Ok(active) => {
                    self.active.store(Arc::new(active));
                    tracing::info!(listener = self.name(), "tls files renewed");
                }
                Err(error) => errors.push(error),
            }
        }
        errors.iter().map(ToString::to_string).collect()
    }

    fn log_changes(&self, before: &[String], now: &[String]) {
        for error in now.iter().filter(|error| !before.contains(error)) {
            tracing::error!(
                listener = self.name(),
                %error,
                "tls file cannot be used, the last good one goes on"
            );
        }
        if now.is_empty() && !before.is_empty() {
            tracing::info!(listener = self.name(), "every tls file can be used again");
        }
    }

    fn lock_watch(&self) -> MutexGuard<'_, FileWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcceptorContext {
    fn load(&self, contents: &FileContents, before: Option<&TlsMaterial>) -> LoadedMaterial {
        TlsMaterial::load(&self.settings, contents, before, &self.provider)
    }
}

impl ActiveConfig {
    fn new(context: &AcceptorContext, material: TlsMaterial) -> Result<ActiveConfig, TlsError> {
        let tickets = material.tickets(&context.name)?;
        let names = Arc::new(SniResolver::new(&material.certificates));
        let (settings, provider) = (&context.settings, &context.provider);
        let mut config = material.config(settings, Arc::clone(&names), provider)?;
        config.alpn_protocols.clone_from(&context.alpn);
        config.ticketer = Arc::new(tickets.clone());
        let resumed = settings.client_auth.as_ref().map(|_| {
            let mut resumed = config.clone();
            resumed.ticketer = Arc::new(DecryptOnly(tickets));
            ConfigByOrder::new(resumed)
        });
        let configs = ConfigByOrder::new(config);
        Ok(ActiveConfig {
            names,
            resumed: resumed.unwrap_or_else(|| Arc::clone(&configs)),
            configs,
            fingerprint: material.fingerprint(),
            material,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Certificate, ClientAuth, ClientAuthMode};
    use crate::tls::file_watch::SETTLE_TIME;
    use crate::tls::testing::{Folder, any, der, shake};
    use data_encoding::BASE64;
    use rustls::HandshakeKind;

    fn load(settings: &Terminate) -> TlsAcceptor {
        TlsAcceptor::load("chat", settings, &[]).unwrap()
    }

    /// Looks until nothing new is found; true when something was taken.
    fn settle(terminator: &TlsAcceptor) -> bool {
        let (mut taken, mut now) = (false, Instant::now());
        loop {
            match terminator.refresh(now) {
                RefreshOutcome::Same => return taken,
                RefreshOutcome::Unsettled(rest) => now += rest,
                RefreshOutcome::Reloaded => taken = true,
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
    fn a_change_is_taken_once_it_has_stayed_the_same() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let terminator = load(&Terminate::with(vec![chat.clone()]));
        let start = Instant::now();
        let at = |after: Duration| terminator.refresh(start + after);
        assert_eq!(at(Duration::ZERO), RefreshOutcome::Same);
        copy(&folder.make("next", &["chat.test"]), &chat);
        let wait = RefreshOutcome::Unsettled(SETTLE_TIME);
        assert_eq!(at(Duration::ZERO), wait);
        copy(&folder.make("last", &["chat.test"]), &chat);
        assert_eq!(at(SETTLE_TIME), wait);
        assert_eq!(at(2 * SETTLE_TIME), RefreshOutcome::Reloaded);
        assert_eq!(
            served(&terminator, "chat.test"),
            der(&folder.file("last.pem"))
        );
        assert_eq!(at(3 * SETTLE_TIME), RefreshOutcome::Same);
    }

    /// Two looks in a row were enough, however soon events of other files brought them on: the half
    /// of a pair was taken for the whole.
    #[test]
    fn events_of_other_files_do_not_bring_on_a_change() {
        let folder = Folder::new();
        let chat = folder.make("chat", &["chat.test"]);
        let terminator = load(&Terminate::with(vec![chat.clone()]));
        let first = der(&chat.cert);
        let next = folder.make("next", &["chat.test"]);
        std::fs::copy(&next.cert, &chat.cert).unwrap();
        let (start, event) = (Instant::now(), Duration::from_millis(110));
        for look in 0..5 {
            let rest = SETTLE_TIME - look * event;
            let seen = terminator.refresh(start + look * event);
            assert_eq!(seen, RefreshOutcome::Unsettled(rest), "{look}");
        }
        std::fs::copy(&next.key, &chat.key).unwrap();
        let whole = start + 5 * event;
        let wait = RefreshOutcome::Unsettled(SETTLE_TIME);
        assert_eq!(terminator.refresh(whole), wait);
        assert_eq!(terminator.error(), None);
        assert_eq!(served(&terminator, "chat.test"), first);
        let settled = terminator.refresh(whole + SETTLE_TIME);
        assert_eq!(settled, RefreshOutcome::Reloaded);
        assert_eq!(served(&terminator, "chat.test"), der(&next.cert));
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
                .config()
                .ticketer
                .decrypt(&first)
                .is_some()
        );
        assert!(
            load(&with(ClientAuthMode::Optional))
                .config()
                .ticketer
                .decrypt(&first)
                .is_none()
        );
        let elsewhere = TlsAcceptor::load("other", &with(ClientAuthMode::Required), &[]).unwrap();
        assert!(elsewhere.config().ticketer.decrypt(&first).is_none());
        copy(&folder.make("next", &["chat.test"]), &chat);
        assert!(settle(&terminator));
        assert!(terminator.config().ticketer.decrypt(&first).is_some());
        std::fs::copy(folder.make("other", &["ca.test"]).cert, &ca).unwrap();
        assert!(settle(&terminator));
        assert!(terminator.config().ticketer.decrypt(&first).is_none());
        let second = ticket();
        let more = [[8; 48], [9; 48]].map(|key| BASE64.encode(&key)).join("\n");
        std::fs::write(&keys, more).unwrap();
        assert!(settle(&terminator));
        assert!(terminator.config().ticketer.decrypt(&second).is_none());
    }

    /// Each resumption gave a new ticket, so that a client went on for ever by a certificate that
    /// was verified once.
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
