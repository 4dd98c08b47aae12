//! `[global]`: the process.

use super::super::defaults;
use super::super::entry::Entry;
use super::super::keys::{
    Absent, COUNT_MAX, DAY, Kind, RATE_MAX, Section, key, number, rate, size, time,
};
use super::super::model::{Global, LogFormat, LogLevel};
use super::super::table::Table;
use super::super::words::words;
use crate::base::units::{format_size, parse_size};

pub static GLOBAL: Section = Section {
    doc: "The process.",
    keys: &[
        key(
            "workers",
            number(0, 1_024),
            Absent::Number(defaults::WORKERS),
            "Relay threads; 0 = as many as cores the process may use. Read at start only.",
        ),
        key(
            "max_connections",
            number(0, COUNT_MAX),
            Absent::Number(defaults::MAX_CONNECTIONS),
            "Client connections open at once; 0 = what the file-descriptor budget allows.",
        ),
        key(
            "max_connection_rate",
            rate(RATE_MAX),
            Absent::None,
            "Client connections accepted in a time, over all listeners; above it accepting pauses and clients wait in the kernel's queue. Without it there is no such bound.",
        ),
        key(
            "max_setup_connections",
            number(1, COUNT_MAX),
            Absent::Number(defaults::MAX_SETUP_CONNECTIONS),
            "Connections at once that were accepted and not yet routed and connected.",
        ),
        key(
            "max_handshakes",
            number(0, COUNT_MAX),
            Absent::Number(defaults::MAX_HANDSHAKES),
            "TLS handshakes in progress at once; 0 = 64 for each core. More wait for their turn: resumed sessions first, then source by source.",
        ),
        key(
            "max_handshake_rate",
            rate(RATE_MAX),
            Absent::None,
            "TLS handshakes begun in a time; more wait for their turn. Without it there is no such bound.",
        ),
        key(
            "max_buffered",
            size(1 << 20, 1 << 40),
            Absent::Size(defaults::MAX_BUFFERED),
            "Bytes that live connections hold for peers that do not take them. At this limit nothing more is read for such a peer; the others go on.",
        ),
        key(
            "max_memory",
            size(0, 1 << 50),
            Absent::None,
            "Anonymous memory of the process above which new connections are refused; live ones, checks and the admin endpoint go on. Without it 85 % of the smallest limit of the control groups above the process, or no bound where there is none; \"0B\" = no bound.",
        ),
        key(
            "hard_stop_after",
            time(0, DAY),
            Absent::Time(defaults::HARD_STOP_AFTER),
            "How long live connections may go on after SIGTERM; over the second half they are closed, evenly spread.",
        ),
        key(
            "watch",
            Kind::Flag,
            Absent::Flag(defaults::WATCH),
            "Follow this file and reload when it changed and has been stable for a second.",
        ),
        key(
            "log_level",
            Kind::Word(words::<LogLevel>),
            Absent::Text(defaults::LOG_LEVEL),
            "Least level that is logged.",
        ),
        key(
            "log_format",
            Kind::Word(words::<LogFormat>),
            Absent::Text(defaults::LOG_FORMAT),
            "Form of the log on stderr.",
        ),
    ],
};

/// An idle process takes about 4 MiB of anonymous memory. Handshakes, and buffers of 64 KiB for each
/// slow peer, soon take tens more: below this a burst of clients shuts the next ones out.
const USABLE_MEMORY: u64 = 64 << 20;

pub fn decode(table: &Table<'_>) -> Global {
    warn_of_little_memory(table);
    Global {
        workers: table.number("workers"),
        max_connections: table.number("max_connections"),
        max_connection_rate: table.maybe_rate("max_connection_rate"),
        max_setup_connections: table.number("max_setup_connections"),
        max_handshakes: table.number("max_handshakes"),
        max_handshake_rate: table.maybe_rate("max_handshake_rate"),
        max_buffered: table.size("max_buffered"),
        max_memory: table.maybe_size("max_memory"),
        hard_stop_after: table.time("hard_stop_after"),
        watch: table.flag("watch"),
        log_level: table.word("log_level"),
        log_format: table.word("log_format"),
    }
}

fn warn_of_little_memory(table: &Table<'_>) {
    let entry = table.entry("max_memory").filter(Entry::is_string);
    let text = entry.as_ref().and_then(Entry::string);
    let bytes = text.and_then(|text| parse_size(text).ok());
    if let (Some(entry), Some(1..USABLE_MEMORY)) = (entry, bytes) {
        entry.warn(format!(
            "the process itself and a burst of clients take more than this, and then clients are refused; less than \"{}\" is hardly meant",
            format_size(USABLE_MEMORY)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::draft::Draft;
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool};

    #[test]
    fn each_wrong_value_is_refused() {
        let global = |keys: &str| format!("{}\n[global]\n{keys}\n", pool(""));
        each_refused([
            (global("workers = 1025"), "global.workers", Fault::Value),
            (global("workers = -1"), "global.workers", Fault::Value),
            (
                global("workers = 99999999999999999999"),
                "global.workers",
                Fault::Value,
            ),
            (global("workers = 1.5"), "global.workers", Fault::Type),
            (global("workers = [1]"), "global.workers", Fault::Type),
            (
                global("max_buffered = \"1KiB\""),
                "global.max_buffered",
                Fault::Value,
            ),
            (
                global("max_buffered = \"1MB\""),
                "global.max_buffered",
                Fault::Value,
            ),
            (
                global("max_setup_connections = 0"),
                "global.max_setup_connections",
                Fault::Value,
            ),
            (
                global("hard_stop_after = \"2d\""),
                "global.hard_stop_after",
                Fault::Value,
            ),
            (
                global("hard_stop_after = \"30\""),
                "global.hard_stop_after",
                Fault::Value,
            ),
            (
                global("hard_stop_after = 30"),
                "global.hard_stop_after",
                Fault::Type,
            ),
            (
                global("max_connection_rate = \"0/s\""),
                "global.max_connection_rate",
                Fault::Value,
            ),
            (
                global("max_connection_rate = \"1000001/s\""),
                "global.max_connection_rate",
                Fault::Value,
            ),
            (
                global("max_connection_rate = 20"),
                "global.max_connection_rate",
                Fault::Type,
            ),
            (global("watch = \"yes\""), "global.watch", Fault::Type),
            (
                global("log_level = \"INFO\""),
                "global.log_level",
                Fault::Value,
            ),
            (
                global("log_format = true"),
                "global.log_format",
                Fault::Type,
            ),
            (global("log = true"), "global.log", Fault::UnknownKey),
            (format!("global = 1\n{}", pool("")), "global", Fault::Type),
        ]);
    }

    #[test]
    fn memory_that_the_process_itself_needs_is_warned_of() {
        for (value, warns) in [
            ("1B", true),
            ("32MiB", true),
            ("0B", false),
            ("64MiB", false),
        ] {
            let text = format!("{}[global]\nmax_memory = \"{value}\"\n", pool(""));
            let draft = Draft::read(&text, std::path::Path::new("a.toml"));
            let warned = draft.warnings().unwrap().messages();
            let is_it = |key: &str| key == "global.max_memory";
            assert_eq!(warned.iter().any(|one| is_it(&one.key)), warns, "{value}");
        }
    }

    #[test]
    fn a_rate_is_read_and_a_bare_number_gets_the_hint() {
        let global = |value: &str| format!("[global]\nmax_connection_rate = {value}\n{}", pool(""));
        let config = super::super::super::testing::right(&global("\"100/5s\""));
        let rate = config
            .global
            .max_connection_rate
            .map(|rate| rate.to_string());
        assert_eq!(rate.as_deref(), Some("100/5s"));
        let read = super::super::super::testing::read;
        let error = read(&global("20")).unwrap_err().to_string();
        assert!(error.contains("a rate has its time: \"20/s\""), "{error}");
        assert!(
            error.contains("a count from 1 to 1000000 in a time"),
            "{error}"
        );
    }

    #[test]
    fn whole_numbers_may_be_written_as_toml_allows() {
        let written = ["16", "+16", "0x10", "0b1_0000", "0o20", "1_6"];
        for number in written {
            let config = super::super::super::testing::right(&format!(
                "[global]\nworkers = {number}\n{}",
                pool("")
            ));
            assert_eq!(config.global.workers, 16, "{number}");
        }
    }
}
