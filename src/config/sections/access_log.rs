//! `[access_log]`: one line per connection.

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, Kind, Section, YEAR, key, number, time};
use super::super::model::{AccessLog, LogAt, LogFormat, LogOutput};
use super::super::table::Table;
use super::super::words::{Moment, words};

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
            "Moments of a connection that get a line: when it opens, at an interval while it lives, when it ends.",
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
    let interval = table.time("interval");
    // The default says nothing: a file may show every key.
    if !moments.contains(&Moment::Interval) && interval != defaults::ACCESS_LOG_INTERVAL {
        table.conflict("interval", "it needs \"interval\" in `log_at`");
    }
    Some(AccessLog {
        output: output(table)?,
        format: table.word("format"),
        log_at: LogAt {
            open: moments.contains(&Moment::Open),
            interval: moments.contains(&Moment::Interval),
            end: moments.contains(&Moment::End),
        },
        interval,
        max_queue: table.number("max_queue"),
    })
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

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (log("output = \"\""), "access_log.output", Fault::Value),
            (log("output = false"), "access_log.output", Fault::Type),
            (log("log_at = []"), "access_log.log_at", Fault::Value),
            (log("log_at = \"end\""), "access_log.log_at", Fault::Type),
            (
                log("log_at = [\"end\", \"close\"]"),
                "access_log.log_at[1]",
                Fault::Value,
            ),
            (log("log_at = [1]"), "access_log.log_at[0]", Fault::Type),
            (
                log("interval = \"2h\""),
                "access_log.interval",
                Fault::Conflict,
            ),
            (
                log("log_at = [\"interval\"]\ninterval = \"999ms\""),
                "access_log.interval",
                Fault::Value,
            ),
            (log("max_queue = 0"), "access_log.max_queue", Fault::Value),
        ]);
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
                end: true
            }
        );
        assert_eq!(
            read("log_at = [\"open\", \"interval\"]").log_at,
            LogAt {
                open: true,
                interval: true,
                end: false
            }
        );
    }
}
