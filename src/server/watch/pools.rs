//! The loop that watches pools.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::pool::{Pool, supervise};
use crate::server::state::Server;

/// Watch of one pool.
pub(in crate::server) trait PoolWatcher: Send + Sized + 'static {
    /// Subject of the log when the watcher panics.
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

/// Starts to watch the pools; ends with the server.
pub(in crate::server) fn watch_pools<W: PoolWatcher>(server: &Arc<Server>) {
    let (weak, committed) = (Arc::downgrade(server), server.committed.subscribe());
    let watch = move || follow::<W>(Weak::clone(&weak), committed.clone());
    server
        .control_runtime()
        .spawn(supervise(W::NAME.to_owned(), watch));
}

async fn follow<W: PoolWatcher>(server: Weak<Server>, mut committed: watch::Receiver<()>) {
    let mut watched: BTreeMap<Arc<str>, W> = BTreeMap::new();
    while let Some(running) = server.upgrade() {
        // A server that stops ends all sessions anyway, at its own pace.
        let is_ready = running.ready();
        if is_ready {
            look_at_all(&running, &mut watched).await;
        }
        drop(running);
        if is_ready && watched.is_empty() {
            // Until a reload no pool asks to be watched. Fails when the server is gone.
            let _ = committed.changed().await;
        } else {
            sleep(W::SPACING).await;
        }
    }
}

async fn look_at_all<W: PoolWatcher>(server: &Server, watched: &mut BTreeMap<Arc<str>, W>) {
    let mut before = std::mem::take(watched);
    for pool in server.pools() {
        let name = pool.name();
        let known = before.remove(name);
        let (goes_on, over) = match known {
            Some(known) if known.goes_on(server, &pool) => (Some(known), None),
            over => (W::begin(server, &pool), over),
        };
        if let Some(over) = over {
            over.end(server);
        }
        if let Some(mut watch) = goes_on {
            watch.look(server, &pool).await;
            watched.insert(Arc::clone(name), watch);
        }
    }
    for (_, over) in before {
        over.end(server);
    }
}
