//! Arguments of the commands that talk to the admin endpoint.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::target::TargetArguments;
use crate::admin::{MAX_TIME, MAX_WEIGHT, network};
use crate::base::close_code::{MAX_REASON_BYTES, may_be_sent};
use crate::base::rate::{Rate, RateError};
use crate::base::units::{format_duration, parse_duration};
use crate::cli::locate::{ConfigArgument, locate};
use crate::server::Condition;

#[derive(Debug, Args)]
pub(crate) struct AskArguments {
    #[command(flatten)]
    pub(super) target: TargetArguments,
    /// How the answer is shown
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

impl AskArguments {
    /// Returns the configuration file that applies, where there is one.
    pub(super) fn config(&self) -> Option<PathBuf> {
        // A file that is named must be there, or another balancer would be asked; without any the
        // default is.
        locate(self.config.config.clone()).ok()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArguments {
    /// Reload only if this holds of what would be done, as in closes=0, removes<=2; may be repeated
    #[arg(long = "if", value_name = "CONDITION")]
    pub(super) conditions: Vec<Condition>,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MaintArguments {
    /// Which backend, as in chat/n1
    #[arg(value_name = "POOL/BACKEND")]
    pub(super) backend: BackendArgument,
    /// Return when its last connection is gone, or fail after this time, at most 7d
    #[arg(long, value_name = "DURATION", value_parser = job_time)]
    pub(super) wait: Option<Duration>,
    #[command(flatten)]
    pub(super) scope: ScopeArguments,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

#[derive(Debug, Args)]
pub(crate) struct WeightArguments {
    /// Which backend, as in chat/n1
    #[arg(value_name = "POOL/BACKEND")]
    pub(super) backend: BackendArgument,
    /// Share beside the other weights, 0 to 256; 0: no new connections
    #[arg(value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_WEIGHT)), required_unless_present = "reset")]
    pub(super) weight: Option<u16>,
    /// The configured weight again
    #[arg(long, conflicts_with = "weight")]
    pub(super) reset: bool,
    #[command(flatten)]
    pub(super) scope: ScopeArguments,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

/// Where a state is set: on all balancers of a cluster, or on one.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ScopeArguments {
    /// Set it on this balancer though the store of its cluster is away; the others have it once the
    /// store is back
    #[arg(long)]
    pub(super) local: bool,
}

/// Backend or listener, exactly one.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SubjectArguments {
    /// Which backend, as in chat/n1
    #[arg(value_name = "POOL/BACKEND")]
    pub(super) backend: Option<BackendArgument>,
    /// A whole listener in place of a backend
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReadyArguments {
    #[command(flatten)]
    pub(super) subject: SubjectArguments,
    #[command(flatten)]
    pub(super) scope: ScopeArguments,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    pub(super) subject: SubjectArguments,
    /// Return when its last connection is gone, or fail after this time, at most 7d
    #[arg(long, value_name = "DURATION", value_parser = job_time)]
    pub(super) wait: Option<Duration>,
    #[command(flatten)]
    pub(super) pace: PaceArguments,
    /// End no connection, whatever the pool's `drain` says
    #[arg(long, conflicts_with_all = ["rate", "deadline", "after", "code", "reason"])]
    pub(super) keep: bool,
    #[command(flatten)]
    pub(super) scope: ScopeArguments,
    #[command(flatten)]
    pub(super) ask: AskArguments,
}

/// Pace at which live connections are ended, quiet ones first.
#[derive(Debug, Args)]
pub(super) struct PaceArguments {
    /// End so many in a time, as in 100/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) rate: Option<Rate>,
    /// End the last one this long after --after, as in 10m; without --rate they are spread evenly
    /// over it
    #[arg(long, value_name = "DURATION", value_parser = job_time)]
    pub(super) deadline: Option<Duration>,
    /// Let them end by themselves for so long before
    #[arg(long, value_name = "DURATION", value_parser = job_time)]
    pub(super) after: Option<Duration>,
    /// Code of the Close frame that WebSockets get [default: the pool's, else 1012]
    #[arg(long, value_name = "CODE", value_parser = close_code)]
    pub(super) code: Option<u16>,
    /// Reason in the Close frame
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(super) reason: Option<String>,
}

impl PaceArguments {
    pub(super) fn is_given(&self) -> bool {
        let mut body = serde_json::Map::new();
        self.write(&mut body);
        !body.is_empty()
    }

    /// Writes them as members of a request's body; what is not given is left to the endpoint.
    pub(super) fn write(&self, body: &mut serde_json::Map<String, Value>) {
        let rate = self.rate.map(|rate| rate.to_string());
        let members = [
            ("rate", rate),
            ("deadline", self.deadline.map(format_duration)),
            ("after", self.after.map(format_duration)),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        }
        if self.code.is_some() || self.reason.is_some() {
            let close = serde_json::json!({ "code": self.code, "reason": self.reason });
            body.insert("close".to_owned(), close);
        }
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse()
        .map_err(|error: RateError| format!("{error}; allowed: as in 100/s, 600/m"))
}

/// Parses the time of a job, or of the wait for its end.
fn job_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time <= MAX_TIME {
        Ok(time)
    } else {
        Err(format!("at most {}", format_duration(MAX_TIME)))
    }
}

fn close_code(text: &str) -> Result<u16, String> {
    let code = text.parse().ok().filter(|code| may_be_sent(*code));
    code.ok_or_else(|| "allowed: 1000 to 1003, 1007 to 1014, 3000 to 4999".to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() <= MAX_REASON_BYTES {
        Ok(text.to_owned())
    } else {
        Err(format!("at most {MAX_REASON_BYTES} bytes"))
    }
}

/// Parses an id.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a number".to_owned())
}

/// Parses a network or an address.
pub(super) fn client(text: &str) -> Result<String, String> {
    network(text)
        .map(|network| network.to_string())
        .map_err(|allowed| format!("not {allowed}"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .map_err(|error| format!("{error}; allowed: a number and ms, s, m, h or d, as in 60s"))
}

/// Format of the output, `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// Answer of the admin endpoint
    Json,
}

/// Backend on the command line, `POOL/BACKEND`. Its name may hold slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendArgument {
    pub pool: String,
    pub backend: String,
}

impl FromStr for BackendArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<BackendArgument, String> {
        match text.split_once('/') {
            Some((pool, backend)) if !pool.is_empty() && !backend.is_empty() => {
                Ok(BackendArgument {
                    pool: pool.into(),
                    backend: backend.into(),
                })
            }
            _ => Err("not POOL/BACKEND, as in chat/n1".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_by_pool_and_name() {
        let name: BackendArgument = "chat/unix:/run/a.sock".parse().unwrap();
        assert_eq!(
            (name.pool.as_str(), name.backend.as_str()),
            ("chat", "unix:/run/a.sock")
        );
        for bad in ["chat", "chat/", "/n1", ""] {
            assert!(bad.parse::<BackendArgument>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_without_a_unit_says_what_is_allowed() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert!(duration("60").is_err_and(|error| error.contains("60s")));
    }

    #[test]
    fn what_the_endpoint_would_refuse_is_refused_here() {
        assert_eq!(client("10.1.2.3"), Ok("10.1.2.3/32".to_owned()));
        assert!(client("1.2.3").is_err_and(|error| error.contains("10.0.0.0/8")));
        assert_eq!(close_code("1012"), Ok(1012));
        for wrong in ["99", "1005", "5000", "x"] {
            assert!(close_code(wrong).is_err(), "{wrong}");
        }
        assert!(job_time("7d").is_ok() && job_time("8d").is_err());
        assert!(reason(&"x".repeat(123)).is_ok() && reason(&"x".repeat(124)).is_err());
    }
}
