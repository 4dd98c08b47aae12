//! Simulation of 1 to 64 balancers in front of ten backends: how evenly they pick by what they know
//! of each other. Prints the table of `docs/cluster.md`; with `--chart FILE` it writes the chart.
//!
//! `cargo bench --bench cluster`: a second or two. The picks are those of the product, so a change of
//! `src/balance` changes the figures.

#![expect(
    clippy::expect_used,
    unreachable_pub,
    reason = "what cannot go on here may panic"
)]

mod chart;
mod scenarios;
mod simulation;

use std::process::ExitCode;

use scenarios::{Join, Sparse, Sticky};
use simulation::Policy;

const SEED: u64 = 1;
/// Runs with other seeds whose mean is shown.
const RUNS: u64 = 8;
const BALANCERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() -> ExitCode {
    table();
    let mut arguments = std::env::args().skip_while(|argument| argument != "--chart");
    match arguments.nth(1) {
        None => ExitCode::SUCCESS,
        Some(file) => match std::fs::write(&file, drawing()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{file}: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn table() {
    println!(
        "| pick | sparse, N=16 | sticky on one balancer, N=4 | an empty backend joins in a wave, \
         N=16: after / worst / peak rate |"
    );
    println!("|---|---|---|---|");
    for policy in Policy::ALL {
        let sparse = mean(|seed| Sparse::USUAL.run(policy, 16, seed));
        let sticky = mean(|seed| Sticky::USUAL.run(policy, 4, seed));
        let after = mean(|seed| Join::USUAL.run(policy, 16, seed).after);
        let worst = mean(|seed| Join::USUAL.run(policy, 16, seed).worst);
        let peak = mean(|seed| Join::USUAL.run(policy, 16, seed).peak_rate);
        println!(
            "| {} | {sparse:.2} | {sticky:.2} | {after:.2} / {worst:.2} / {peak:.2} |",
            policy.name()
        );
    }
}

fn drawing() -> String {
    let line = |of: &dyn Fn(Policy, usize) -> f64, policy: Policy| chart::Line {
        name: policy.name(),
        points: BALANCERS.map(|count| of(policy, count)).to_vec(),
    };
    let lines = |of: &dyn Fn(Policy, usize) -> f64| -> Vec<chart::Line> {
        Policy::ALL.map(|policy| line(of, policy)).into()
    };
    let sparse = |policy, count| mean(|seed| Sparse::USUAL.run(policy, count, seed));
    let worst = |policy, count| mean(|seed| Join::USUAL.run(policy, count, seed).worst);
    chart::draw(
        "Connections of the fullest backend, over the mean",
        &BALANCERS,
        &[
            chart::Panel {
                title: "40 connections that come and go",
                lines: lines(&sparse),
            },
            chart::Panel {
                title: "an empty backend joins in a wave of 3,300",
                lines: lines(&worst),
            },
        ],
    )
}

fn mean(run: impl Fn(u64) -> f64) -> f64 {
    let sum: f64 = (SEED..SEED + RUNS).map(run).sum();
    sum / RUNS as f64
}
