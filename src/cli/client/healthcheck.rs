//! `evenkeel healthcheck`: tells whether a balancer serves, as an exit code, for container engines
//! and scripts.

use std::time::Duration;

use clap::Args;

use super::arguments::AskArguments;
use super::ask::block_on;
use super::request::text;
use super::target::{AdminTarget, reachable};
use crate::cli::failure::CommandError;
use crate::cli::output::print;
use crate::config;

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    /// Ask whether it takes new connections, too: not while it is stopping or short of memory
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    ask: AskArguments,
}

/// Longest time for an answer: an engine kills the check after its own time-out.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the admin endpoint, or that of `[metrics]` where the file has no `[admin]`.
pub(crate) fn healthcheck(arguments: HealthcheckArguments) -> Result<(), CommandError> {
    let path = if arguments.ready {
        "/readyz"
    } else {
        "/healthz"
    };
    let target = match metrics(&arguments.ask) {
        Some(target) => target,
        None => AdminTarget::find(&arguments.ask.target, arguments.ask.config().as_deref())?,
    };
    block_on(async { print(&text(&target, path, PATIENCE).await?) })
}

/// Returns the endpoint of `[metrics]`, which needs no token, where there is no other one.
fn metrics(arguments: &AskArguments) -> Option<AdminTarget> {
    let file = arguments
        .config()
        .filter(|_| arguments.target.admin.is_none())?;
    let text = std::fs::read_to_string(&file).ok()?;
    // A fault elsewhere in the file is no word on the process: it serves by an earlier state of it.
    if config::admin_alone(&text, &file).is_some() {
        return None;
    }
    let metrics = config::metrics_alone(&text, &file)?;
    Some(AdminTarget {
        address: reachable(metrics.bind),
        name: None,
        token: None,
        tls: None,
        origin: file.display().to_string(),
    })
}
