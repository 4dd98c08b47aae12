//! The loop of every watcher: looks, waits, and looks again, for as long as the server lives.

use std::future::{Future, pending};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch::Receiver;

use crate::net::rest;
use crate::pool::supervise;
use crate::server::state::Server;

/// Looks at something again and again, and acts on changes.
pub(in crate::server) trait Watcher: Send + 'static {
    /// Name in the log when the watcher panics.
    const NAME: &str;

    /// Looks and acts on changes. Returns the time until the next look; `None`: there is nothing to
    /// be watched before a reload.
    fn look(&mut self, server: &Arc<Server>) -> impl Future<Output = Option<Duration>> + Send;

    /// Returns when something may have changed before that time.
    ///
    /// # Cancel safety
    /// An event is lost at worst together with the wait for it: a look follows.
    fn event(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// Starts the watcher that `make` makes; it ends with the server.
pub(in crate::server) fn watch<W: Watcher>(
    server: &Arc<Server>,
    make: impl Fn() -> W + Send + 'static,
) {
    let (weak, committed) = (Arc::downgrade(server), server.committed.subscribe());
    let looks = move || look_on(Weak::clone(&weak), committed.clone(), make());
    let runtime = server.control_runtime();
    runtime.spawn(supervise(W::NAME.to_owned(), looks));
}

async fn look_on(server: Weak<Server>, mut committed: Receiver<()>, mut watcher: impl Watcher) {
    while let Some(running) = server.upgrade() {
        let wait = watcher.look(&running).await;
        drop(running);
        let Some(wait) = wait else {
            // Fails when the server is gone.
            let _ = committed.changed().await;
            continue;
        };
        tokio::select! {
            () = rest(wait) => {}
            () = watcher.event() => {}
        }
    }
}
