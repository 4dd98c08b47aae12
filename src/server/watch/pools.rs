//! Watches pools, one by one.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::watcher::Watcher;
use crate::pool::Pool;
use crate::server::state::Server;

/// Watch of one pool.
pub(in crate::server) trait PoolWatcher: Send + Sized + 'static {
    /// Name in the log when the watcher panics.
    const NAME: &str;
    /// Time between two looks.
    const SPACING: Duration;

    /// Begins to watch a pool, if its settings ask for it.
    fn begin(server: &Server, pool: &Arc<Pool>) -> Option<Self>;

    /// Whether this is the watch of `pool`, and goes on.
    fn goes_on(&self, server: &Server, pool: &Arc<Pool>) -> bool;

    /// Looks at the pool and acts on what is there.
    fn look(&mut self, server: &Server, pool: &Arc<Pool>) -> impl Future<Output = ()> + Send;

    /// Ends the watch: the pool is gone, or its settings do not ask for it any more.
    fn end(self, server: &Server);
}

/// The pools that `W` watches, by name.
pub(in crate::server) struct WatchedPools<W>(BTreeMap<Arc<str>, W>);

impl<W> Default for WatchedPools<W> {
    fn default() -> WatchedPools<W> {
        WatchedPools(BTreeMap::new())
    }
}

impl<W: PoolWatcher> Watcher for WatchedPools<W> {
    const NAME: &str = W::NAME;

    async fn look(&mut self, server: &Arc<Server>) -> Option<Duration> {
        // A server that stops ends all sessions anyway, at its own pace.
        if !server.accepts() {
            return Some(W::SPACING);
        }
        let mut before = std::mem::take(&mut self.0);
        for pool in server.pools() {
            let name = pool.name();
            let (goes_on, over) = match before.remove(name) {
                Some(known) if known.goes_on(server, &pool) => (Some(known), None),
                over => (W::begin(server, &pool), over),
            };
            if let Some(over) = over {
                over.end(server);
            }
            if let Some(mut watch) = goes_on {
                watch.look(server, &pool).await;
                self.0.insert(Arc::clone(name), watch);
            }
        }
        before.into_values().for_each(|over| over.end(server));
        (!self.0.is_empty()).then_some(W::SPACING)
    }
}
