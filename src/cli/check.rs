//! `evenkeel check`: says whether a configuration would be taken, without binding or connecting anything.

use super::CheckArguments;
use super::balancer::configuration;
use super::failure::Failure;
use super::locate::locate;
use super::output::print;
use crate::config::Config;
use crate::server::{self, Source};
use crate::tls;

/// Parses, validates and loads all the files that the configuration names, then prints one line.
pub fn check(arguments: CheckArguments) -> Result<(), Failure> {
    let source = Source::File(locate(arguments.file.or(arguments.config.config))?);
    let config = configuration(&source)?;
    tls::install_provider();
    server::verify(&config).map_err(|messages| Failure::Other(messages.join("\n")))?;
    let file = source.file().display();
    print(&format!("{file}: ok, {}\n", summary(&config)))
}

fn summary(config: &Config) -> String {
    let backends = config.pools.values().map(|pool| pool.backends.len()).sum();
    let discovered = config.pools.values().filter(|pool| pool.discover.is_some());
    let from_dns = match discovered.count() {
        0 => String::new(),
        pools => format!(" and those of {} from DNS", count(pools, "pool")),
    };
    let listeners = count(config.listeners.len(), "listener");
    let pools = count(config.pools.len(), "pool");
    format!(
        "{listeners}, {pools}, {}{from_dns}",
        count(backends, "backend")
    )
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
