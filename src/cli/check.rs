//! `evenkeel check`: verifies a configuration. It connects to nothing, unless `--connect` has it
//! ask the sources of `discover`; addresses are bound and released at once, without a listen.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::colour::colour_on_stderr;
use super::failure::CommandError;
use super::locate::{ConfigArgument, locate};
use super::output::print;
use crate::config::{Config, Draft};
use crate::discovery;
use crate::server::{self, ConfigSource};
use crate::tls;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The file to check
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Fail on warnings, too
    #[arg(long)]
    pub strict: bool,
    /// Ask each registry and name of `discover` once, and show what it lists
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    pub config: ConfigArgument,
}

/// Parses, validates and loads all the files that the configuration names, then prints warnings, or
/// errors, and one line.
pub(super) fn check(arguments: CheckArguments) -> Result<(), CommandError> {
    let source = ConfigSource(locate(arguments.file.or(arguments.config.config))?);
    tls::install_provider();
    let mut draft = Draft::read(&source.read()?, source.file());
    server::verify(&mut draft);
    server::warn_of_files(&mut draft, SystemTime::now());
    server::warn_of_binds(&mut draft);
    let warnings = draft.warnings();
    let config = draft.finish()?;
    // Beside errors they would hide what comes first.
    if let Some(warnings) = &warnings {
        eprintln!("{}", warnings.drawn(colour_on_stderr()));
    }
    if arguments.strict && warnings.is_some() {
        return Err(CommandError::Other(
            "warnings are errors by --strict".to_owned(),
        ));
    }
    if arguments.connect {
        connect(&config)?;
    }
    let file = source.file().display();
    print(&format!("{file}: ok, {}\n", summary(&config)))
}

/// Asks the source of each pool, and prints its backends or why there are none.
fn connect(config: &Config) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::Other(format!("start: {error}"));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(failed)?;
    let mut failed = Vec::new();
    for (name, pool) in &config.pools {
        let Some(discover) = &pool.discover else {
            continue;
        };
        let source = discovery::label(&discover.source);
        match runtime.block_on(discovery::ask_once(discover)) {
            Ok(lines) => {
                let lines = lines.iter().map(|line| format!("  {line}\n"));
                let lines: String = lines.collect();
                print(&format!("pool {name}, {source}:\n{lines}"))?;
            }
            Err(error) => {
                print(&format!("pool {name}, {source}: {error}\n"))?;
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let failed = failed.join(", ");
    let message = format!("discovery gives no backends for: {failed}");
    Err(CommandError::Other(message))
}

fn summary(config: &Config) -> String {
    let backends = config.pools.values().map(|pool| pool.backends.len()).sum();
    let discovered = config.pools.values().filter(|pool| pool.discover.is_some());
    let found = match discovered.count() {
        0 => String::new(),
        pools => format!(" and discovered ones of {}", count(pools, "pool")),
    };
    let listeners = count(config.listeners.len(), "listener");
    let pools = count(config.pools.len(), "pool");
    format!(
        "{listeners}, {pools}, {}{found}",
        count(backends, "backend")
    )
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
