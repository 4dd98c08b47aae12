//! The command line of the comparison.

use std::path::PathBuf;

use clap::Parser;

/// Rounds of a run whose figures may be quoted: enough for a bootstrap interval.
const ROUNDS: u32 = 9;
const QUICK_ROUNDS: u32 = 3;

/// Compares Evenkeel with HAProxy, nginx and Envoy on this machine.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// Rounds in which every balancer takes its turn (default: 9, with --quick 3)
    #[arg(long)]
    rounds: Option<u32>,
    /// A quarter of the work and three rounds: shows that everything runs, its figures are not for quoting
    #[arg(long)]
    pub quick: bool,
    /// Only these cases
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    pub only: Vec<String>,
    /// Balancers to compare
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "evenkeel,haproxy,nginx,envoy"
    )]
    pub peers: Vec<String>,
    /// A second build of Evenkeel, which takes part as "baseline"
    #[arg(long, value_name = "PROGRAM")]
    pub baseline: Option<PathBuf>,
    /// The Evenkeel to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_evenkeel"))]
    pub evenkeel: PathBuf,
    /// Where Envoy is, when it is not in PATH
    #[arg(long, value_name = "PROGRAM", env = "ENVOY", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Core of the balancer
    #[arg(long, default_value_t = 0)]
    pub balancer_core: usize,
    /// Core of the load generator and the backends
    #[arg(long, default_value_t = 1)]
    pub load_core: usize,
    /// Folder for table.md, chart.svg, results.json and the balancers' configurations
    #[arg(long, default_value = "target/compare")]
    pub out: PathBuf,
    /// Names the cases and what is missing, and ends
    #[arg(long)]
    pub list: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn rounds(&self) -> u32 {
        let default = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        self.rounds.unwrap_or(default).max(1)
    }
}
