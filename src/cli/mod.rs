//! Floor 8: the command line. Each command is a file; this one lists them.
//!
//! Exit codes: 0 done; 1 bad configuration or a failure; 2 wrong usage; of `run`
//! after an upgrade also the status of the new process.

mod balancer;
mod check;
mod client;
mod colour;
mod demo;
mod explain;
mod failure;
mod journal;
mod locate;
mod logs;
mod notify;
mod output;
mod run;
mod schema;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::net::signals;
use check::CheckArguments;
use failure::CommandError;
use run::RunArguments;

/// A Layer-4 load balancer and TCP/WebSocket proxy for connections that last.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, long_version = version::DETAILS)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command: `run`.
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the balancer (what happens without a command)
    Run(RunArguments),
    /// Check a configuration, its certificates and its addresses; serves nothing
    Check(CheckArguments),
    /// Show the configuration in effect: each key, its value, and where that comes from
    Explain(explain::ExplainArguments),
    /// Print the JSON schema of the configuration
    Schema,
    /// Run three echo nodes, a balancer before them and a web page to try it
    Demo(demo::DemoArguments),
    /// Show listeners, pools and backends of the running balancer
    Status(client::StatusArguments),
    /// Watch the running balancer on the terminal: rates, balance, jobs; drain and abort by keys
    #[cfg(feature = "top")]
    Top(client::TopArguments),
    /// Reload the configuration of the running balancer and show what changed
    Reload(client::ReloadArguments),
    /// Hand over to the binary at the path of the running one; nobody is refused meanwhile
    Upgrade(client::UpgradeArguments),
    /// Show what a reload of a file would do, part by part, and to how many live connections
    Plan(client::PlanArguments),
    /// Give a backend no new connections, or a listener no clients; live ones go on, or end at a
    /// pace
    Drain(client::DrainArguments),
    /// Let a backend or a listener take connections again
    Ready(client::ReadyArguments),
    /// Like drain, and stop checking it
    Maint(client::MaintArguments),
    /// Give a backend another share of the new connections, until the process ends
    Weight(client::WeightArguments),
    /// List the established connections of the running balancer
    Connections(client::ListArguments),
    /// End one connection, or at a pace those that a filter finds
    Close(client::CloseArguments),
    /// Move those that a filter finds to other backends, at a pace, where their pool has `resume`
    Move(client::MoveArguments),
    /// Exit with 0 if the running balancer is healthy, for container engines
    Healthcheck(client::HealthcheckArguments),
    /// List the jobs on live connections
    Jobs(client::AskArguments),
    /// Abort a job: it ends no more connections
    Abort(client::AbortArguments),
}

/// Runs the program: reads the command line, executes the command, returns the exit code.
pub fn main() -> ExitCode {
    // Before anything else: the default of most signals is the end of the process.
    signals::block();
    let arguments = Arguments::parse();
    if !arguments.serves() {
        signals::unblock();
    }
    match arguments.verify().and_then(|()| execute(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

/// Definition of the command line, from which man pages and completions are made.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

impl Arguments {
    /// Verifies that every argument has an effect, before the command's name or behind it.
    fn verify(&self) -> Result<(), CommandError> {
        let is_configured = self.run.config.config.is_some();
        let wrong = match &self.command {
            Some(_) if self.run.logs.is_given() => {
                "--log-level and --log-format stand behind the command's name, of run or demo"
            }
            Some(Command::Schema | Command::Demo(_)) if is_configured => {
                "this command reads no configuration, so it goes without --config"
            }
            Some(Command::Check(arguments)) if is_configured && arguments.file.is_some() => {
                "check takes one file: FILE or --config"
            }
            Some(Command::Explain(arguments)) if is_configured && arguments.file.is_some() => {
                "explain takes one file: FILE or --config"
            }
            _ => return Ok(()),
        };
        Err(CommandError::Usage(wrong.to_owned()))
    }

    /// Whether it runs until a signal asks to stop, and unblocks signals itself; any other command
    /// ends by the first.
    fn serves(&self) -> bool {
        matches!(
            self.command,
            None | Some(Command::Run(_) | Command::Demo(_))
        )
    }
}

fn execute(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        None => run::run(arguments.run),
        Some(Command::Run(arguments)) => run::run(arguments),
        Some(Command::Check(arguments)) => check::check(arguments),
        Some(Command::Explain(arguments)) => explain::explain(arguments),
        Some(Command::Schema) => schema::schema(),
        Some(Command::Demo(arguments)) => demo::demo(arguments),
        Some(Command::Status(arguments)) => client::status(arguments),
        #[cfg(feature = "top")]
        Some(Command::Top(arguments)) => client::top(arguments),
        Some(Command::Reload(arguments)) => client::reload(arguments),
        Some(Command::Upgrade(arguments)) => client::upgrade(arguments),
        Some(Command::Plan(arguments)) => client::plan(arguments),
        Some(Command::Drain(arguments)) => client::drain(arguments),
        Some(Command::Ready(arguments)) => client::ready(arguments),
        Some(Command::Maint(arguments)) => client::maint(arguments),
        Some(Command::Weight(arguments)) => client::weight(arguments),
        Some(Command::Connections(arguments)) => client::list(arguments),
        Some(Command::Close(arguments)) => client::close(arguments),
        Some(Command::Move(arguments)) => client::move_many(arguments),
        Some(Command::Healthcheck(arguments)) => client::healthcheck(arguments),
        Some(Command::Jobs(arguments)) => client::jobs(arguments),
        Some(Command::Abort(arguments)) => client::abort(arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use std::path::PathBuf;

    use super::*;
    use crate::config::LogFormat;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_means_run() {
        let arguments = parse("evenkeel --config a.toml --log-format json").unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.run.config.config, Some(PathBuf::from("a.toml")));
        assert_eq!(arguments.run.logs.chosen().format, Some(LogFormat::Json));
    }

    #[test]
    fn a_drain_is_of_a_backend_or_of_a_listener() {
        assert!(parse("evenkeel drain chat/n1 --rate 5/s").is_ok());
        assert!(parse("evenkeel drain --listener chat --rate 5/s").is_ok());
        assert!(parse("evenkeel ready --listener chat").is_ok());
        for wrong in [
            "evenkeel drain",
            "evenkeel drain chat/n1 --listener chat",
            "evenkeel ready",
            "evenkeel maint --listener chat",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn check_takes_one_file_only() {
        assert!(parse("evenkeel check a.toml").is_ok());
        assert!(parse("evenkeel check --config a.toml").is_ok());
        for both in [
            "evenkeel check a.toml --config b.toml",
            "evenkeel -c b.toml check a.toml",
        ] {
            assert!(parse(both).unwrap().verify().is_err(), "{both}");
        }
    }

    #[test]
    fn the_configuration_is_named_before_the_command_or_behind_it() {
        for line in [
            "evenkeel -c a.toml run",
            "evenkeel run -c a.toml",
            "evenkeel -c b.toml run --config a.toml",
        ] {
            let arguments = parse(line).unwrap();
            assert!(arguments.verify().is_ok(), "{line}");
            let Some(Command::Run(run)) = arguments.command else {
                panic!("{line}")
            };
            assert_eq!(run.config.config, Some(PathBuf::from("a.toml")), "{line}");
        }
        for idle in [
            "evenkeel -c a.toml schema",
            "evenkeel demo -c a.toml",
            "evenkeel --log-level debug status",
        ] {
            assert!(parse(idle).unwrap().verify().is_err(), "{idle}");
        }
    }
}
