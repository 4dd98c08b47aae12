//! `benches/compare/run.sh`, or `cargo bench --bench compare -- --help`: Evenkeel beside HAProxy, nginx and Envoy.
//!
//! One program in four roles. The driver starts a balancer on one core and, on another, copies of itself that generate the
//! load and answer as backends; they take turns, and what each turn cost becomes one table, one chart and one JSON file.
//! docs/performance.md explains the method.
#![deny(unsafe_code)]
#![expect(
    clippy::match_bool,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a measurement that cannot go on may panic; nobody else uses its items"
)]

mod backend;
mod driver;
mod http;
mod load;
mod options;
mod pin;
mod plan;
mod websocket;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use options::Options;

/// The hidden first argument of a copy that the driver starts of itself.
pub const ROLE: &str = "--role";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, ROLE, role, ref rest @ ..] => play(role, rest).map(|()| ExitCode::SUCCESS),
        _ => drive(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("compare: {error:#}");
        ExitCode::FAILURE
    })
}

fn play(role: &str, rest: &[&str]) -> Result<()> {
    match (role, rest) {
        ("pinned", [core, program, arguments @ ..]) => {
            pin::to_core(core.parse().context("the core to pin to")?)?;
            Err(pin::become_program(program, arguments)).with_context(|| format!("start {program}"))
        }
        ("load", [plan]) => load::run(&serde_json::from_str(plan).context("the load's plan")?),
        ("backend", [services]) => {
            backend::run(&serde_json::from_str(services).context("the services")?)
        }
        _ => anyhow::bail!("unknown role {role}"),
    }
}

/// `cargo test --all-targets` starts benchmarks without `--bench`: a comparison of many minutes is not a test.
fn drive(arguments: &[String]) -> Result<ExitCode> {
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("start this as: cargo bench --bench compare -- --help");
        return Ok(ExitCode::SUCCESS);
    }
    driver::run(Options::parse())
}
