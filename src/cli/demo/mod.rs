//! `evenkeel demo`: three echo nodes, a balancer before them, and a page to watch it.
//!
//! Everything is embedded and goes away at the end. What it runs is the same balancer that `evenkeel run` runs.

mod folder;
mod node;
mod ports;
mod tour;

use clap::{Args, ValueEnum};

use super::LogArguments;
use super::balancer::{Balancer, configuration, runtime};
use super::failure::Failure;
use super::logs::Logs;
use crate::server::{ConfigSource, Signals};
use folder::Folder;
use node::Node;
use ports::Ports;
use tour::Tour;

/// Names of the nodes, as they stand before each answer.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Take any free ports in place of 8443, 8080, 9000 and 9900
    #[arg(long)]
    any_port: bool,
    /// How to print the addresses
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    logs: LogArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    /// One line of JSON, for scripts
    Json,
}

/// Runs until a signal asks to stop.
pub fn demo(arguments: DemoArguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let signals = Signals::install().map_err(Failure::io("install signal handlers"))?;
        let ports = match arguments.any_port {
            true => Ports::any(),
            false => Ports::usual(),
        };
        let nodes = start_nodes().await?;
        let folder =
            Folder::create(&ports, &nodes).map_err(Failure::io("write the demo's files"))?;
        let source = ConfigSource::File(folder.configuration());
        let config = configuration(&source)?;
        let logs = Logs::install(&config, arguments.logs.chosen()).map_err(Failure::Other)?;
        let _flush = logs.flush_at_end();
        let balancer = Balancer::start(config, source, logs).await?;
        let tour = Tour::new(&balancer, &folder, !arguments.any_port)?;
        tour.print(arguments.output == Output::Json)
            .map_err(Failure::io("print the addresses"))?;
        balancer.server.run(signals).await;
        Ok(())
    })
}

async fn start_nodes() -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for name in NODES {
        let node = Node::start(name).await;
        nodes.push(node.map_err(Failure::io("start an echo node"))?);
    }
    Ok(nodes)
}
