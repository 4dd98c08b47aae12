//! `[access_log]`: one line per connection.

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, Kind, Section, YEAR, key, number, time};
use super::super::model::{AccessLog, LogAt, LogFormat, LogOutput};
use super::super::table::Table;
use super::super::words::{Moment, Word, words};

pub static ACCESS_LOG: Section = Section {
    doc: "One line per connection.",
    keys: &[
        key(
            "output",
            Kind::Text("\"off\", \"stdout\" or the path of a file"),
            Absent::Text(defaults::ACCESS_LOG_OUTPUT),
            "Where lines go: `off`, `stdout` or the path of a file. SIGUSR1 opens the file anew.",
        ),
        key(
            "format",
            Kind::Word(words::<LogFormat>),
            Absent::Text(defaults::ACCESS_LOG_FORMAT),
            "Form of a line.",
        ),
        key(
            "log_at",
            Kind::Words(words::<Moment>),
            Absent::Texts(defaults::LOG_AT),
            "Moments of a connection that get a line: when it opens, at an interval while it lives, when another backend has taken it, when it ends.",
        ),
        key(
            "interval",
            time(1_000, YEAR),
            Absent::Time(defaults::ACCESS_LOG_INTERVAL),
            "Time between two lines of a live connection, when `log_at` has `interval`.",
        ),
        key(
            "max_queue",
            number(1, 10_000_000),
            Absent::Number(defaults::ACCESS_LOG_MAX_QUEUE),
            "Lines waiting to be written at once; more are dropped and counted.",
        ),
    ],
};

pub fn decode(table: &Table<'_>) -> Option<AccessLog> {
    let moments: Vec<Moment> = table.words("log_at");
    if let Some(entry) = table.entry("log_at")
        && entry.is_empty_list()
    {
        entry.refuse(
            Fault::Value,
            "no moment is given; `output = \"off\"` turns the access log off",
        );
    }
    let log = AccessLog {
        output: output(table)?,
        format: table.word("format"),
        log_at: LogAt {
            open: moments.contains(&Moment::Open),
            interval: moments.contains(&Moment::Interval),
            resume: moments.contains(&Moment::Resume),
            end: moments.contains(&Moment::End),
        },
        interval: table.time("interval"),
        max_queue: table.number("max_queue"),
    };
    refuse_useless(table, &log, &moments);
    Some(log)
}

/// A default says nothing: a file may show every key.
fn refuse_useless(table: &Table<'_>, log: &AccessLog, moments: &[Moment]) {
    let own_interval = log.interval != defaults::ACCESS_LOG_INTERVAL;
    if log.output == LogOutput::Off {
        let words = moments.iter().map(|moment| moment.word());
        let own = [
            ("format", log.format.word() != defaults::ACCESS_LOG_FORMAT),
            ("log_at", words.ne(defaults::LOG_AT.iter().copied())),
            ("interval", own_interval),
            (
                "max_queue",
                log.max_queue as u64 != defaults::ACCESS_LOG_MAX_QUEUE,
            ),
        ];
        for (key, _) in own.iter().filter(|(_, own)| *own) {
            table.conflict(
                key,
                "with `output = \"off\"`, the default, no line is written; it needs \"stdout\" or a file as `output`",
            );
        }
    } else if own_interval && !log.log_at.interval {
        table.conflict("interval", "it needs \"interval\" in `log_at`");
    }
}

fn output(table: &Table<'_>) -> Option<LogOutput> {
    let word = table.text_by("output", |text| match text {
        "off" => Ok(Some(LogOutput::Off)),
        "stdout" => Ok(Some(LogOutput::Stdout)),
        "" => Err("it is empty"),
        _ => Ok(None),
    })?;
    word.or_else(|| table.path("output").map(LogOutput::File))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    fn log(keys: &str) -> String {
        format!("{}\n[access_log]\n{keys}\n", pool(""))
    }

    fn on(keys: &str) -> String {
        log(&format!("output = \"stdout\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (log("output = \"\""), "access_log.output", Fault::Value),
            (log("output = false"), "access_log.output", Fault::Type),
            (on("log_at = []"), "access_log.log_at", Fault::Value),
            (on("log_at = \"end\""), "access_log.log_at", Fault::Type),
            (
                on("log_at = [\"end\", \"close\"]"),
                "access_log.log_at[1]",
                Fault::Value,
            ),
            (on("log_at = [1]"), "access_log.log_at[0]", Fault::Type),
            (
                on("interval = \"2h\""),
                "access_log.interval",
                Fault::Conflict,
            ),
            (
                on("log_at = [\"interval\"]\ninterval = \"999ms\""),
                "access_log.interval",
                Fault::Value,
            ),
            (on("max_queue = 0"), "access_log.max_queue", Fault::Value),
        ]);
    }

    // A log that was set up and never turned on was accepted, and nothing was written.
    #[test]
    fn settings_of_a_log_that_is_off_are_refused() {
        each_refused([
            (
                log("format = \"text\""),
                "access_log.format",
                Fault::Conflict,
            ),
            (
                log("output = \"off\"\nlog_at = [\"open\"]"),
                "access_log.log_at",
                Fault::Conflict,
            ),
            (
                log("interval = \"2h\""),
                "access_log.interval",
                Fault::Conflict,
            ),
            (
                log("max_queue = 9"),
                "access_log.max_queue",
                Fault::Conflict,
            ),
        ]);
        right(&log(
            "format = \"json\"\nlog_at = [\"resume\", \"end\"]\ninterval = \"1h\"\nmax_queue = 8192",
        ));
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
