//! Turns a validated configuration into parts: pools, and each listener's rules with its certificates. Reads files,
//! opens no socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::sticky;
use crate::config::{self, Config};
use crate::health;
use crate::net::options::verify_congestion;
use crate::pool::Pool;
use crate::proxy::Rules;
use crate::tls::{self, Towards};

/// The pools by name.
pub(super) type Pools = BTreeMap<String, Arc<Pool>>;

/// What `load` made.
pub(super) struct Loaded {
    /// Every pool of the configuration; a known one is the same as before and has not been changed yet.
    pub pools: Pools,
    /// The TLS of each pool that has it.
    pub tls: BTreeMap<String, Arc<Towards>>,
    /// One per listener, in the order of the configuration.
    pub rules: Vec<Rules>,
    pub keys: sticky::Keys,
}

/// Loads everything that `config` names. Pools in `known` are kept.
///
/// # Errors
/// Every file that could not be used.
pub(super) fn load(config: &Config, known: &Pools) -> Result<Loaded, Vec<String>> {
    let mut errors = Vec::new();
    for pool in config.pools.values() {
        if let Some(Err(error)) = pool.check.as_ref().map(health::verify) {
            errors.push(format!("pool {}: check: {error}", pool.name));
        }
    }
    errors.extend(congestion_errors(config));
    let tls = pools_tls(config, &mut errors);
    let pools = pools(config, known, &tls);
    let keys = sticky::load(config, &mut errors);
    let mut rules = Vec::new();
    for listener in &config.listeners {
        match Rules::build(listener, &pools) {
            Ok(built) => rules.push(built),
            Err(error) => errors.push(format!("listener {}: {error}", listener.name)),
        }
    }
    if errors.is_empty() {
        Ok(Loaded {
            pools,
            tls,
            rules,
            keys,
        })
    } else {
        Err(errors)
    }
}

/// What the kernel lets this process use is known only here, not to who reads the file.
fn congestion_errors(config: &Config) -> Vec<String> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|one| (format!("listener {}", one.name), &one.tcp));
    let pools = config.pools.values();
    let pools = pools.map(|one| (format!("pool {}", one.name), &one.dial.tcp));
    listeners
        .chain(pools)
        .filter_map(|(whose, tcp)| {
            let refused = verify_congestion(tcp.congestion.as_deref()?).err()?;
            Some(format!("{whose}: {refused}"))
        })
        .collect()
}

/// Reads what the `tls` of the pools names.
fn pools_tls(config: &Config, errors: &mut Vec<String>) -> BTreeMap<String, Arc<Towards>> {
    let mut loaded = BTreeMap::new();
    for pool in config.pools.values() {
        match pool.tls.as_ref().map(Towards::load) {
            Some(Ok(tls)) => {
                loaded.insert(pool.name.clone(), Arc::new(tls));
            }
            Some(Err(error)) => errors.push(format!("pool {}: tls: {error}", pool.name)),
            None => {}
        }
    }
    loaded
}

/// A known pool is not touched, a new one is never without its TLS.
fn pools(config: &Config, known: &Pools, tls: &BTreeMap<String, Arc<Towards>>) -> Pools {
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

/// Whether `config` could be served, as far as that can be told without binding anything: loads every certificate, key, root,
/// token and sticky key file. A provider of TLS primitives must be installed (`tls::install_provider`).
///
/// # Errors
/// Every file that could not be used.
pub fn verify(config: &Config) -> Result<(), Vec<String>> {
    let mut errors = match load(config, &Pools::new()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors,
    };
    if let Some(admin) = &config.admin {
        errors.extend(verify_admin(admin));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn verify_admin(admin: &config::Admin) -> Vec<String> {
    let token = admin.token_file.as_deref().and_then(unreadable);
    let certificate = admin.tls.as_ref().and_then(|certificate| {
        let settings = config::Terminate::with(vec![certificate.clone()]);
        let loaded = tls::Terminator::load("admin", &settings, &[]);
        loaded.err().map(|error| error.to_string())
    });
    let errors = token.into_iter().chain(certificate);
    errors.map(|error| format!("admin: {error}")).collect()
}

fn unreadable(file: &Path) -> Option<String> {
    let error = std::fs::read(file).err()?;
    Some(format!("read {}: {error}", file.display()))
}
