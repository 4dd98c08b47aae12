//! Start of the balancer with all that belongs to it, for `run` and `demo`.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::failure::CommandError;
use super::logs::Logs;
use crate::admin::AdminServer;
use crate::config::{Config, Draft};
use crate::observe::Journal;
use crate::server::{self, CommandLine, ConfigSource, OldProcess, Server};
use crate::tls;

/// Time for the threads of the data path to end: more than any step between two waits takes.
const END: Duration = Duration::from_secs(2);

/// Time for the access log to be written out at the end: a disk that hangs must not keep the
/// process. A pipe that nobody reads is not waited for.
const FLUSH: Duration = Duration::from_secs(2);

/// Started balancer. Its admin endpoint lives as long as this is kept.
pub(super) struct Balancer {
    pub server: Arc<Server>,
    pub admin: Arc<AdminServer>,
}

/// Command that starts a balancer.
pub(super) enum StartedBy {
    /// `run`, which an upgrade can start again; the old process where one has started this.
    Run(Option<Arc<OldProcess>>),
    /// Its nodes and its file are those of this process.
    Demo,
}

/// Reads and parses a configuration, and looks at the files that it names.
///
/// # Errors
/// The file cannot be read, or it or a file that it names has errors.
pub(super) fn configuration(source: &ConfigSource) -> Result<Config, CommandError> {
    tls::install_provider();
    let mut draft = Draft::read(&source.read()?, source.file());
    server::verify(&mut draft);
    Ok(draft.finish()?)
}

/// Builds the runtime of the data path, one thread per core.
///
/// # Errors
/// The kernel refused a thread or an epoll.
pub(super) fn runtime() -> Result<Runtime, CommandError> {
    Builder::new_multi_thread()
        .thread_name("set-up")
        .enable_all()
        .build()
        .map_err(CommandError::io("start threads"))
}

/// Ends the data path after the server's end, and writes the access log out. Connections that are
/// still set up, and exchanges of HTTP, end with the runtime, and have their lines.
pub(super) fn end(runtime: Runtime, journal: &Journal) {
    runtime.shutdown_timeout(END);
    if !journal.flush(FLUSH) {
        tracing::warn!("access log not written to its end");
    }
}

impl Balancer {
    /// Binds everything and serves; an old process hands over to it. The log is installed already
    /// and follows the configuration from here on.
    ///
    /// # Errors
    /// Something cannot be loaded or bound.
    pub(super) async fn start(
        config: Config,
        source: ConfigSource,
        logs: Logs,
        by: StartedBy,
    ) -> Result<Balancer, CommandError> {
        tls::install_provider();
        let server = Server::new(&config, source)?;
        server.add_participant(Arc::new(logs));
        let admin = AdminServer::attach(&server);
        let old = match by {
            StartedBy::Run(old) => {
                // Before anybody can ask for an upgrade.
                if let Some(command_line) = CommandLine::of_process() {
                    server.allow_upgrades(command_line);
                }
                old
            }
            StartedBy::Demo => None,
        };
        server.open(old).await?;
        Ok(Balancer { server, admin })
    }
}
