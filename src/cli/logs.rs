//! Log of the process: to standard error, as text or JSON, at a level that a reload can change. A
//! thread of its own writes it, so that nothing waits for its reader.
//!
//! Text for the journal has the priority before each line, and no time, as the journal has both.
//!
//! `EVENKEEL_LOG` (`debug`, `evenkeel::pool=trace,info`) has precedence over the file, so that one
//! run can be examined closely. The access log has a writer of its own in `observe`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::Metadata;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::journal::{prefix, prefixed, stderr_is_journal};
use crate::config::{Config, LogFormat, LogLevel};
use crate::observe::ProcessLog;
use crate::server::{Commit, ReloadParticipant};

/// Environment variable with filter directives.
const VARIABLE: &str = "EVENKEEL_LOG";

type FilteredRegistry = Layered<reload::Layer<Targets, Registry>, Registry>;
type Format = Box<dyn Layer<FilteredRegistry> + Send + Sync>;

/// Installed log; follows `global.log_level` and `global.log_format`.
pub(super) struct Logs {
    filter: reload::Handle<Targets, Registry>,
    format: reload::Handle<Format, FilteredRegistry>,
    /// Choice of the command line: has precedence over the file at every reload.
    chosen: Chosen,
    queue: ProcessLog,
}

/// Longest time for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(2);

/// Guard that writes the last lines when it is dropped.
pub(super) struct Flush(ProcessLog);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush(FLUSH);
    }
}

/// Choice of the command line in place of the file's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub level: Option<LogLevel>,
    pub format: Option<LogFormat>,
}

/// Log arguments, in place of the file's `global.log_level` and `global.log_format`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct LogArguments {
    /// Log level, in place of the file's
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LevelArgument>,
    /// Log format, in place of the file's
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<FormatArgument>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelArgument {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

impl LogArguments {
    pub(super) fn is_given(self) -> bool {
        self.log_level.is_some() || self.log_format.is_some()
    }

    pub(super) fn chosen(self) -> Chosen {
        Chosen {
            level: self.log_level.map(|level| match level {
                LevelArgument::Error => LogLevel::Error,
                LevelArgument::Warn => LogLevel::Warn,
                LevelArgument::Info => LogLevel::Info,
                LevelArgument::Debug => LogLevel::Debug,
                LevelArgument::Trace => LogLevel::Trace,
            }),
            format: self.log_format.map(|format| match format {
                FormatArgument::Text => LogFormat::Text,
                FormatArgument::Json => LogFormat::Json,
            }),
        }
    }
}

impl Logs {
    /// Installs the log of the process. A log that is installed already (in tests) stays.
    ///
    /// # Errors
    /// `EVENKEEL_LOG` is not a filter, or the kernel refused a thread.
    pub(super) fn install(config: &Config, chosen: Chosen) -> Result<Logs, String> {
        let queue = ProcessLog::start(io::stderr());
        let queue = queue.map_err(|error| format!("start the log's thread: {error}"))?;
        let (filter, filter_handle) = reload::Layer::new(filter(config, chosen)?);
        let (format, format_handle) = reload::Layer::new(format(config, chosen, &queue));
        let _ = tracing_subscriber::registry()
            .with(filter)
            .with(format)
            .try_init();
        Ok(Logs {
            filter: filter_handle,
            format: format_handle,
            chosen,
            queue,
        })
    }

    /// Returns the guard to keep until the process ends.
    pub(super) fn flush_at_end(&self) -> Flush {
        Flush(self.queue.clone())
    }
}

/// Writer of events into the queue.
struct EventWriter {
    queue: ProcessLog,
    has_priority: bool,
}

impl MakeWriter<'_> for EventWriter {
    type Writer = EventLine;

    fn make_writer(&self) -> EventLine {
        EventLine {
            queue: self.queue.clone(),
            prefix: None,
        }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> EventLine {
        EventLine {
            queue: self.queue.clone(),
            prefix: self.has_priority.then(|| prefix(*metadata.level())),
        }
    }
}

struct EventLine {
    queue: ProcessLog,
    prefix: Option<&'static str>,
}

impl io::Write for EventLine {
    /// Writes one event, which comes whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.prefix {
            Some(prefix) => {
                let text = String::from_utf8_lossy(event);
                // The level stands at the right of its column, which begins where the time ended.
                let text = prefixed(prefix, text.trim_start_matches(' '));
                self.queue.write(text.as_bytes());
            }
            None => self.queue.write(event),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReloadParticipant for Logs {
    fn prepare(&self, config: &Config) -> Result<Commit, String> {
        let filter = filter(config, self.chosen)?;
        let format = format(config, self.chosen, &self.queue);
        let handles = (self.filter.clone(), self.format.clone());
        Ok(Box::new(move || {
            // Fails only when another log is installed, which is not ours to change.
            let _ = handles.0.reload(filter);
            let _ = handles.1.reload(format);
        }))
    }
}

/// The variable that stands above `log_level`, and its value, where it is set.
pub(super) fn level_variable() -> Option<(&'static str, String)> {
    let directives = std::env::var(VARIABLE).ok()?;
    (!directives.is_empty()).then_some((VARIABLE, directives))
}

fn filter(config: &Config, chosen: Chosen) -> Result<Targets, String> {
    match level_variable() {
        Some((_, directives)) => {
            parse(&directives).map_err(|error| format!("{VARIABLE}={directives}: {error}"))
        }
        _ => Ok(targets(chosen.level.unwrap_or(config.global.log_level))),
    }
}

/// Parses `LEVEL` and `TARGET=LEVEL`, separated by commas.
fn parse(directives: &str) -> Result<Targets, String> {
    // It would be read as the name of a target that there is not.
    if directives.contains('[') {
        return Err("spans and fields cannot be filtered".to_owned());
    }
    directives
        .parse()
        .map_err(|error: ParseError| error.to_string())
}

fn targets(level: LogLevel) -> Targets {
    // The resolver warns at each try of each name; evenkeel logs once that a name fails and once
    // that it works again.
    let of_all = |level| {
        let resolver = ["hickory_resolver", "hickory_net", "hickory_proto"];
        let targets = Targets::new().with_default(level);
        targets.with_targets(resolver.map(|one| (one, LevelFilter::ERROR)))
    };
    // The libraries' own detail says nothing of a balancer.
    let of_ours = |level| {
        let targets = Targets::new().with_default(LevelFilter::INFO);
        targets.with_target("evenkeel", level)
    };
    match level {
        LogLevel::Error => Targets::new().with_default(LevelFilter::ERROR),
        LogLevel::Warn => of_all(LevelFilter::WARN),
        LogLevel::Info => of_all(LevelFilter::INFO),
        LogLevel::Debug => of_ours(LevelFilter::DEBUG),
        LogLevel::Trace => of_ours(LevelFilter::TRACE),
    }
}

fn format(config: &Config, chosen: Chosen, queue: &ProcessLog) -> Format {
    let format = chosen.format.unwrap_or(config.global.log_format);
    let has_priority = format == LogFormat::Text && stderr_is_journal();
    let writer = EventWriter {
        queue: queue.clone(),
        has_priority,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false);
    match format {
        LogFormat::Text if has_priority => layer.without_time().with_ansi(false).boxed(),
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn directives_are_levels_of_targets() {
        let targets = parse("debug,evenkeel::pool=trace,hyper=off").unwrap();
        assert!(targets.would_enable("rustls", &Level::DEBUG));
        assert!(!targets.would_enable("rustls", &Level::TRACE));
        assert!(targets.would_enable("evenkeel::pool::view", &Level::TRACE));
        assert!(!targets.would_enable("hyper", &Level::ERROR));
        assert!(
            !parse("evenkeel=info")
                .unwrap()
                .would_enable("rustls", &Level::ERROR)
        );
        for wrong in [
            "a=b=c",
            "evenkeel=loud",
            "[span]=debug",
            "evenkeel[{job}]=debug",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_level_is_of_the_balancer_and_not_of_its_resolver() {
        let shown = |level, target, at: Level| targets(level).would_enable(target, &at);
        for (level, at, below) in [
            (LogLevel::Error, Level::ERROR, Level::WARN),
            (LogLevel::Warn, Level::WARN, Level::INFO),
            (LogLevel::Info, Level::INFO, Level::DEBUG),
            (LogLevel::Debug, Level::DEBUG, Level::TRACE),
        ] {
            assert!(shown(level, "evenkeel::pool", at), "{level:?}");
            assert!(!shown(level, "evenkeel::pool", below), "{level:?}");
        }
        assert!(shown(LogLevel::Trace, "evenkeel::pool", Level::TRACE));
        assert!(!shown(LogLevel::Info, "hickory_net::xfer", Level::WARN));
        assert!(!shown(LogLevel::Trace, "rustls::conn", Level::DEBUG));
    }
}
