//! The commands that talk to a running balancer: `reload`, in `status` what it shows, in `operate` `drain`, `ready`, `maint`
//! and `weight`, and in `connections` those about its connections. They speak HTTP/1 to its admin endpoint (`target` says
//! where that is, `call` asks) and print what came back (`table`, `listing`, both laid out by `layout`).

mod arguments;
mod call;
mod connections;
mod found;
mod healthcheck;
mod jobs;
mod layout;
mod listing;
mod operate;
mod plan;
mod status;
mod table;
mod target;
mod trust;
mod wait;

use std::time::Duration;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::de::DeserializeOwned;

use super::failure::CommandError;
use super::output::print;
use crate::admin::view::ReloadView;
use arguments::OutputFormat;
pub use arguments::{
    AskArguments, DrainArguments, MaintArguments, ReadyArguments, ReloadArguments, WeightArguments,
};
pub use connections::{CloseArguments, ListArguments, MoveArguments, close, list, move_many};
pub use healthcheck::{HealthcheckArguments, healthcheck};
pub use jobs::{AbortArguments, abort, list as jobs};
pub use operate::{drain, maint, ready, weight};
pub use plan::{PlanArguments, plan};
pub use status::{StatusArguments, status};
use target::AdminTarget;

/// What stays as it is in a path segment: RFC 3986's unreserved characters, and `:`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');
/// Longest time for an answer beyond the `wait` that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints what changed; a refused configuration is a failure with all its messages.
pub fn reload(arguments: ReloadArguments) -> Result<(), CommandError> {
    let conditions = arguments.conditions.iter().map(ToString::to_string);
    let conditions: Vec<String> = conditions.collect();
    ask(&arguments.ask, async |target, output| {
        let body = serde_json::json!({ "if": conditions }).to_string();
        let path = "/api/v1/reload";
        let body = call::call_with(target, Method::POST, path, body, ANSWER_TIMEOUT).await?;
        show(output, &body, |reloaded: &ReloadView| {
            match reloaded.summary.as_slice() {
                [] => "nothing changed\n".to_owned(),
                changes => changes.iter().map(|change| format!("{change}\n")).collect(),
            }
        })
    })
}

fn ask<F>(arguments: &AskArguments, asking: F) -> Result<(), CommandError>
where
    F: AsyncFnOnce(&AdminTarget, OutputFormat) -> Result<(), CommandError>,
{
    let target = AdminTarget::find(&arguments.given())?;
    ask_target(async || asking(&target, arguments.output).await)
}

fn ask_target<F>(asking: F) -> Result<(), CommandError>
where
    F: AsyncFnOnce() -> Result<(), CommandError>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::io("start the runtime"))?;
    runtime.block_on(asking())
}

fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    }
}

fn show<T: DeserializeOwned>(
    output: OutputFormat,
    body: &[u8],
    table: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    match output {
        OutputFormat::Json => print(&String::from_utf8_lossy(body)),
        OutputFormat::Table => print(&table(&understand(body)?)),
    }
}

fn understand<T: DeserializeOwned>(body: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(body).map_err(|error| {
        CommandError::Other(format!(
            "the answer is not understood (is it another version?): {error}"
        ))
    })
}
