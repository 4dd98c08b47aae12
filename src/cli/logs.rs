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
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::journal::{prefix, prefixed, stderr_is_journal};
use crate::config::{Config, LogFormat, LogLevel};
use crate::observe::ProcessLog;
use crate::server::{Commit, ReloadParticipant};

/// Environment variable with filter directives.
const VARIABLE: &str = "EVENKEEL_LOG";

type FilteredRegistry = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Format = Box<dyn Layer<FilteredRegistry> + Send + Sync>;

/// Installed log; follows `global.log_level` and `global.log_format`.
pub(super) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
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

fn filter(config: &Config, chosen: Chosen) -> Result<EnvFilter, String> {
    match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .map_err(|error| format!("{VARIABLE}={directives}: {error}")),
        _ => {
            let level = chosen.level.unwrap_or(config.global.log_level);
            Ok(EnvFilter::new(directive(level)))
        }
    }
}

fn directive(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        // The resolver warns at each try of each name; evenkeel logs once that a name fails and
        // once that it works again.
        LogLevel::Warn => "warn,hickory_resolver=error,hickory_net=error,hickory_proto=error",
        LogLevel::Info => "info,hickory_resolver=error,hickory_net=error,hickory_proto=error",
        // The libraries' own detail says nothing of a balancer.
        LogLevel::Debug => "info,evenkeel=debug",
        LogLevel::Trace => "info,evenkeel=trace",
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
