//! Floor 6: owns everything that runs.
//!
//! `Server::start` builds a configuration into relay threads, pools, listeners and their watchers, `Server::reload`
//! swaps in the next configuration all or nothing, `Server::run` answers signals until it is told to stop. Checks,
//! discovery and the admin endpoint run on a runtime of their own (`Server::watch`), so that a storm of handshakes
//! cannot starve them.

mod condition;
mod config_file;
mod control_runtime;
mod debounce;
mod failover;
mod follow;
pub mod jobs;
mod listeners;
mod live;
mod load;
mod operator;
mod pings;
mod pool_files;
mod pools;
mod preview;
mod rebalance;
mod reload;
mod reload_participant;
mod signals;
mod source;
mod status;
mod sticky;
mod stop;
#[cfg(test)]
mod tests;
mod tls_watch;
mod warnings;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use condition::Condition;
pub use load::verify;
pub use pool_files::PoolFileStatus;
pub use preview::{PreviewPart, ReloadPreview, Totals};
pub use reload_participant::{Commit, ReloadParticipant};
pub use signals::{Signal, Signals};
pub use source::{ConfigSource, SourceError};
pub use status::{ListenerState, ListenerStatus, ReloadStatus};
pub use warnings::{warn_of_binds, warn_of_files};

use crate::admission::Limits;
use crate::config::{self, Change, Config};
use crate::discovery;
use crate::observe::Journal;
use crate::pool::Pool;
use crate::proxy::{HandshakeLimiter, HardStop, Proxy, Relay};
use crate::relay::pipe_descriptors;
use crate::tls::TlsAcceptor;
use control_runtime::ControlRuntime;
use failover::FailoverStatus;
use jobs::Jobs;
use live::Live;

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
    /// Those that are of the file or of the files that it names, each with its line and a caret, as
    /// `check` draws them.
    pub drawn: Option<String>,
}

impl From<Vec<String>> for ReloadError {
    fn from(messages: Vec<String>) -> ReloadError {
        ReloadError {
            messages,
            drawn: None,
        }
    }
}

/// One running balancer; always in an `Arc`.
pub struct Server {
    source: ConfigSource,
    started_at: SystemTime,
    proxy: Arc<Proxy>,
    live: Mutex<Live>,
    /// Held through a whole reload: one at a time.
    reloading: Mutex<()>,
    reloads: Mutex<ReloadStatus>,
    /// The text last acted on, good or bad: the file watcher leaves it alone.
    attempted: Mutex<String>,
    followers: Mutex<Vec<Arc<dyn ReloadParticipant>>>,
    /// Whose files are followed beside those of the listeners.
    tls_above: Mutex<Vec<Weak<TlsAcceptor>>>,
    /// As of the latest look.
    pool_files: Mutex<Vec<PoolFileStatus>>,
    /// `global.watch`.
    watching: watch::Sender<bool>,
    /// Told of every configuration that begins to serve.
    committed: watch::Sender<()>,
    jobs: Jobs,
    failover: FailoverStatus,
    beside: ControlRuntime,
}

impl Server {
    /// Builds and binds everything in `config` and begins to serve. Call it inside a tokio runtime: the data path runs there.
    ///
    /// # Errors
    /// Names what could not be loaded or bound; nothing is left running.
    pub async fn start(config: Config, source: ConfigSource) -> Result<Arc<Server>, StartError> {
        let server = Server::prepare(&config, source)?;
        server.open().await?;
        Ok(server)
    }

    /// A server of `config` that serves nothing yet. What follows it from here on is part of its `open`: a follower that
    /// cannot go along (an admin port in use) fails the start before a connection is accepted. Call it inside a tokio runtime: the data path runs there.
    ///
    /// # Errors
    /// Threads or the access log could not be set up.
    pub fn prepare(config: &Config, source: ConfigSource) -> Result<Arc<Server>, StartError> {
        Ok(Arc::new(Server::new(config, source)?))
    }

    /// Loads and binds the configuration of a prepared server and begins to serve.
    ///
    /// # Errors
    /// Names what could not be loaded or bound; nothing of it is left running.
    pub async fn open(self: &Arc<Self>) -> Result<(), StartError> {
        let server = Arc::clone(self);
        let opened = self.watch().spawn_blocking(move || {
            let plan = server.plan((*server.config()).clone())?;
            server.commit(plan)
        });
        match opened.await {
            Ok(Ok(_)) => {
                self.follow_file();
                self.follow_tls_files();
                self.follow_balance();
                self.follow_health();
                Ok(())
            }
            Ok(Err(messages)) => Err(StartError(messages.join("\n"))),
            Err(error) => Err(StartError(format!("start: {error}"))),
        }
    }

    /// Everything but what the configuration describes.
    fn new(config: &Config, source: ConfigSource) -> Result<Server, StartError> {
        let failed = |what: &str, error: std::io::Error| StartError(format!("{what}: {error}"));
        let beside = ControlRuntime::start().map_err(|error| failed("start threads", error))?;
        let journal =
            Journal::new(&config.access_log).map_err(|error| StartError(error.to_string()))?;
        let relay = Relay::start(config.global.workers, config.global.max_buffered)
            .map_err(|error| failed("start relay threads", error))?;
        let proxy = Arc::new(Proxy {
            relay,
            journal,
            limits: Limits::new(&config.global, pipe_descriptors(config.global.workers)),
            handshakes: HandshakeLimiter::new(&config.global, Handle::current()),
            runtime: Handle::current(),
            stopping: CancellationToken::new(),
            hard_stop: HardStop::default(),
        });
        Ok(Server {
            attempted: Mutex::new(text_of(config, &source)),
            source,
            started_at: SystemTime::now(),
            proxy,
            live: Mutex::new(Live::new(Arc::new(config.clone()))),
            reloading: Mutex::default(),
            reloads: Mutex::default(),
            followers: Mutex::default(),
            tls_above: Mutex::default(),
            pool_files: Mutex::default(),
            watching: watch::Sender::new(config.global.watch),
            committed: watch::Sender::new(()),
            jobs: Jobs::default(),
            failover: FailoverStatus::default(),
            beside,
        })
    }

    /// The runtime of everything beside the data path: checks, discovery, admin.
    pub fn watch(&self) -> Handle {
        self.beside.handle()
    }

    /// Adds one that is asked at every reload, and at `open` if that is still to come.
    pub fn follow(&self, follower: Arc<dyn ReloadParticipant>) {
        lock(&self.followers).push(follower);
    }

    /// Reads the source again and swaps the new configuration in, all or nothing. Reloads are serialised; the work
    /// goes on to its end when this future is dropped.
    ///
    /// # Errors
    /// Every reason why nothing was changed.
    pub async fn reload(self: &Arc<Self>) -> Result<Vec<Change>, ReloadError> {
        self.reload_text(None, Vec::new()).await
    }

    /// The same, if all `conditions` hold of what it would do: they are judged on the very text that is then loaded, and no
    /// other reload comes in between.
    ///
    /// # Errors
    /// Every reason why nothing was changed, and every condition that does not hold.
    pub async fn reload_if(
        self: &Arc<Self>,
        conditions: Vec<Condition>,
    ) -> Result<Vec<Change>, ReloadError> {
        self.reload_text(None, conditions).await
    }

    async fn reload_text(
        self: &Arc<Self>,
        text: Option<String>,
        conditions: Vec<Condition>,
    ) -> Result<Vec<Change>, ReloadError> {
        let server = Arc::clone(self);
        let reload = move || server.reload_now(text, &conditions);
        match self.watch().spawn_blocking(reload).await {
            Ok(result) => result,
            Err(error) => Err(vec![format!("reload: {error}")].into()),
        }
    }

    /// What serves now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.live).config)
    }

    /// Where the configuration comes from.
    pub fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The pools of the present configuration by name, then those that a reload removed and that have live connections.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.live).pools()
    }

    /// The pool of that name, removed ones with live connections included.
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools().into_iter().find(|pool| **pool.name() == *name)
    }

    /// Whether a reload removed that pool.
    pub fn is_removed(&self, pool: &Pool) -> bool {
        lock(&self.live).is_removed(pool)
    }

    /// How the DNS lookups of that pool go.
    pub fn lookups(&self, pool: &str) -> Option<Arc<discovery::LookupStatus>> {
        let live = lock(&self.live);
        let running = live.pools.get(pool)?;
        Some(Arc::clone(&running.lookups))
    }

    /// The listeners in the order of the file.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        let live = lock(&self.live);
        let listening = live.listeners.iter();
        live.stopped.clone().unwrap_or_else(|| {
            listening
                .map(|listening| listeners::present(listening))
                .collect()
        })
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.proxy.journal
    }

    pub fn relay(&self) -> &Arc<Relay> {
        &self.proxy.relay
    }

    pub fn limits(&self) -> &Arc<Limits> {
        &self.proxy.limits
    }

    pub fn handshakes(&self) -> &HandshakeLimiter {
        &self.proxy.handshakes
    }

    /// New connections are accepted: true from `open` until it is stopping.
    pub fn ready(&self) -> bool {
        !lock(&self.live).listeners.is_empty()
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// How the reloads went so far.
    pub fn reloads(&self) -> ReloadStatus {
        lock(&self.reloads).clone()
    }
}

impl Drop for Server {
    /// The relay's threads hold nothing of the server and would outlive it.
    fn drop(&mut self) {
        self.proxy.relay.shutdown();
    }
}

/// A panic under a lock has left whole values behind: they are swapped, not edited.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text that `config` was made from; empty if the file has changed since, so that the watcher sees a change.
fn text_of(config: &Config, source: &ConfigSource) -> String {
    let text = source.read().unwrap_or_default();
    match config::parse(&text, source.file()) {
        Ok(parsed) if parsed == *config => text,
        _ => String::new(),
    }
}
