//! `evenkeel status`: all of the running balancer, one pool of it, or only what is not up.

use clap::Args;
use http::Method;
use percent_encoding::utf8_percent_encode;
use serde::Serialize;

use super::arguments::OutputFormat;
use super::layout::Style;
use super::{ANSWER_TIMEOUT, AskArguments, SEGMENT, ask, call, print, show, table, understand};
use crate::admin::view::{PoolView, StatusView};
use crate::cli::failure::CommandError;

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Only this pool
    #[arg(value_name = "POOL")]
    pool: Option<String>,
    /// Only backends that are not up
    #[arg(long)]
    down: bool,
    #[command(flatten)]
    ask: AskArguments,
}

/// Prints listeners, pools and backends.
pub fn status(arguments: StatusArguments) -> Result<(), CommandError> {
    let StatusArguments {
        pool,
        down,
        ask: asked,
    } = arguments;
    let path = match &pool {
        Some(name) => format!("/api/v1/pools/{}", utf8_percent_encode(name, SEGMENT)),
        None => "/api/v1/status".to_owned(),
    };
    ask(&asked, async |target, output| {
        let body = call::call(target, Method::GET, &path, ANSWER_TIMEOUT).await?;
        let style = Style::of_stdout();
        match (&pool, down) {
            (Some(_), false) => show(output, &body, |pool: &PoolView| table::pool(pool, style)),
            (None, false) => show(output, &body, |status: &StatusView| {
                table::status(status, style)
            }),
            (Some(_), true) => {
                let mut pools = vec![understand::<PoolView>(&body)?];
                keep_down(&mut pools);
                let whole = pools.first();
                present(output, &whole, || table::pools_down(&pools, style))
            }
            (None, true) => {
                let mut whole: StatusView = understand(&body)?;
                keep_down(&mut whole.pools);
                present(output, &whole, || table::pools_down(&whole.pools, style))
            }
        }
    })
}

/// Pools without one stay: what is said of a pool as a whole is not lost.
fn keep_down(pools: &mut [PoolView]) {
    for pool in pools {
        pool.backends.retain(|backend| backend.state != "up");
    }
}

fn present(
    output: OutputFormat,
    view: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), CommandError> {
    match output {
        OutputFormat::Table => print(&table()),
        OutputFormat::Json => {
            let text = serde_json::to_string_pretty(view);
            let text = text.map_err(|error| CommandError::Other(error.to_string()))?;
            print(&format!("{text}\n"))
        }
    }
}
