//! Where and with what a run was made, for whoever reads its figures.

use std::fs;

use serde::Serialize;

use super::peer::{Kind, Peer};
use crate::options::Options;

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The command line.
    pub command: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub congestion_control: String,
    pub local_ports: String,
    pub rounds: u32,
    pub quick: bool,
    /// Name and version of every balancer.
    pub peers: Vec<(String, String)>,
}

impl Machine {
    pub fn look(options: &Options, peers: &[Peer]) -> Self {
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
            .collect();
        let balancers = peers.iter().filter(|peer| peer.kind != Kind::Direct);
        Self {
            command: format!("benches/compare/run.sh {}", arguments.join(" "))
                .trim()
                .to_owned(),
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: line("/proc/sys/kernel/osrelease"),
            congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
            local_ports: line("/proc/sys/net/ipv4/ip_local_port_range").replace('\t', "-"),
            rounds: options.rounds(),
            quick: options.quick,
            peers: balancers
                .map(|peer| (peer.name.to_owned(), peer.version.clone()))
                .collect(),
        }
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = about
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}
