//! Start of a server: from a configuration to listeners that accept.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::control::failover::guards::FailoverGuards;
use super::control::jobs::Jobs;
use super::control_runtime::ControlRuntime;
use super::lifecycle::LifecycleSender;
use super::live::Live;
use super::lock::lock;
use super::reload::in_force::ConfigurationInForce;
use super::reload::participant::ReloadParticipant;
use super::reload::source::ConfigSource;
use super::state::Server;
use super::upgrade::OldProcess;
use super::upgrade::progress::Upgrades;
use super::{control, traces, watch as watchers};
use crate::admission::Limits;
use crate::config::{self, Config};
use crate::observe::Journal;
use crate::proxy::{HandshakeLimiter, HardStop, IdleConnections, Proxy};
use crate::relay::{Relay, pipe_descriptors};

/// Why a server did not start. The message names the listener or file and what failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StartError(pub String);

impl Server {
    /// A server of `config` that serves nothing yet: [`Server::open`] lets it. Participants that
    /// are added in between take part in that: one that cannot go along (an admin port in use)
    /// fails the start before a connection is accepted. Call it inside a tokio runtime: the data
    /// path runs there.
    ///
    /// # Errors
    /// Threads or the access log could not be set up.
    pub(crate) fn new(config: &Config, source: ConfigSource) -> Result<Arc<Server>, StartError> {
        let failed = |what: &str, error: io::Error| StartError(format!("{what}: {error}"));
        let control = ControlRuntime::start().map_err(|error| failed("start threads", error))?;
        let journal =
            Journal::new(&config.access_log).map_err(|error| StartError(error.to_string()))?;
        let relay = Relay::start(config.global.workers, config.global.max_buffered)
            .map_err(|error| failed("start relay threads", error))?;
        let limits = Limits::new(&config.global, pipe_descriptors(config.global.workers));
        let proxy = Arc::new(Proxy {
            relay,
            journal,
            handshakes: HandshakeLimiter::new(&config.global, Handle::current()),
            runtime: Handle::current(),
            stopping: CancellationToken::new(),
            idle: IdleConnections::new(&limits),
            limits,
            hard_stop: HardStop::default(),
        });
        let text = text_of(config, &source);
        Ok(Arc::new(Server {
            in_force: Mutex::new(ConfigurationInForce::first(&text)),
            attempted: Mutex::new(text),
            source,
            started_at: SystemTime::now(),
            live: Mutex::new(Live::new(Arc::new(config.clone()))),
            reloading: Mutex::default(),
            reloads: Mutex::default(),
            lifecycle: LifecycleSender::default(),
            participants: Mutex::default(),
            endpoint_tls: Mutex::default(),
            pool_files: Mutex::default(),
            watching: watch::Sender::new(config.global.watch),
            committed: watch::Sender::new(()),
            sources: Arc::default(),
            jobs: Jobs::new(Arc::clone(&proxy.relay), control.handle()),
            failover: FailoverGuards::default(),
            upgrade: Upgrades::default(),
            cluster: Mutex::default(),
            control,
            proxy,
        }))
    }

    /// Loads and binds the configuration of a new server and begins to serve; where a process
    /// before it hands over, when that says so.
    ///
    /// # Errors
    /// Names what could not be loaded or bound; nothing of it is left running.
    pub(crate) async fn open(
        self: &Arc<Self>,
        old: Option<Arc<OldProcess>>,
    ) -> Result<(), StartError> {
        let server = Arc::clone(self);
        let opened = self.control_runtime().spawn_blocking(move || {
            server.join_cluster().map_err(|why| vec![why])?;
            let Some(old) = old else {
                server.control_runtime().block_on(server.joined_cluster());
                let prepared = server.prepare((*server.config()).clone())?;
                return server.commit(prepared);
            };
            old.give_state(&server);
            let prepared = server.prepare((*server.config()).clone())?;
            old.wait_for_switch(&server).map_err(|why| vec![why])?;
            let changes = server.commit(prepared)?;
            old.follow(&server);
            Ok(changes)
        });
        match opened.await {
            Ok(Ok(_)) => {
                watchers::start(self);
                control::start(self);
                traces::start(self);
                Ok(())
            }
            Ok(Err(messages)) => Err(StartError(messages.join("\n"))),
            Err(error) => Err(StartError(format!("start: {error}"))),
        }
    }

    /// Adds a participant to every reload, and to `open` if that is still to come.
    pub(crate) fn add_participant(&self, participant: Arc<dyn ReloadParticipant>) {
        lock(&self.participants).push(participant);
    }
}

/// The text that `config` was made from; empty if the file has changed since, so that the watcher
/// sees a change.
fn text_of(config: &Config, source: &ConfigSource) -> String {
    let text = source.read().unwrap_or_default();
    match config::parse(&text, source.file()) {
        Ok(parsed) if parsed == *config => text,
        _ => String::new(),
    }
}
