//! Follows the configuration file while `global.watch` is on, and reloads each settled text once.

use std::path::Path;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::config_file::Watcher;
use super::{ConfigSource, Server, lock};

impl Server {
    /// Starts to follow; ends with the server. Nothing to do for an embedded configuration.
    pub(super) fn follow_file(self: &Arc<Self>) {
        if let ConfigSource::File(file) = &self.source {
            let (file, server, on) = (
                file.clone(),
                Arc::downgrade(self),
                self.watching.subscribe(),
            );
            self.watch()
                .spawn(async move { follow(&file, server, on).await });
        }
    }
}

async fn follow(file: &Path, server: Weak<Server>, mut on: watch::Receiver<bool>) {
    // Fails when the server is gone.
    while on.wait_for(|on| *on).await.is_ok() {
        let server_is_gone = tokio::select! {
            () = reload_settled(Watcher::start(file), &server) => true,
            // Fails when the sender is gone, while the last value still says to follow.
            off = on.wait_for(|on| !*on) => off.is_err(),
        };
        if server_is_gone {
            return;
        }
    }
}

/// Cancel safe: a reload that has begun goes on to its end.
async fn reload_settled(mut watcher: Watcher, server: &Weak<Server>) {
    loop {
        let acted = || match server.upgrade() {
            Some(server) => lock(&server.attempted).clone(),
            None => String::new(),
        };
        let text = watcher.settled(acted).await;
        let Some(server) = server.upgrade() else {
            return;
        };
        // The result was logged and counted.
        let _ = server.reload_text(Some(text), Vec::new()).await;
    }
}
