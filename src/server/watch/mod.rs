//! Watchers: look at files and pools again and again, for as long as the server lives.
//!
//! `watcher` is the loop of all, `watched_files` the events and polls of files. `config_file` and
//! `tls_files` watch files while `global.watch` is on; `pools` watches pools for
//! `control::failover` and `control::rebalance`.

mod config_file;
pub(super) mod expiry;
mod pool_files;
pub(super) mod pools;
mod tls_files;
mod watched_files;
pub(super) mod watcher;

use std::sync::Arc;

use self::config_file::ConfigFile;
use self::tls_files::TlsFiles;
use self::watcher::watch;
use super::state::Server;

/// Starts to watch the files; ends with the server.
pub(super) fn start(server: &Arc<Server>) {
    let file = server.source().file().to_owned();
    watch(server, move || ConfigFile::new(file.clone()));
    let committed = server.committed.subscribe();
    watch(server, move || TlsFiles::new(committed.clone()));
    expiry::watch(server);
}
