//! `evenkeel run`: the balancer, from its configuration to its last connection.

use std::sync::Arc;

use clap::Args;

use super::balancer::{Balancer, StartedBy, configuration, end, runtime};
use super::failure::CommandError;
use super::locate::{ConfigArgument, locate};
use super::logs::{LogArguments, Logs};
use super::notify::Notifier;
use crate::net::take_inherited;
use crate::server::{ConfigSource, OldProcess, Server, Signals, keep_inherited};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub config: ConfigArgument,
    #[command(flatten)]
    pub logs: LogArguments,
}

/// Runs until a signal asks to stop and the stop is over, or until another process has taken over
/// and no connection is left. If that one fails first, this one does, with its status.
pub(super) fn run(arguments: RunArguments) -> Result<(), CommandError> {
    let old = OldProcess::from_environment().map_err(CommandError::Other)?;
    let old = old.map(Arc::new);
    let result = serve(arguments, old.clone());
    if let (Err(failure), Some(old)) = (&result, old) {
        let text = failure.to_string();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        old.refuse(lines.map(str::to_owned).collect());
    }
    result
}

fn serve(arguments: RunArguments, old: Option<Arc<OldProcess>>) -> Result<(), CommandError> {
    // First: later their numbers might be those of descriptors that the process has opened itself.
    let inherited = take_inherited();
    let source = ConfigSource(locate(arguments.config.config)?);
    let config = configuration(&source)?;
    let logs = Logs::install(&config, arguments.logs.chosen()).map_err(CommandError::Other)?;
    let _flush = logs.flush_at_end();
    let runtime = runtime()?;
    let (journal, ended) = runtime.block_on(async {
        // Before the first log line: a script that reads "listening" may already send a signal.
        let signals = Signals::install().map_err(CommandError::io("install signal handlers"))?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), file = %source.file().display(), "starting");
        keep_inherited(inherited, &config);
        let balancer = Balancer::start(config, source, logs, StartedBy::Run(old)).await?;
        let manager = Notifier::from_environment();
        if manager.is_some() {
            balancer.server.found_manager();
        }
        let told =
            manager.map(|manager| tokio::spawn(tell(manager, Arc::clone(&balancer.server))));
        let journal = Arc::clone(balancer.server.journal());
        let ended = balancer.server.run(signals).await;
        // Even the shortest stop is told. The task ends with the server, without a wait.
        if let Some(told) = told {
            let _ = told.await;
        }
        Ok::<_, CommandError>((journal, ended))
    })?;
    end(runtime, &journal);
    Ok(ended?)
}

/// Tells the service manager, as soon as it listens to this process.
async fn tell(manager: Notifier, server: Arc<Server>) {
    server.leads().await;
    manager.follow(server).await;
}
