//! From one configuration to the next: read -> parse -> load -> bind -> swap, all or nothing.
//!
//! `plan` does all that can fail and changes nothing; `commit` cannot fail and swaps everything in at once. The first
//! configuration takes the same way, from nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::load::{Pools, load, verify};
use super::pools::{self, RunningPool};
use super::reload_participant::Commit;
use super::{Condition, ReloadError, Server, listeners, lock, sticky};
use crate::config::{self, Action, Change, Config, ConfigErrors, Draft, Item};
use crate::observe;
use crate::tls::BackendTlsConfig;

/// A configuration that is ready to be swapped in. Dropping it closes the sockets that it bound.
pub(super) struct ReloadPlan {
    config: Arc<Config>,
    changes: Vec<Change>,
    pools: Pools,
    tls: BTreeMap<String, Arc<BackendTlsConfig>>,
    keys: sticky::Keys,
    /// Those of `pools` that are new: checked and looked up already.
    started: BTreeMap<String, RunningPool>,
    listeners: Vec<listeners::ListenerChange>,
    journal: Option<observe::Prepared>,
    followers: Vec<Commit>,
}

impl Server {
    /// Reloads `text`, or what the source has now. Blocks; one at a time.
    pub(super) fn reload_now(
        &self,
        text: Option<String>,
        conditions: &[Condition],
    ) -> Result<Vec<Change>, ReloadError> {
        let _one_at_a_time = lock(&self.reloading);
        let result = self.try_reload(text, conditions);
        let now = SystemTime::now();
        match &result {
            Ok(changes) => {
                lock(&self.reloads).succeeded(now);
                self.tell_changes(changes);
            }
            Err(refused) => {
                lock(&self.reloads).failed(now, refused.messages.join("\n"));
                self.tell_refusal(&refused.messages);
            }
        }
        result
    }

    fn try_reload(
        &self,
        text: Option<String>,
        conditions: &[Condition],
    ) -> Result<Vec<Change>, ReloadError> {
        let text = match text {
            Some(text) => text,
            None => {
                let read = self.source.read();
                read.map_err(|error| vec![error.to_string()])?
            }
        };
        lock(&self.attempted).clone_from(&text);
        let draft = || Draft::read(&text, self.source.file());
        let config = draft().finish().map_err(|errors| ReloadError {
            messages: lines(&errors),
            drawn: Some(errors.to_string()),
        })?;
        let objections = self.objections(conditions, &config);
        if !objections.is_empty() {
            return Err(objections.into());
        }
        let plan = self.plan(config).map_err(|messages| ReloadError {
            messages,
            drawn: drawn_by_check(draft()),
        })?;
        Ok(self.commit(plan)?)
    }

    /// Loads and binds what `config` needs beside what runs.
    ///
    /// # Errors
    /// Everything that could not be loaded; if all could, everything that could not be bound or prepared.
    pub(super) fn plan(&self, config: Config) -> Result<ReloadPlan, Vec<String>> {
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
        let mut listeners = listeners::plan(&present, loaded.rules)?;
        let renewed = std::mem::take(&mut listeners.renewed).into_iter();
        let mut changes = config::diff(&old, &config);
        changes
            .extend(renewed.map(|name| Item::Listener(name).becomes(Action::CertificatesRenewed)));
        changes.extend(renewed_tls(&old, &config, &known, &loaded.tls));
        changes.extend(sticky::renewed(&old, &config, &loaded.keys, &known));
        let journal = prepare_journal(&old, &config)?;
        let started = self.start_new(&loaded.pools, &known);
        let followers = self.prepare_followers(&config)?;
        listeners.listen()?;
        Ok(ReloadPlan {
            keys: loaded.keys,
            journal,
            followers,
            started,
            pools: loaded.pools,
            tls: loaded.tls,
            listeners: listeners.steps,
            config: Arc::new(config),
            changes,
        })
    }

    /// Starts the pools that are not known and waits for their first addresses.
    fn start_new(&self, wanted: &Pools, known: &Pools) -> BTreeMap<String, RunningPool> {
        let watch = self.watch();
        let new = wanted.iter().filter(|(name, _)| !known.contains_key(*name));
        let started: BTreeMap<_, _> = new
            .map(|(name, pool)| {
                (
                    name.clone(),
                    RunningPool::start(Arc::clone(pool), &self.proxy.relay, &watch),
                )
            })
            .collect();
        watch.block_on(pools::resolved(started.values()));
        started
    }

    fn prepare_followers(&self, config: &Config) -> Result<Vec<Commit>, Vec<String>> {
        let followers = lock(&self.followers).clone();
        let prepared = followers.iter().map(|follower| follower.prepare(config));
        prepared
            .collect::<Result<_, _>>()
            .map_err(|error| vec![error])
    }

    /// Swaps the plan in and closes what is left over. Blocks: not for a thread of a runtime.
    ///
    /// # Errors
    /// Only that the server is stopping.
    pub(super) fn commit(&self, plan: ReloadPlan) -> Result<Vec<Change>, Vec<String>> {
        let mut live = lock(&self.live);
        if live.stopped.is_some() {
            return Err(vec!["the server is stopping".to_owned()]);
        }
        let grace = longest_set_up(&live.config);
        self.proxy.limits.apply(&plan.config.global);
        self.proxy.handshakes.apply(&plan.config.global);
        self.relay().set_max_held(plan.config.global.max_buffered);
        tell_unverified(&plan.config, &live.pools);
        for (name, pool) in &plan.pools {
            pool.set_tls(plan.tls.get(name).cloned());
        }
        sticky::apply(&plan.pools, &plan.keys);
        let (relay, watch) = (&self.proxy.relay, self.watch());
        live.swap_pools(plan.pools, plan.started, &plan.config, grace, relay, &watch);
        let before = std::mem::take(&mut live.listeners);
        live.listeners = listeners::apply(plan.listeners, &before, &self.proxy);
        let left = listeners::left_over(before, &live.listeners);
        let now = live.listeners.clone();
        live.config = Arc::clone(&plan.config);
        drop(live);
        if let Some(prepared) = plan.journal {
            self.proxy.journal.apply(prepared);
        }
        for commit in plan.followers {
            commit();
        }
        self.watching.send_replace(plan.config.global.watch);
        self.committed.send_replace(());
        // Waited for: whoever gets the answer may rely on the old addresses being closed.
        self.proxy.runtime.block_on(listeners::stop(left, &now));
        Ok(plan.changes)
    }

    fn tell_changes(&self, changes: &[Change]) {
        for change in changes {
            tracing::info!(%change, "reload");
        }
        let file = self.source.file().display();
        tracing::info!(%file, changes = changes.len(), "reloaded");
    }

    fn tell_refusal(&self, messages: &[String]) {
        for error in messages {
            tracing::error!(%error, "reload refused");
        }
        let file = self.source.file().display();
        tracing::error!(%file, errors = messages.len(), "reload refused, the present configuration goes on");
    }
}

/// What `check` would say of the files that a sound text names. `None`: nothing, so an address or
/// the like is at fault.
fn drawn_by_check(mut draft: Draft) -> Option<String> {
    verify(&mut draft);
    let errors = draft.finish().err()?;
    Some(errors.to_string())
}

/// The pools whose files of `tls` have another content under the same names.
fn renewed_tls(
    old: &Config,
    new: &Config,
    known: &Pools,
    loaded: &BTreeMap<String, Arc<BackendTlsConfig>>,
) -> Vec<Change> {
    let is_renewed = |name: &String, tls: &Arc<BackendTlsConfig>| {
        let settings = |config: &Config| config.pools.get(name).and_then(|pool| pool.tls.clone());
        let before = known.get(name).and_then(|pool| pool.tls());
        settings(old) == settings(new) && before.is_some_and(|before| before != *tls)
    };
    let renewed = loaded.iter().filter(|(name, tls)| is_renewed(name, tls));
    renewed
        .map(|(name, _)| Item::Pool(name.clone()).becomes(Action::BackendTlsRenewed))
        .collect()
}

/// Warns about each pool that begins to take whoever answers for its nodes.
fn tell_unverified(new: &Config, running: &BTreeMap<String, RunningPool>) {
    let unverified = |pool: &config::Pool| pool.tls.as_ref().is_some_and(|tls| !tls.verify);
    for (name, _) in new.pools.iter().filter(|(_, pool)| unverified(pool)) {
        let before = running.get(name);
        if !before.is_some_and(|before| unverified(&before.pool.settings())) {
            tracing::warn!(pool = %name, "tls.verify = false: whoever answers at the address of a backend is believed");
        }
    }
}

/// Each error on one line, with its place.
pub(super) fn lines(errors: &ConfigErrors) -> Vec<String> {
    let file = errors.file();
    let messages = errors.messages().into_iter();
    messages
        .map(|found| {
            let key = match found.key.as_str() {
                "" => String::new(),
                key => format!("{key}: "),
            };
            let (line, column, message) = (found.line, found.column, found.message);
            format!("{file}:{line}:{column}: {key}{message}")
        })
        .collect()
}

fn prepare_journal(old: &Config, new: &Config) -> Result<Option<observe::Prepared>, Vec<String>> {
    if old.access_log == new.access_log {
        return Ok(None);
    }
    match observe::Journal::prepare(&new.access_log) {
        Ok(prepared) => Ok(Some(prepared)),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// How long a connection accepted just now may still need to reach its pool.
fn longest_set_up(config: &Config) -> Duration {
    let timeouts = config.listeners.iter();
    timeouts
        .map(|listener| listener.handshake_timeout)
        .max()
        .unwrap_or_default()
}
