//! Second half of a reload: swaps everything in at once, and closes what is left over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::prepare::PreparedReload;
use crate::config::{self, BackendTls, Change, Config, Sticky};
use crate::server::listeners;
use crate::server::lock::lock;
use crate::server::pool_file::give_all;
use crate::server::pools::RunningPool;
use crate::server::state::Server;

impl Server {
    /// Makes a prepared configuration the one in force. Blocks: not for a thread of a runtime.
    ///
    /// # Errors
    /// Only that the server is stopping.
    pub(in crate::server) fn commit(
        &self,
        prepared: PreparedReload,
    ) -> Result<Vec<Change>, Vec<String>> {
        let mut live = lock(&self.live);
        if live.stopped.is_some() {
            return Err(vec!["the server is stopping".to_owned()]);
        }
        let PreparedReload { config, pools, .. } = &prepared;
        self.reconcile_pools(pools.values());
        let grace = longest_handshake_timeout(&live.config);
        self.limits().apply(&config.global);
        self.journal().tracer().apply(config.traces.as_ref());
        self.proxy.handshakes.apply(&config.global);
        self.relay().set_max_held(config.global.max_buffered);
        warn_unverified(config, &live.pools);
        give_all::<BackendTls>(pools, &prepared.tls);
        give_all::<Sticky>(pools, &prepared.sticky);
        let config = Arc::clone(config);
        let start = |pool| RunningPool::start(pool, self.relay(), &self.sources, self.runtimes());
        let removed = live.swap_pools(prepared.pools, prepared.started, &config, start);
        live.retire(removed, grace, &self.control_runtime());
        let before = std::mem::take(&mut live.listeners);
        live.listeners = {
            let first = |name: &str| self.first_listener(name);
            prepared.listeners.apply(&before, &self.proxy, first)
        };
        let left = listeners::left_over(before, &live.listeners);
        let now = live.listeners.clone();
        live.config = Arc::clone(&config);
        drop(live);
        self.take_over_totals();
        if let Some(journal) = prepared.journal {
            self.journal().apply(journal);
        }
        for commit in prepared.participants {
            commit();
        }
        self.watching.send_replace(config.global.watch);
        self.committed.send_replace(());
        // Waited for: a client that reads the answer may rely on the old addresses being closed.
        self.proxy.runtime.block_on(listeners::stop(left, &now));
        Ok(prepared.changes)
    }
}

/// Warns about each pool that begins to use TLS without verifying the certificates of its backends.
fn warn_unverified(new: &Config, running: &BTreeMap<String, RunningPool>) {
    let unverified = |pool: &config::Pool| pool.tls.as_ref().is_some_and(|tls| !tls.verify);
    for (name, _) in new.pools.iter().filter(|(_, pool)| unverified(pool)) {
        let before = running.get(name);
        if !before.is_some_and(|before| unverified(&before.pool.settings())) {
            tracing::warn!(pool = %name, "tls.verify = false: backend certificates are not verified");
        }
    }
}

/// How long a connection accepted just now may still need to reach its pool.
fn longest_handshake_timeout(config: &Config) -> Duration {
    let timeouts = config.listeners.iter();
    timeouts
        .map(|listener| listener.handshake_timeout)
        .max()
        .unwrap_or_default()
}
