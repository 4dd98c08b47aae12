//! The load generator: prepares one fixed amount of work, says `ready`, does it at `go`, prints what it took, and keeps its
//! connections until standard input ends.

mod bulk;
mod checks;
mod echo;
mod get;
mod hold;
mod link;
mod pace;
mod short;

use std::io::{self, BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::pin;
use crate::plan::{Done, Latency, Plan, Work};
use link::Dialer;

/// Latencies are kept with three digits up to this; a message that takes longer has failed.
const LONGEST_NANOSECONDS: u64 = 60_000_000_000;

/// Prepared work: `go` does the measured part once.
trait Load {
    fn go(&mut self) -> Result<Finished>;
}

/// What the measured part did.
struct Finished {
    units: u64,
    latency: Option<Latency>,
}

/// Plays one load process from its plan to the end of standard input.
pub fn run(plan: &Plan) -> Result<()> {
    pin::to_core(plan.core)?;
    let dialer = Dialer::new(plan)?;
    let mut load = prepare(dialer, plan.work).context("prepare the load")?;
    say("ready")?;
    let mut orders = io::stdin().lock().lines();
    if orders.next().transpose()?.as_deref() != Some("go") {
        return Ok(());
    }
    let began = Instant::now();
    let finished = load.go().context("the measured load")?;
    let done = Done {
        units: finished.units,
        seconds: began.elapsed().as_secs_f64(),
        latency: finished.latency,
    };
    say(&serde_json::to_string(&done)?)?;
    for order in orders {
        order?;
    }
    Ok(())
}

fn prepare(dialer: Dialer, work: Work) -> Result<Box<dyn Load>> {
    Ok(match work {
        Work::Echo {
            connections,
            messages,
            bytes,
            rate,
        } => Box::new(echo::Field::prepare(
            &dialer,
            connections,
            messages,
            bytes,
            rate,
        )?),
        Work::Short {
            connections,
            at_once,
            bytes,
        } => Box::new(short::Visits::prepare(dialer, connections, at_once, bytes)?),
        Work::Get {
            connections,
            requests,
        } => Box::new(get::Getters::prepare(&dialer, connections, requests)?),
        Work::Bulk {
            connections,
            bytes_each,
            direction,
        } => Box::new(bulk::Streams::prepare(
            &dialer,
            connections,
            bytes_each,
            direction,
        )?),
        Work::Hold { connections, bytes } => Box::new(hold::Idle::new(dialer, connections, bytes)),
        Work::Checks {
            checks,
            is_http: true,
        } => Box::new(checks::Answering::prepare(dialer.target, checks)?),
        Work::Checks { checks, .. } => Box::new(checks::Listening::prepare(dialer.target, checks)?),
        Work::Stall { connections } => Box::new(hold::Stalled::prepare(dialer, connections)?),
    })
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The payload of every message: nothing that a balancer could take for its own.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + 1) as u8).collect()
}

fn histogram() -> Result<hdrhistogram::Histogram<u64>> {
    Ok(hdrhistogram::Histogram::new_with_max(
        LONGEST_NANOSECONDS,
        3,
    )?)
}

fn latency(histogram: &hdrhistogram::Histogram<u64>) -> Latency {
    let microseconds = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Latency {
        p50: microseconds(0.5),
        p99: microseconds(0.99),
        p999: microseconds(0.999),
    }
}
