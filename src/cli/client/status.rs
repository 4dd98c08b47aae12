//! `evenkeel status`: all of the running balancer, one pool of it, or only what is not up.

use clap::Args;
use percent_encoding::utf8_percent_encode;

use super::arguments::AskArguments;
use super::ask::{ANSWER_TIMEOUT, SEGMENT, ask, parse, show, show_view};
use super::layout::Style;
use super::request::{ApiRequest, send};
use super::table;
use crate::admin::view::{PoolView, StatusView};
use crate::cli::failure::CommandError;

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
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
pub(crate) fn status(arguments: StatusArguments) -> Result<(), CommandError> {
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
        let body = send(target, ApiRequest::get(&path), ANSWER_TIMEOUT).await?;
        let style = Style::of_stdout();
        match (&pool, down) {
            (Some(_), false) => show(output, &body, |pool: &PoolView| table::pool(pool, style)),
            (None, false) => show(output, &body, |status: &StatusView| {
                table::status(status, style)
            }),
            (Some(_), true) => {
                let mut pools = vec![parse::<PoolView>(&body)?];
                keep_down(&mut pools);
                let whole = pools.first();
                show_view(output, &whole, || table::pools_down(&pools, style))
            }
            (None, true) => {
                let mut whole: StatusView = parse(&body)?;
                keep_down(&mut whole.pools);
                show_view(output, &whole, || table::pools_down(&whole.pools, style))
            }
        }
    })
}

/// Removes the backends that are up. Pools stay: what is said of a pool as a whole is not lost.
fn keep_down(pools: &mut [PoolView]) {
    for pool in pools {
        pool.backends.retain(|backend| backend.state != "up");
    }
}
