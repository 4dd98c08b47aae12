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
        key(
            "log_null",
            Kind::Flag,
            Absent::Flag(defaults::LOG_NULL),
            "Whether connections that end without a byte of either side get a line: TCP probes of a balancer in front, and what browsers open in advance.",
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
        log_null: table.flag("log_null"),
    };
    tell_useless(table, &log, &moments);
    Some(log)
}

/// A default says nothing: a file may show every key. What waits for `output` is only warned of: a
/// log is turned off for a while by that one key.
fn tell_useless(table: &Table<'_>, log: &AccessLog, moments: &[Moment]) {
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
            ("log_null", log.log_null != defaults::LOG_NULL),
        ];
        let own = own.iter().filter(|(_, own)| *own);
        for entry in own.filter_map(|(key, _)| table.entry(key)) {
            entry.warn(
                "with `output = \"off\"`, the default, no line is written; it needs \"stdout\" or a file as `output`"
                    .to_owned(),
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
    use std::path::Path;

    use super::super::super::draft::Draft;
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
