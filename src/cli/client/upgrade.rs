//! `evenkeel upgrade`: lets the running balancer hand over to the binary at its path.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::arguments::{AskArguments, OutputFormat};
use super::ask::{ask, connections, parse, show};
use super::request::{ApiRequest, send};
use super::target::AdminTarget;
use crate::admin::view::{StatusView, UpgradedView};
use crate::cli::failure::CommandError;

/// Time for the new process to start, to load its file and to accept: the sum of what the balancer
/// allows for each.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the old process.
const LOOK: Duration = Duration::from_millis(500);
/// Time for an answer of the new process: for a moment nobody may have accepted yet.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct UpgradeArguments {
    /// Return when the old process has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    ask: AskArguments,
}

/// Prints who serves now; a refusal is a failure with all its reasons.
pub(crate) fn upgrade(arguments: UpgradeArguments) -> Result<(), CommandError> {
    let UpgradeArguments { wait, ask: asked } = arguments;
    ask(&asked, async |target, output| {
        let request = ApiRequest::post("/api/v1/upgrade", &serde_json::json!({}));
        let answer = send(target, request, UPGRADE_TIMEOUT).await?;
        show(output, &answer, |upgraded: &UpgradedView| {
            format!(
                "process {} serves, version {}; {} of the old one move, or end there\n",
                upgraded.process,
                upgraded.version,
                connections(upgraded.left)
            )
        })?;
        if wait {
            wait_for_end(target, output, parse(&answer)?).await?;
        }
        Ok(())
    })
}

/// Waits until the old process is gone; on a terminal, shows how many connections it has.
async fn wait_for_end(
    target: &AdminTarget,
    output: OutputFormat,
    upgraded: UpgradedView,
) -> Result<(), CommandError> {
    let shows = matches!(output, OutputFormat::Table) && std::io::stderr().is_terminal();
    let mut answered_at = Instant::now();
    loop {
        let answer = send(target, ApiRequest::get("/api/v1/status"), LOOK_TIMEOUT).await;
        let status: StatusView = match answer {
            Ok(answer) => parse(&answer)?,
            Err(_) if answered_at.elapsed() < LOOK_TIMEOUT => {
                sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        answered_at = Instant::now();
        if status.process.id != upgraded.process {
            let why = format!(
                "process {} answers, not {}: the new process has ended, or was upgraded again",
                status.process.id, upgraded.process
            );
            return Err(CommandError::Other(why));
        }
        let Some(old) = status.upgrade.predecessor else {
            if shows {
                eprintln!("\rthe old process has ended          ");
            }
            return Ok(());
        };
        if shows {
            eprint!(
                "\rprocess {}: {} left   ",
                old.process,
                connections(old.connections)
            );
        }
        sleep(LOOK).await;
    }
}
