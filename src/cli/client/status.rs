//! `evenkeel status`: all of the running balancer, one pool of it, or only what is not up.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use percent_encoding::utf8_percent_encode;

use super::arguments::AskArguments;
use super::arguments::OutputFormat;
use super::ask::{ANSWER_TIMEOUT, SEGMENT, ask, parse, to_json};
use super::layout::Style;
use super::request::{ApiRequest, send};
use super::table;
use super::target::AdminTarget;
use crate::admin::view::{PoolView, StatusView};
use crate::base::units::parse_duration;
use crate::cli::failure::CommandError;
use crate::cli::output::print_while_read;

/// Bounds on the time between two looks: a large status takes a while.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
/// Clears a terminal and goes to its first column, as `clear` does.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Only this pool
    #[arg(value_name = "POOL")]
    pool: Option<String>,
    /// Only backends that are not up
    #[arg(long)]
    down: bool,
    /// Show it again and again, each N seconds
    #[arg(short, long, value_name = "N", num_args = 0..=1, default_missing_value = "2", value_parser = interval)]
    watch: Option<Duration>,
    #[command(flatten)]
    ask: AskArguments,
}

/// Prints listeners, pools and backends: once, or again and again.
pub(crate) fn status(arguments: StatusArguments) -> Result<(), CommandError> {
    let StatusArguments {
        pool,
        down,
        watch,
        ask: asked,
    } = arguments;
    let look = Look { pool, down };
    ask(&asked, async |target, output| {
        let first = look.take(target, output).await?;
        match watch {
            Some(interval) => look.watch(target, output, (first, interval)).await,
            None => print_while_read(&first).map(drop),
        }
    })
}

/// Reads a time between two looks: seconds, or with a unit.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs);
    let time = seconds.or_else(|_| parse_duration(text));
    match time {
        Ok(time) if INTERVALS.contains(&time) => Ok(time),
        _ => Err("it is no time from 100ms to 1d, such as 2 or 500ms".to_owned()),
    }
}

/// Part of the status that is shown.
struct Look {
    pool: Option<String>,
    down: bool,
}

impl Look {
    /// Shows it until nobody reads any more. An endpoint that is gone may come back.
    async fn watch(
        &self,
        target: &AdminTarget,
        output: OutputFormat,
        (mut text, interval): (String, Duration),
    ) -> Result<(), CommandError> {
        let clears = output == OutputFormat::Table && std::io::stdout().is_terminal();
        let before = if clears { CLEAR } else { "" };
        while print_while_read(&format!("{before}{text}"))? {
            tokio::time::sleep(interval).await;
            text = match self.take(target, output).await {
                Ok(text) => text,
                Err(error) if clears => format!("{error}\n"),
                Err(error) => {
                    error.tell();
                    String::new()
                }
            };
        }
        Ok(())
    }

    /// Asks once, and writes the answer.
    async fn take(
        &self,
        target: &AdminTarget,
        output: OutputFormat,
    ) -> Result<String, CommandError> {
        let path = match &self.pool {
            Some(name) => format!("/api/v1/pools/{}", utf8_percent_encode(name, SEGMENT)),
            None => "/api/v1/status".to_owned(),
        };
        let body = send(target, ApiRequest::get(&path), ANSWER_TIMEOUT).await?;
        match (output, self.down) {
            (OutputFormat::Json, false) => Ok(String::from_utf8_lossy(&body).into_owned()),
            (OutputFormat::Json, true) => self.down_as_json(&body),
            (OutputFormat::Table, is_down) => self.table(&body, is_down),
        }
    }

    fn table(&self, body: &[u8], is_down: bool) -> Result<String, CommandError> {
        let style = Style::of_stdout();
        if self.pool.is_some() {
            let mut pools = vec![parse::<PoolView>(body)?];
            if is_down {
                keep_down(&mut pools);
                return Ok(table::pools_down(&pools, style));
            }
            return Ok(pools.iter().map(|pool| table::pool(pool, style)).collect());
        }
        let mut status: StatusView = parse(body)?;
        if is_down {
            keep_down(&mut status.pools);
            return Ok(table::pools_down(&status.pools, style));
        }
        Ok(table::status(&status, style))
    }

    fn down_as_json(&self, body: &[u8]) -> Result<String, CommandError> {
        if self.pool.is_some() {
            let mut pools = vec![parse::<PoolView>(body)?];
            keep_down(&mut pools);
            return to_json(&pools.first());
        }
        let mut status: StatusView = parse(body)?;
        keep_down(&mut status.pools);
        to_json(&status)
    }
}

/// Removes the backends that are up. Pools stay: what is said of a pool as a whole is not lost.
fn keep_down(pools: &mut [PoolView]) {
    for pool in pools {
        pool.backends.retain(|backend| backend.state != "up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_looks_is_in_seconds_unless_it_has_a_unit() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "chat", "-1", "2d", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
