//! Floor 6: owns everything that runs.
//!
//! `Server::start` builds a configuration into relay threads, pools, listeners and their watchers, `Server::reload`
//! swaps in the next configuration all or nothing, `Server::run` answers signals until it is told to stop. Checks,
//! discovery and the admin endpoint run on a runtime of their own (`Server::watch`), so that a storm of handshakes
//! cannot starve them.

mod follower;
mod settle;
mod source;
mod status;
mod watcher;

use std::sync::Arc;
use std::time::SystemTime;

pub use follower::{Commit, Follower};
pub use source::{Source, SourceError};
pub use status::{CertificateStatus, ListenerState, ListenerStatus, ReloadStatus};

use crate::config::{Change, Config};
use crate::discovery;
use crate::observe::Journal;
use crate::pool::Pool;

/// Why a server did not start. The message names the listener or file and what failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Why a reload changed nothing. What served before still serves.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .messages.join("\n"))]
pub struct ReloadError {
    /// Every reason found, at least one.
    pub messages: Vec<String>,
}

/// One running balancer; always in an `Arc`.
pub struct Server {
    config: arc_swap::ArcSwap<Config>,
    journal: Arc<Journal>,
    source: Source,
    started_at: SystemTime,
}

impl Server {
    /// Builds and binds everything in `config` and begins to serve. Call it inside a tokio runtime: the data path runs there.
    ///
    /// # Errors
    /// Names what could not be loaded or bound; nothing is left running.
    pub async fn start(config: Config, source: Source) -> Result<Arc<Server>, StartError> {
        let journal = Journal::new(&config.access_log)
            .map_err(|error| StartError(format!("access_log: {error}")))?;
        Ok(Arc::new(Server {
            config: arc_swap::ArcSwap::from_pointee(config),
            journal,
            source,
            started_at: SystemTime::now(),
        }))
    }

    /// The runtime of everything beside the data path: checks, discovery, admin.
    pub fn watch(&self) -> tokio::runtime::Handle {
        tokio::runtime::Handle::current()
    }

    /// Adds one that is asked at every reload. It has already been set up from the present configuration.
    pub fn follow(&self, _follower: Arc<dyn Follower>) {}

    /// Reads the source again and swaps the new configuration in, all or nothing. Reloads are serialised; the work
    /// goes on to its end when this future is dropped.
    ///
    /// # Errors
    /// Every reason why nothing was changed.
    pub async fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        Ok(Vec::new())
    }

    /// What serves now.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Where the configuration comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The pools of the present configuration by name, then those that a reload removed and that have live connections.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        Vec::new()
    }

    /// The pool of that name, removed ones with live connections included.
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools().into_iter().find(|pool| **pool.name() == *name)
    }

    /// Whether a reload removed that pool.
    pub fn is_removed(&self, _pool: &Pool) -> bool {
        false
    }

    /// How the DNS lookups of that pool go.
    pub fn lookups(&self, _pool: &str) -> Option<Arc<discovery::Status>> {
        None
    }

    /// The listeners in the order of the file.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        Vec::new()
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// False once it is stopping: new connections are not accepted any more.
    pub fn ready(&self) -> bool {
        true
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// How the reloads went so far.
    pub fn reloads(&self) -> ReloadStatus {
        ReloadStatus::default()
    }
}
