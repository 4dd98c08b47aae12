//! Turns a validated configuration into parts: pools, and each listener's rules with its certificates. Reads files,
//! opens no socket.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;
use std::sync::Arc;

use super::sticky;
use crate::config::{self, Config, Draft, Finding, ListenerTls};
use crate::health;
use crate::net::options::verify_congestion;
use crate::net::verify_rights;
use crate::pool::Pool;
use crate::proxy::ListenerSnapshot;
use crate::tls::{self, BackendTlsConfig, TlsError};

/// The pools by name.
pub(super) type Pools = BTreeMap<String, Arc<Pool>>;

/// What `load` made.
pub(super) struct LoadedConfig {
    /// Every pool of the configuration; a known one is the same as before and has not been changed yet.
    pub pools: Pools,
    /// The TLS of each pool that has it.
    pub tls: BTreeMap<String, Arc<BackendTlsConfig>>,
    /// One per listener, in the order of the configuration.
    pub rules: Vec<ListenerSnapshot>,
    pub keys: sticky::Keys,
}

/// Loads everything that `config` names. Pools in `known` are kept.
///
/// # Errors
/// Every file that could not be used.
pub(super) fn load(config: &Config, known: &Pools) -> Result<LoadedConfig, Vec<LoadError>> {
    let mut errors = Vec::new();
    for pool in config.pools.values() {
        if let Some(Err(error)) = pool.check.as_ref().map(health::verify) {
            errors.push(LoadError::of_pool(pool, "check", error.file(), &error));
        }
    }
    errors.extend(congestion_errors(config));
    errors.extend(rights_errors(config));
    let tls = pools_tls(config, &mut errors);
    let pools = pools(config, known, &tls);
    let keys = sticky::load(config, &mut errors);
    let mut rules = Vec::new();
    for (place, listener) in config.listeners.iter().enumerate() {
        match ListenerSnapshot::build(listener, &pools) {
            Ok(built) => rules.push(built),
            Err(first) => errors.extend(listener_errors(place, listener, first)),
        }
    }
    if errors.is_empty() {
        Ok(LoadedConfig {
            pools,
            tls,
            rules,
            keys,
        })
    } else {
        Err(errors)
    }
}

/// Something that a part of a configuration needs and that cannot be used.
#[derive(Debug)]
pub(super) struct LoadError {
    /// The part, as it is called where no file is shown.
    part: String,
    finding: Finding,
}

impl LoadError {
    fn new(part: &str, key: String, file: Option<&Path>, what: &impl Display) -> LoadError {
        LoadError {
            part: part.to_owned(),
            finding: Finding {
                key,
                file: file.map(Path::to_owned),
                what: what.to_string(),
            },
        }
    }

    pub(super) fn of_pool(
        pool: &config::Pool,
        key: &str,
        file: Option<&Path>,
        what: &impl Display,
    ) -> LoadError {
        let part = format!("pool {}: {key}", pool.name);
        LoadError::new(&part, format!("pool.{}.{key}", pool.name), file, what)
    }
}

impl Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.finding.what)
    }
}

/// All that is wrong with the files of a listener, of which `first` was found.
fn listener_errors(place: usize, listener: &config::Listener, first: TlsError) -> Vec<LoadError> {
    let mut found = match &listener.tls {
        Some(ListenerTls::Terminate(settings)) => tls::TlsAcceptor::file_errors(settings),
        Some(ListenerTls::Passthrough) | None => Vec::new(),
    };
    if found.is_empty() {
        found.push(first);
    }
    let part = format!("listener {}", listener.name);
    let error = |error: &TlsError| {
        LoadError::new(&part, format!("listener[{place}].tls"), error.file(), error)
    };
    found.iter().map(error).collect()
}

/// What the kernel lets this process use is known only here, not to who reads the file.
fn congestion_errors(config: &Config) -> Vec<LoadError> {
    let listeners = config.listeners.iter().enumerate();
    let listeners = listeners.map(|(place, one)| {
        let part = format!("listener {}", one.name);
        (part, format!("listener[{place}]"), &one.tcp)
    });
    let pools = config.pools.values();
    let pools = pools.map(|one| {
        let part = format!("pool {}", one.name);
        (part, format!("pool.{}", one.name), &one.dial.tcp)
    });
    listeners
        .chain(pools)
        .filter_map(|(part, key, tcp)| {
            let refused = verify_congestion(tcp.congestion.as_deref()?).err()?;
            Some(LoadError::new(&part, key, None, &refused))
        })
        .collect()
}

/// Whom a unix socket's file is to belong to is known to this machine only.
fn rights_errors(config: &Config) -> Vec<LoadError> {
    let listeners = config.listeners.iter().enumerate();
    let listeners = listeners.map(|(place, one)| {
        let part = format!("listener {}", one.name);
        (part, format!("listener[{place}]"), &one.file)
    });
    let own = |part: &str| (part.to_owned(), part.to_owned());
    let admin = config.admin.iter().map(|one| (own("admin"), &one.file));
    let metrics = config.metrics.iter();
    let metrics = metrics.map(|one| (own("metrics"), &one.file));
    let endpoints = admin.chain(metrics);
    let endpoints = endpoints.map(|((part, key), file)| (part, key, file));
    let all = listeners.chain(endpoints);
    all.filter_map(|(part, key, file)| {
        let error = verify_rights(file).err()?;
        Some(LoadError::new(&part, key, None, &error))
    })
    .collect()
}

/// Reads what the `tls` of the pools names.
fn pools_tls(
    config: &Config,
    errors: &mut Vec<LoadError>,
) -> BTreeMap<String, Arc<BackendTlsConfig>> {
    let mut loaded = BTreeMap::new();
    for pool in config.pools.values() {
        match pool.tls.as_ref().map(BackendTlsConfig::load) {
            Some(Ok(tls)) => {
                loaded.insert(pool.name.clone(), Arc::new(tls));
            }
            Some(Err(error)) => {
                errors.push(LoadError::of_pool(pool, "tls", error.file(), &error));
            }
            None => {}
        }
    }
    loaded
}

/// A known pool is not touched, a new one is never without its TLS.
fn pools(config: &Config, known: &Pools, tls: &BTreeMap<String, Arc<BackendTlsConfig>>) -> Pools {
    let pool = |settings: &config::Pool| match known.get(&settings.name) {
        Some(pool) => Arc::clone(pool),
        None => {
            let pool = Pool::new(settings);
            pool.set_tls(tls.get(&settings.name).cloned());
            pool
        }
    };
    config
        .pools
        .iter()
        .map(|(name, settings)| (name.clone(), pool(settings)))
        .collect()
}

/// Notes what keeps `draft` from being served, as far as that can be told without binding anything:
/// loads every certificate, key, root, token and sticky key file. A provider of TLS primitives must
/// be installed (`tls::install_provider`).
pub fn verify(draft: &mut Draft) {
    let errors = match draft.config() {
        Some(config) => load_errors(config)
            .into_iter()
            .map(|error| error.finding)
            .collect(),
        None => unreadable(draft),
    };
    for error in errors {
        draft.refuse(&error);
    }
}

/// Where no model could be made: the files that cannot be opened.
fn unreadable(draft: &Draft) -> Vec<Finding> {
    let finding = |(key, file): (&str, &Path)| {
        let error = std::fs::File::open(file).err()?;
        Some(Finding {
            key: key.to_owned(),
            file: Some(file.to_owned()),
            what: format!("{}: {error}", file.display()),
        })
    };
    draft.files_to_read().filter_map(finding).collect()
}

fn load_errors(config: &Config) -> Vec<LoadError> {
    let mut errors = match load(config, &Pools::new()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors,
    };
    errors.extend(config.admin.iter().flat_map(admin_errors));
    errors
}

fn admin_errors(admin: &config::Admin) -> Vec<LoadError> {
    let error = |file, what: &dyn Display| LoadError::new("admin", "admin".to_owned(), file, &what);
    let mut errors = Vec::new();
    let files = admin.tokens.iter().map(|token| &token.file);
    for file in files.chain(&admin.token_file) {
        if let Err(refused) = std::fs::read(file) {
            let what = format!("read {}: {refused}", file.display());
            errors.push(error(Some(file), &what));
        }
    }
    if let Some(certificate) = &admin.tls {
        let settings = config::Terminate::with(vec![certificate.clone()]);
        let faults = tls::TlsAcceptor::file_errors(&settings);
        errors.extend(faults.iter().map(|one| error(one.file(), one)));
    }
    errors
}
