//! The loop that watches files while `global.watch` is on.

use std::future::{Future, pending};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::pool::supervise;
use crate::server::state::Server;

/// Between two looks when no event comes. Two seconds are nothing to a certificate.
pub(super) const POLL: Duration = Duration::from_secs(2);
/// Until the next look where there are no files to look at; a reload comes first.
pub(super) const REST: Duration = Duration::from_secs(24 * 3600);

/// Files that are looked at again and again.
pub(super) trait FileWatcher: Send + 'static {
    /// Subject of the log when the watcher panics.
    const NAME: &str;

    /// Looks at the files and acts on changes. Returns the time until the next look.
    fn look(&mut self, server: &Arc<Server>) -> impl Future<Output = Duration> + Send;

    /// Returns when something may have changed before that time.
    ///
    /// # Cancel safety
    /// An event is lost at worst together with the wait for it: a look follows.
    fn event(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// `global.watch` was turned off.
    fn pause(&mut self) {}
}

/// Starts a watcher; it ends with the server.
pub(super) fn watch_files<W: FileWatcher>(
    server: &Arc<Server>,
    make: impl Fn() -> W + Send + 'static,
) {
    let (weak, committed) = (Arc::downgrade(server), server.committed.subscribe());
    let watch = move || follow(Weak::clone(&weak), committed.clone(), make());
    server
        .control_runtime()
        .spawn(supervise(W::NAME.to_owned(), watch));
}

async fn follow<W: FileWatcher>(
    server: Weak<Server>,
    mut committed: watch::Receiver<()>,
    mut files: W,
) {
    while let Some(running) = server.upgrade() {
        let is_on = *running.watching.borrow();
        let wait = if is_on {
            files.look(&running).await
        } else {
            files.pause();
            REST
        };
        drop(running);
        tokio::select! {
            () = sleep(wait) => {}
            () = files.event() => {}
            // After a reload there may be other files. Fails when the server is gone.
            _ = committed.changed() => {}
        }
    }
}
