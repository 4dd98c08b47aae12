//! Asking a running balancer and showing its answer: what every command of this room does.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::{AskArguments, OutputFormat};
use super::request::{ApiRequest, send};
use super::target::AdminTarget;
use crate::cli::failure::CommandError;
use crate::cli::output::print;

/// Characters of a path segment that need no escape: the unreserved ones of RFC 3986, and `:`.
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');
/// Longest time for an answer beyond the `wait` that was asked for.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs `asking` against the endpoint that the command line or the configuration names.
pub(super) fn ask<F>(arguments: &AskArguments, asking: F) -> Result<(), CommandError>
where
    F: AsyncFnOnce(&AdminTarget, OutputFormat) -> Result<(), CommandError>,
{
    let target = AdminTarget::find(&arguments.target, arguments.config().as_deref())?;
    block_on(asking(&target, arguments.output))
}

/// Runs a command's exchange with an endpoint to its end.
pub(super) fn block_on(
    asking: impl Future<Output = Result<(), CommandError>>,
) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::io("start the runtime"))?;
    runtime.block_on(asking)
}

/// Sends one request and shows its answer.
pub(super) fn ask_and_show<T: DeserializeOwned>(
    arguments: &AskArguments,
    request: ApiRequest<'_>,
    table: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    ask(arguments, async |target, output| {
        let answer = send(target, request, ANSWER_TIMEOUT).await?;
        show(output, &answer, table)
    })
}

/// Shows an answer as it came, or as a table.
pub(super) fn show<T: DeserializeOwned>(
    output: OutputFormat,
    answer: &[u8],
    table: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    match output {
        OutputFormat::Json => print(&String::from_utf8_lossy(answer)),
        OutputFormat::Table => print(&table(&parse(answer)?)),
    }
}

/// Shows a view that was made here, as JSON or as a table.
pub(super) fn show_view(
    output: OutputFormat,
    view: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), CommandError> {
    match output {
        OutputFormat::Table => print(&table()),
        OutputFormat::Json => print(&to_json(view)?),
    }
}

/// Writes a view as the endpoint does.
pub(crate) fn to_json(view: &impl Serialize) -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(view);
    let text = text.map_err(|error| CommandError::Other(error.to_string()))?;
    Ok(text + "\n")
}

pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(answer).map_err(|error| {
        CommandError::Other(format!(
            "the answer is not understood (is it another version?): {error}"
        ))
    })
}

/// Writes a number of connections in words.
pub(super) fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    }
}
