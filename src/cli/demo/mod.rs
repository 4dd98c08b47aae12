//! `evenkeel demo`: three echo nodes, a balancer before them, and a page to watch it and to drain
//! and kill nodes.
//!
//! Everything is embedded and removed at the end. It runs the same balancer as `evenkeel run`.

mod control;
mod folder;
mod listen;
mod node;
mod ports;
mod tour;

use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::balancer::{Balancer, StartedBy, configuration, end, runtime};
use super::failure::CommandError;
use super::logs::{LogArguments, Logs};
use crate::server::{ConfigSource, Signals};
use control::ControlListener;
use folder::DemoFolder;
use node::Node;
use ports::Ports;
use tour::Tour;

/// Names of the nodes, which begin each answer.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Take any free ports in place of 8443, 8080, 9000 and 9900
    #[arg(long)]
    any_port: bool,
    /// How to print the addresses
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: DemoOutput,
    #[command(flatten)]
    logs: LogArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DemoOutput {
    Text,
    /// Single line of JSON, for scripts
    Json,
}

/// Runs until a signal asks to stop.
pub(super) fn demo(arguments: DemoArguments) -> Result<(), CommandError> {
    let runtime = runtime()?;
    let (journal, ended) = runtime.block_on(async {
        let signals = Signals::install().map_err(CommandError::io("install signal handlers"))?;
        let ports = if arguments.any_port {
            Ports::any()
        } else {
            Ports::usual()
        };
        let nodes = start_nodes().await?;
        let control = ControlListener::bind().await;
        let control = control.map_err(CommandError::io("start the page's control"))?;
        let folder = DemoFolder::create(&ports, &nodes, control.address)
            .map_err(CommandError::io("write the demo's files"))?;
        let source = ConfigSource(folder.configuration());
        let config = configuration(&source)?;
        let logs = Logs::install(&config, arguments.logs.chosen()).map_err(CommandError::Other)?;
        let _flush = logs.flush_at_end();
        let balancer = Balancer::start(config, source, logs, StartedBy::Demo).await?;
        let _control = control.serve(nodes, Arc::clone(&balancer.server));
        let tour = Tour::new(&balancer, &folder, !arguments.any_port)?;
        tour.print(arguments.output == DemoOutput::Json)
            .map_err(CommandError::io("print the addresses"))?;
        let journal = Arc::clone(balancer.server.journal());
        let ended = balancer.server.run(signals).await;
        Ok::<_, CommandError>((journal, ended))
    })?;
    end(runtime, &journal);
    Ok(ended?)
}

async fn start_nodes() -> Result<Vec<Node>, CommandError> {
    let mut nodes = Vec::new();
    for name in NODES {
        let node = Node::start(name).await;
        nodes.push(node.map_err(CommandError::io("start an echo node"))?);
    }
    Ok(nodes)
}
