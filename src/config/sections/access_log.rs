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
    Some(AccessLog {
        output: output(table)?,
        format: table.word("format"),
        log_at: LogAt {
            open: moments.contains(&Moment::Open),
            interval: moments.contains(&Moment::Interval),
            end: moments.contains(&Moment::End),
        },
        interval: table.time("interval"),
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
