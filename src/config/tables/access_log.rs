//! `[access_log]`: a line per connection.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::global::LogFormat;
use crate::config::declare::{AsWritten, Declared};
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::spec::{ValueKind, YEAR, number, seconds, text, time};
use crate::config::value::ValueReader;

table! {
    /// A line per connection.
    pub struct AccessLog: Default {
        /// Where lines go. SIGUSR1 opens the file anew.
        ///
        /// A line per connection is wanted by some and a burden to the others.
        output: LogOutput = text("\"off\", \"stdout\" or the path of a file"),
            default(LogOutput::Off) by output;
        /// Form of a line.
        ///
        /// Access logs are read by machines.
        format: LogFormat, default(LogFormat::Json);
        /// Moments of a connection, or HTTP request, that get a line: when it opens, at an interval
        /// while it lives, when another backend has taken it, when it ends.
        ///
        /// One line when all is known of a connection, and one for each backend that it outlives.
        log_at: LogAt, default(LogAt { resume: true, end: true, ..LogAt::default() }) by log_at;
        /// Time between two lines of a live connection, when `log_at` has "interval".
        ///
        /// Often enough to see a session of a day, seldom enough to cost nothing.
        interval: Duration = time(1_000, YEAR), default(seconds(3600));
        /// Lines that are not yet written; more are dropped and counted. A line counts until it is
        /// in the file or the pipe, so a small number drops lines of a burst.
        ///
        /// About 4 MB of lines: a pause of the disk of one second at 8,000 connections per second.
        max_queue: usize = number(1, 10_000_000), default(8_192);
        /// Whether connections that end without a byte of either side get a line: TCP probes of a
        /// balancer in front, and connections that browsers open in advance.
        ///
        /// A log that leaves something out must be asked to.
        log_null: bool, default(true);
    }
    then refuse_useless;
}

/// Where the lines of the access log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    Off,
    Stdout,
    File(PathBuf),
}

flags! {
    /// Moments of a connection that get a line.
    pub struct LogAt {
        /// At adoption by the relay; an HTTP request has no such moment.
        open,
        /// Again and again while the connection lives.
        interval,
        /// When another backend has taken a session.
        resume,
        /// At the end.
        end,
    }
}

impl AsWritten for LogOutput {
    fn as_written(&self, _: &ValueKind) -> Value {
        match self {
            LogOutput::Off => json!("off"),
            LogOutput::Stdout => json!("stdout"),
            LogOutput::File(path) => json!(path),
        }
    }
}

fn output(value: &ValueReader<'_>) -> Option<LogOutput> {
    match value.string()? {
        "off" => Some(LogOutput::Off),
        "stdout" => Some(LogOutput::Stdout),
        _ => value.path().map(LogOutput::File),
    }
}

fn log_at(value: &ValueReader<'_>) -> Option<LogAt> {
    if value.is_empty_list() {
        value.refuse(
            ErrorKind::Value,
            "no moment is given; `output = \"off\"` turns the access log off",
        );
    }
    crate::config::declare::FromValue::read(value)
}

/// Refuses settings without an effect, but for defaults: a file may show every key. Settings that
/// wait for `output` are only warned of: a log is turned off for a while by that one key.
fn refuse_useless(table: &TableReader<'_>, log: &mut AccessLog) {
    let own = log.differing(&AccessLog::default());
    if log.output == LogOutput::Off {
        for value in own.iter().filter_map(|key| table.value(key)) {
            value.warn(
                "with `output = \"off\"`, the default, no line is written; it needs \"stdout\" or \
                 a file as `output`"
                    .to_owned(),
            );
        }
    } else if own.contains(&"interval") && !log.log_at.interval {
        table.conflict("interval", "it needs \"interval\" in `log_at`");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::draft::Draft;
    use crate::config::testing::{each_refused, pool, right};

    fn log(keys: &str) -> String {
        format!("{}\n[access_log]\n{keys}\n", pool(""))
    }

    fn on(keys: &str) -> String {
        log(&format!("output = \"stdout\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (log("output = \"\""), "access_log.output", ErrorKind::Value),
            (log("output = false"), "access_log.output", ErrorKind::Type),
            (on("log_at = []"), "access_log.log_at", ErrorKind::Value),
            (on("log_at = \"end\""), "access_log.log_at", ErrorKind::Type),
            (
                on("log_at = [\"end\", \"close\"]"),
                "access_log.log_at[1]",
                ErrorKind::Value,
            ),
            (on("log_at = [1]"), "access_log.log_at[0]", ErrorKind::Type),
            (
                on("interval = \"2h\""),
                "access_log.interval",
                ErrorKind::Conflict,
            ),
            (
                on("log_at = [\"interval\"]\ninterval = \"999ms\""),
                "access_log.interval",
                ErrorKind::Value,
            ),
            (
                on("max_queue = 0"),
                "access_log.max_queue",
                ErrorKind::Value,
            ),
        ]);
    }

    // A log that was set up and never turned on was accepted in silence, and nothing was written.
    #[test]
    fn settings_of_a_log_that_is_off_are_warned_of() {
        let warned = |keys: &str| -> Vec<String> {
            let draft = Draft::read(&log(keys), Path::new("a.toml"));
            assert!(draft.is_sound(), "{keys}");
            let found = draft.warnings().map(|found| found.messages());
            let found = found.unwrap_or_default().into_iter();
            let keys = found.map(|one| one.key);
            keys.filter(|key| key.starts_with("access_log")).collect()
        };
        for key in [
            "format = \"text\"",
            "log_at = [\"open\"]",
            "interval = \"2h\"",
            "max_queue = 9",
            "log_null = false",
        ] {
            let name = key.split(' ').next().unwrap();
            assert_eq!(warned(key), [format!("access_log.{name}")]);
            assert_eq!(warned(&format!("output = \"off\"\n{key}")).len(), 1);
        }
        let defaults = "format = \"json\"\nlog_at = [\"resume\", \"end\"]\ninterval = \"1h\"\nmax_queue = 8192";
        assert!(warned(defaults).is_empty());
    }

    #[test]
    fn outputs_and_moments_are_read() {
        let read = |keys: &str| right(&log(keys)).access_log;
        assert_eq!(read("output = \"stdout\"").output, LogOutput::Stdout);
        assert_eq!(
            read("output = \"a.log\"").output,
            LogOutput::File("/etc/evenkeel/a.log".into())
        );
        assert_eq!(read("").output, LogOutput::Off);
        assert_eq!(
            read("").log_at,
            LogAt {
                open: false,
                interval: false,
                resume: true,
                end: true
            }
        );
        assert_eq!(
            read("output = \"stdout\"\nlog_at = [\"open\", \"interval\"]").log_at,
            LogAt {
                open: true,
                interval: true,
                resume: false,
                end: false
            }
        );
    }
}
