//! Watchers: look at files and pools again and again, for as long as the server lives.
//!
//! `files` is the loop that watches files, of `config_file` and `tls_files`; `pools` is the loop
//! that watches pools, of `control::failover` and `control::rebalance`.

mod config_file;
pub(super) mod expiry;
mod files;
mod pool_files;
pub(super) mod pools;
mod tls_files;

use std::sync::Arc;

use self::config_file::ConfigFile;
use self::files::watch_files;
use self::tls_files::TlsFiles;
use super::reload::source::ConfigSource;
use super::state::Server;

/// Starts to watch the files; ends with the server.
pub(super) fn start(server: &Arc<Server>) {
    if let ConfigSource::File(file) = server.source() {
        let file = file.clone();
        watch_files(server, move || ConfigFile::new(file.clone()));
    }
    watch_files(server, TlsFiles::default);
    expiry::watch(server);
}
