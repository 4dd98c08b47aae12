//! First half of a reload: does all that can fail, and changes nothing of what serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::load::load;
use super::participant::Commit;
use crate::config::{self, Action, BackendTls, Change, Config, Item, Sticky};
use crate::observe;
use crate::server::listeners::ListenersPlan;
use crate::server::lock::lock;
use crate::server::pool_file::{LoadedFiles, renewed};
use crate::server::pools::{self, Pools, RunningPool};
use crate::server::state::Server;

/// A configuration that is ready to be swapped in. Dropping it closes the sockets that it bound.
pub(in crate::server) struct PreparedReload {
    pub config: Arc<Config>,
    pub changes: Vec<Change>,
    pub pools: Pools,
    pub tls: LoadedFiles<BackendTls>,
    pub sticky: LoadedFiles<Sticky>,
    /// The new ones of `pools`: checked and looked up already.
    pub started: BTreeMap<String, RunningPool>,
    pub listeners: ListenersPlan,
    pub journal: Option<observe::Prepared>,
    pub participants: Vec<Commit>,
}

impl Server {
    /// Loads and binds what `config` needs, beside what runs.
    ///
    /// # Errors
    /// Everything that could not be loaded; if all could, everything that could not be bound or
    /// prepared.
    pub(in crate::server) fn prepare(&self, config: Config) -> Result<PreparedReload, Vec<String>> {
        let (old, known, present) = {
            let live = lock(&self.live);
            (
                Arc::clone(&live.config),
                live.known_pools(),
                live.listeners.clone(),
            )
        };
        let loaded = load(&config, &known)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut listeners = ListenersPlan::new(&present, loaded.snapshots)?;
        let mut changes = config::diff(&old, &config);
        let certificates = std::mem::take(&mut listeners.renewed).into_iter();
        let renewed_listener = |name| Item::Listener(name).becomes(Action::CertificatesRenewed);
        changes.extend(certificates.map(renewed_listener));
        changes.extend(renewed::<BackendTls>((&old, &config), &loaded.tls, &known));
        changes.extend(renewed::<Sticky>((&old, &config), &loaded.sticky, &known));
        let journal = prepare_journal(&old, &config)?;
        self.take_over_pools(&loaded.pools);
        let started = self.start_new_pools(&loaded.pools, &known);
        let participants = self.prepare_participants(&config)?;
        listeners.listen()?;
        Ok(PreparedReload {
            journal,
            participants,
            started,
            pools: loaded.pools,
            tls: loaded.tls,
            sticky: loaded.sticky,
            listeners,
            config: Arc::new(config),
            changes,
        })
    }

    /// Starts the pools that are not known and waits for their first addresses.
    fn start_new_pools(&self, wanted: &Pools, known: &Pools) -> BTreeMap<String, RunningPool> {
        let new = wanted.iter().filter(|(name, _)| !known.contains_key(*name));
        let started: BTreeMap<_, _> = new
            .map(|(name, pool)| {
                let running = RunningPool::start(
                    Arc::clone(pool),
                    self.relay(),
                    &self.sources,
                    self.runtimes(),
                );
                (name.clone(), running)
            })
            .collect();
        self.control_runtime()
            .block_on(pools::resolved(started.values()));
        started
    }

    fn prepare_participants(&self, config: &Config) -> Result<Vec<Commit>, Vec<String>> {
        let participants = lock(&self.participants).clone();
        let prepared = participants.iter().map(|one| one.prepare(config));
        prepared
            .collect::<Result<_, _>>()
            .map_err(|error| vec![error])
    }
}

fn prepare_journal(old: &Config, new: &Config) -> Result<Option<observe::Prepared>, Vec<String>> {
    if old.access_log == new.access_log {
        return Ok(None);
    }
    let prepared = observe::Journal::prepare(&new.access_log);
    prepared.map(Some).map_err(|error| vec![error.to_string()])
}
