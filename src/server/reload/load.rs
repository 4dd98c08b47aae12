//! Turns a validated configuration into its parts: pools, and the snapshot of each listener with
//! its certificates. Reads files, opens no socket.

use std::sync::Arc;

use super::load_error::LoadError;
use crate::cluster;
use crate::config::{
    self, BackendTls, Bind, Config, DiscoverSource, FileRights, ListenerTls, Sticky, TcpOptions,
};
use crate::discovery;
use crate::health;
use crate::net::options::verify_congestion;
use crate::net::verify_rights;
use crate::pool::Pool;
use crate::proxy::ListenerSnapshot;
use crate::server::pool_file::{LoadedFiles, PoolFile};
use crate::server::pools::Pools;
use crate::server::traces;
use crate::tls::{TlsAcceptor, TlsError};

/// Parts that `load` made.
pub(super) struct LoadedConfig {
    /// Every pool of the configuration; a known one is the same as before and not changed yet.
    pub pools: Pools,
    pub tls: LoadedFiles<BackendTls>,
    pub sticky: LoadedFiles<Sticky>,
    /// Snapshots of the listeners, in the order of the configuration.
    pub snapshots: Vec<ListenerSnapshot>,
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
    errors.extend(registry_errors(config));
    if let Some(Err((file, error))) = config.cluster.as_ref().map(cluster::verify) {
        let key = "cluster".to_owned();
        errors.push(LoadError::new("cluster", key, file.as_deref(), &error));
    }
    errors.extend(congestion_errors(config));
    errors.extend(rights_errors(config));
    errors.extend(traces_error(config));
    let tls = load_files::<BackendTls>(config, &mut errors);
    let pools = pools(config, known, &tls);
    let sticky = load_files::<Sticky>(config, &mut errors);
    let mut snapshots = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        match ListenerSnapshot::build(listener, &pools) {
            Ok(built) => snapshots.push(built),
            Err(first) => errors.extend(listener_errors(index, listener, first)),
        }
    }
    if errors.is_empty() {
        Ok(LoadedConfig {
            pools,
            tls,
            sticky,
            snapshots,
        })
    } else {
        Err(errors)
    }
}

/// All errors of the files of a listener, of which `first` was found.
fn listener_errors(index: usize, listener: &config::Listener, first: TlsError) -> Vec<LoadError> {
    let mut found = match &listener.tls {
        Some(ListenerTls::Terminate(settings)) => TlsAcceptor::file_errors(settings),
        Some(ListenerTls::Passthrough) | None => Vec::new(),
    };
    if found.is_empty() {
        found.push(first);
    }
    let part = format!("listener {}", listener.name);
    let error = |error: &TlsError| {
        LoadError::new(&part, format!("listener[{index}].tls"), error.file(), error)
    };
    found.iter().map(error).collect()
}

/// Files of registries that cannot be used.
fn registry_errors(config: &Config) -> Vec<LoadError> {
    let pools = config.pools.values();
    let errors = pools.filter_map(|pool| match &pool.discover.as_ref()?.source {
        DiscoverSource::Registry(registry) => {
            let (file, error) = discovery::verify(registry).err()?;
            Some(LoadError::of_pool(
                pool,
                "discover",
                file.as_deref(),
                &error,
            ))
        }
        DiscoverSource::Dns { .. } | DiscoverSource::Srv { .. } => None,
    });
    errors.collect()
}

/// Congestion control algorithms that this kernel does not let this process use.
fn congestion_errors(config: &Config) -> Vec<LoadError> {
    let listeners = listeners(config).map(|(part, key, one)| (part, key, &one.tcp));
    let pools = config.pools.values().map(|one| {
        let part = format!("pool {}", one.name);
        (part, format!("pool.{}", one.name), &one.dial.tcp)
    });
    let error = |(part, key, tcp): (String, String, &TcpOptions)| {
        let refused = verify_congestion(tcp.congestion.as_deref()?).err()?;
        Some(LoadError::new(&part, key, None, &refused))
    };
    listeners.chain(pools).filter_map(error).collect()
}

/// Owners of unix sockets' files that this machine does not know.
fn rights_errors(config: &Config) -> Vec<LoadError> {
    let error = |(part, key, _, file): (String, String, _, &FileRights)| {
        let error = verify_rights(file).err()?;
        Some(LoadError::new(&part, key, None, &error))
    };
    sockets(config).filter_map(error).collect()
}

/// A file of the traces that cannot be used.
fn traces_error(config: &Config) -> Option<LoadError> {
    let error = traces::verify(config.traces.as_ref()?).err()?;
    let (part, key) = ("traces", "traces".to_owned());
    Some(LoadError::new(part, key, error.file.as_deref(), &error))
}

/// Part, key, address and rights of each socket that a configuration binds.
pub(in crate::server) fn sockets(
    config: &Config,
) -> impl Iterator<Item = (String, String, &Bind, &FileRights)> {
    let listeners = listeners(config).map(|(part, key, one)| (part, key, &one.bind, &one.file));
    let admin = config
        .admin
        .iter()
        .map(|one| ("admin", &one.bind, &one.file));
    let metrics = config
        .metrics
        .iter()
        .map(|one| ("metrics", &one.bind, &one.file));
    let endpoints = admin.chain(metrics);
    listeners.chain(endpoints.map(|(key, bind, file)| (key.to_owned(), key.to_owned(), bind, file)))
}

/// Each listener with its name as a part and its key.
fn listeners(config: &Config) -> impl Iterator<Item = (String, String, &config::Listener)> {
    let listeners = config.listeners.iter().enumerate();
    listeners.map(|(index, one)| {
        let part = format!("listener {}", one.name);
        (part, format!("listener[{index}]"), one)
    })
}

/// Loads the files of one kind of all pools.
fn load_files<F: PoolFile>(config: &Config, errors: &mut Vec<LoadError>) -> LoadedFiles<F> {
    let mut loaded = LoadedFiles::<F>::new();
    for pool in config.pools.values() {
        match F::of(pool).map(F::load) {
            Some(Ok(files)) => {
                loaded.insert(pool.name.clone(), Arc::new(files));
            }
            Some(Err((file, error))) => {
                errors.push(LoadError::of_pool(pool, F::KEY, file.as_deref(), &error));
            }
            None => {}
        }
    }
    loaded
}

/// The pools of `config`. A known pool is not touched, a new one is never without its TLS.
fn pools(config: &Config, known: &Pools, tls: &LoadedFiles<BackendTls>) -> Pools {
    let pool = |settings: &config::Pool| match known.get(&settings.name) {
        Some(pool) => Arc::clone(pool),
        None => {
            let pool = Pool::new(settings);
            pool.set_tls(tls.get(&settings.name).cloned());
            pool
        }
    };
    let all = config.pools.iter();
    all.map(|(name, settings)| (name.clone(), pool(settings)))
        .collect()
}
