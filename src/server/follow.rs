//! Follows the configuration file while `global.watch` is on, and reloads each settled text once.

use std::sync::Arc;

use super::watcher::Watcher;
use super::{Server, Source, lock};

impl Server {
    /// Runs for ever; does nothing for an embedded configuration.
    pub(super) async fn follow_file(self: Arc<Self>) {
        let Source::File(file) = self.source.clone() else {
            return;
        };
        let mut on = self.watching.subscribe();
        // `wait_for` fails only when the sender is gone, and the server holds it.
        while on.wait_for(|on| *on).await.is_ok() {
            let watcher = Watcher::start(&file);
            tokio::select! {
                () = self.reload_settled(watcher) => {}
                _ = on.wait_for(|on| !*on) => {}
            }
        }
    }

    /// Cancel safe: a reload that has begun goes on to its end.
    async fn reload_settled(self: &Arc<Self>, mut watcher: Watcher) {
        loop {
            let text = watcher.settled(|| lock(&self.attempted).clone()).await;
            // The result was logged and counted.
            let _ = self.reload_text(Some(text)).await;
        }
    }
}
