//! `[global]`: the process.

use std::time::Duration;

use crate::base::rate::Rate;
use crate::base::units::format_size;
use crate::config::spec::{COUNT_MAX, DAY, number, seconds, size, time};
use crate::config::value::ValueReader;

table! {
    /// The process.
    pub struct Global: Default {
        /// Relay threads, read at start only; 0 = as many as cores the process may use.
        ///
        /// The relay is CPU-bound and never blocks: one thread for each core is right.
        workers: usize = number(0, 1_024), default(0), at_start;
        /// Client connections open at once; 0 = what the file-descriptor budget allows.
        ///
        /// Any other number would be a guess at the machine.
        max_connections: u64 = number(0, COUNT_MAX), default(0);
        /// Client connections accepted in a time, over all listeners. Above it accepting pauses and
        /// clients wait in the kernel's queue. Without it there is no such bound.
        max_connection_rate: Option<Rate>, optional;
        /// Connections at once that were accepted and not yet routed and connected.
        ///
        /// Each holds buffers and TLS state, about 100 KB at worst: this bounds a storm of
        /// handshakes near 1 GB.
        max_setup_connections: usize = number(1, COUNT_MAX), default(10_000);
        /// TLS handshakes in progress at once; 0 = 64 for each core. More wait for their turn:
        /// resumed sessions first, then source by source.
        ///
        /// Handshakes share the cores.
        max_handshakes: usize = number(0, COUNT_MAX), default(0);
        /// TLS handshakes begun in a time; more wait for their turn. Without it there is no such
        /// bound.
        max_handshake_rate: Option<Rate>, optional;
        /// Bytes held for slow peers, over all connections. At this limit nothing more is read for
        /// such a peer; the others go on.
        ///
        /// Room for 32,000 stalled readers with a small read each. The kernel's socket buffers take
        /// far more for as many.
        max_buffered: usize = size(1 << 20, 1 << 40), default(256 << 20);
        /// Anonymous memory of the process above which new connections are refused. Live ones,
        /// checks and the admin endpoint go on. Without it: 85 % of the smallest limit of the
        /// control groups above the process, or no bound where there is none; "0B" = no bound.
        max_memory: Option<u64> = size(0, 1 << 50), optional by memory;
        /// Longest time that live connections may go on after SIGTERM. Over the second half they
        /// are closed, evenly spread.
        ///
        /// Below systemd's `TimeoutStopSec` (90 s) and at Kubernetes' grace period (30 s).
        hard_stop_after: Duration = time(0, DAY), default(seconds(30));
        /// Time between SIGTERM and the begin of the stop. `/readyz` answers 503 and clients are
        /// still accepted, so that balancers in front stop sending some. Another SIGTERM skips it.
        ///
        /// Only what stands behind others needs it: Kubernetes' endpoints, a cloud's balancer,
        /// VRRP.
        shutdown_delay: Duration = time(0, DAY), default(Duration::ZERO);
        /// Follow this file, those of TLS and the sticky keys: take over what changed and has been
        /// stable for a second.
        ///
        /// A file that was edited and not loaded is a surprise at the next start.
        watch: bool, default(true);
        /// Least level that is logged.
        ///
        /// State changes of backends and reloads, nothing per connection.
        log_level: LogLevel, default(LogLevel::Info);
        /// Form of the log on stderr. In systemd's journal `text` has each line's priority, and no
        /// second time.
        ///
        /// Read by people and by journald; collectors choose `json`.
        log_format: LogFormat, default(LogFormat::Text);
    }
}

words! {
    /// Levels of the log.
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

words! {
    /// Forms of the log and of the access log.
    pub enum LogFormat {
        Text = "text",
        Json = "json",
    }
}

/// An idle process takes about 4 MiB of anonymous memory. Handshakes, and buffers of 64 KiB for
/// each slow peer, soon take tens more: below this a burst of clients shuts the next ones out.
const USABLE_MEMORY: u64 = 64 << 20;

fn memory(value: &ValueReader<'_>) -> Option<u64> {
    let bytes = value.whole_number()?;
    if (1..USABLE_MEMORY).contains(&bytes) {
        value.warn(format!(
            "the process itself and a burst of clients take more than this, and then clients are \
             refused; less than \"{}\" is hardly meant",
            format_size(USABLE_MEMORY)
        ));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use crate::config::draft::Draft;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool};

    #[test]
    fn each_wrong_value_is_refused() {
        let global = |keys: &str| format!("{}\n[global]\n{keys}\n", pool(""));
        each_refused([
            (global("workers = 1025"), "global.workers", ErrorKind::Value),
            (global("workers = -1"), "global.workers", ErrorKind::Value),
            (
                global("workers = 99999999999999999999"),
                "global.workers",
                ErrorKind::Value,
            ),
            (global("workers = 1.5"), "global.workers", ErrorKind::Type),
            (global("workers = [1]"), "global.workers", ErrorKind::Type),
            (
                global("max_buffered = \"1KiB\""),
                "global.max_buffered",
                ErrorKind::Value,
            ),
            (
                global("max_buffered = \"1MB\""),
                "global.max_buffered",
                ErrorKind::Value,
            ),
            (
                global("max_setup_connections = 0"),
                "global.max_setup_connections",
                ErrorKind::Value,
            ),
            (
                global("hard_stop_after = \"2d\""),
                "global.hard_stop_after",
                ErrorKind::Value,
            ),
            (
                global("hard_stop_after = \"30\""),
                "global.hard_stop_after",
                ErrorKind::Value,
            ),
            (
                global("hard_stop_after = 30"),
                "global.hard_stop_after",
                ErrorKind::Type,
            ),
            (
                global("max_connection_rate = \"0/s\""),
                "global.max_connection_rate",
                ErrorKind::Value,
            ),
            (
                global("max_connection_rate = \"1000001/s\""),
                "global.max_connection_rate",
                ErrorKind::Value,
            ),
            (
                global("max_connection_rate = 20"),
                "global.max_connection_rate",
                ErrorKind::Type,
            ),
            (global("watch = \"yes\""), "global.watch", ErrorKind::Type),
            (
                global("log_level = \"INFO\""),
                "global.log_level",
                ErrorKind::Value,
            ),
            (
                global("log_format = true"),
                "global.log_format",
                ErrorKind::Type,
            ),
            (global("log = true"), "global.log", ErrorKind::UnknownKey),
            (
                format!("global = 1\n{}", pool("")),
                "global",
                ErrorKind::Type,
            ),
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
        let config = crate::config::testing::right(&global("\"100/5s\""));
        let rate = config
            .global
            .max_connection_rate
            .map(|rate| rate.to_string());
        assert_eq!(rate.as_deref(), Some("100/5s"));
        let read = crate::config::testing::read;
        let error = read(&global("20")).unwrap_err().to_string();
        assert!(error.contains("a rate needs a time: \"20/s\""), "{error}");
        assert!(
            error.contains("a count from 1 to 1000000 in a time"),
            "{error}"
        );
    }

    #[test]
    fn whole_numbers_may_be_written_as_toml_allows() {
        let written = ["16", "+16", "0x10", "0b1_0000", "0o20", "1_6"];
        for number in written {
            let config = crate::config::testing::right(&format!(
                "[global]\nworkers = {number}\n{}",
                pool("")
            ));
            assert_eq!(config.global.workers, 16, "{number}");
        }
    }
}
