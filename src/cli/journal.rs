//! The journal of systemd as the reader of standard error: it has a time of its own for each line,
//! and reads a line's priority from a prefix (sd-daemon(3)).

use std::io;

use tracing::Level;

/// Whether standard error leads to the journal: `JOURNAL_STREAM` has the device and the inode of
/// the journal's stream (systemd.exec(5)). They differ if the process's output went elsewhere.
pub(super) fn stderr_is_journal() -> bool {
    let stat = rustix::fs::fstat(io::stderr());
    let stream = std::env::var("JOURNAL_STREAM");
    match (stat, stream) {
        (Ok(stat), Ok(stream)) => stream == format!("{}:{}", stat.st_dev, stat.st_ino),
        _ => false,
    }
}

/// Prefix of a line of this level, by the numbers of syslog(3).
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Puts the prefix before every line: the journal reads each by itself.
pub(super) fn prefixed(prefix: &str, text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.flat_map(|line| [prefix, line]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_priority() {
        let text = prefixed(prefix(Level::ERROR), "one\n  two\n");
        assert_eq!(text, "<3>one\n<3>  two\n");
        assert_eq!(prefixed(prefix(Level::TRACE), "one"), "<7>one");
    }
}
