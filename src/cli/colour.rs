//! Colour of what a command writes, where a terminal shows it.

use std::ffi::OsStr;
use std::io::IsTerminal;

pub(super) fn colour_on_stderr() -> bool {
    wants_colour(std::io::stderr().is_terminal())
}

pub(super) fn colour_on_stdout() -> bool {
    wants_colour(std::io::stdout().is_terminal())
}

fn wants_colour(is_terminal: bool) -> bool {
    let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
    is_terminal && allows_colour(no_color.as_deref(), term.as_deref())
}

/// `NO_COLOR` is set and not empty (no-color.org), or the terminal is dumb: none.
fn allows_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_refused_by_its_variable_and_by_a_dumb_terminal() {
        let allowed = |no_color: Option<&str>, term: Option<&str>| {
            allows_colour(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(allowed(None, None) && allowed(Some(""), Some("xterm")));
        assert!(!allowed(Some("1"), Some("xterm")) && !allowed(None, Some("dumb")));
    }
}
