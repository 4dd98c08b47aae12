//! `evenkeel status` for people: aligned columns, with colour only where a terminal shows it.

use std::io::IsTerminal;
use std::time::SystemTime;

use crate::admin::view::{BackendView, ListenerView, PoolView, StatusView};

/// Colours or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Colour,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set and not empty (no-color.org) or the terminal is dumb.
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match std::io::stdout().is_terminal() && !refused && !dumb {
            true => Style::Colour,
            false => Style::Plain,
        }
    }
}

/// The whole table, ending with a line end.
pub fn status(status: &StatusView, style: Style) -> String {
    let mut text = heading(status);
    text.push_str("\nlisteners\n");
    text.push_str(&listeners(&status.listeners, style));
    for pool in &status.pools {
        text.push('\n');
        text.push_str(&pool_heading(pool));
        text.push_str(&backends(&pool.backends, style));
    }
    text
}

fn heading(status: &StatusView) -> String {
    let StatusView {
        version,
        process,
        configuration,
        ..
    } = status;
    let up = span(process.uptime_seconds);
    let state = if process.ready { "ready" } else { "stopping" };
    let (open, most) = (process.connections, process.max_connections);
    let mut text = format!(
        "evenkeel {version}, process {}, up {up}, {state}, {open} of {most} connections\n{}, reloads {} ok, {} refused\n",
        process.id,
        clean(&configuration.file),
        configuration.reloads_ok,
        configuration.reloads_failed
    );
    if let Some(error) = &configuration.last_error {
        text.push_str("the latest reload was refused:\n");
        error
            .lines()
            .for_each(|line| text.push_str(&format!("  {}\n", clean(line))));
    }
    if status.access_log.dropped > 0 {
        text.push_str(&format!(
            "access log: {} lines lost\n",
            status.access_log.dropped
        ));
    }
    text
}

fn listeners(listeners: &[ListenerView], style: Style) -> String {
    let head = [
        "NAME", "BIND", "PROTOCOL", "STATE", "LIVE", "ACCEPTED", "REFUSED",
    ];
    let rows = listeners.iter().map(|listener| {
        vec![
            Cell::text(&listener.name),
            Cell::text(&listener.bind),
            Cell::text(&listener.protocol),
            Cell::state(&listener.state),
            Cell::number(listener.live),
            Cell::number(listener.accepted),
            Cell::number(listener.refused),
        ]
    });
    layout(&head, rows.collect(), style)
}

fn pool_heading(pool: &PoolView) -> String {
    let removed = if pool.removed { ", removed" } else { "" };
    let queued = match pool.queued {
        0 => String::new(),
        queued => format!(", {queued} queued"),
    };
    let mut text = format!(
        "pool {} ({}{removed}{queued})\n",
        clean(&pool.name),
        pool.balance
    );
    for lookup in &pool.failing_lookups {
        text.push_str(&format!(
            "  dns {}: {}\n",
            clean(&lookup.name),
            clean(&lookup.error)
        ));
    }
    text
}

fn backends(backends: &[BackendView], style: Style) -> String {
    let head = [
        "BACKEND", "ADDRESS", "STATE", "SINCE", "CHECK", "WEIGHT", "LIVE", "TOTAL", "FAILED",
        "REASON",
    ];
    let rows = backends.iter().map(|backend| {
        vec![
            Cell::text(&backend.name),
            Cell::text(&backend.address),
            Cell::state(&backend.state),
            Cell::text(&ago(&backend.since)),
            Cell::state(&backend.check),
            Cell::number(backend.weight.into()),
            Cell::number(backend.live),
            Cell::number(backend.connections),
            Cell::number(backend.connect_failures),
            Cell::text(&remarks(backend)),
        ]
    });
    layout(&head, rows.collect(), style)
}

/// The reason of the state, and what is special about the backend.
fn remarks(backend: &BackendView) -> String {
    let special = [(backend.backup, "backup"), (backend.removed, "removed")];
    let special = special
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| word.to_owned());
    let reason = Some(backend.reason.clone()).filter(|reason| !reason.is_empty());
    special.chain(reason).collect::<Vec<_>>().join(", ")
}

/// Time since an RFC 3339 stamp.
fn ago(stamp: &str) -> String {
    let Ok(then) = humantime::parse_rfc3339(stamp) else {
        return "-".to_owned();
    };
    let elapsed = SystemTime::now().duration_since(then);
    span(elapsed.unwrap_or_default().as_secs())
}

/// In its largest two units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

struct Cell {
    text: String,
    right: bool,
    colour: Option<&'static str>,
}

impl Cell {
    fn text(text: &str) -> Cell {
        let text = if text.is_empty() {
            "-".to_owned()
        } else {
            clean(text)
        };
        Cell {
            text,
            right: false,
            colour: None,
        }
    }

    fn number(number: u64) -> Cell {
        Cell {
            text: number.to_string(),
            right: true,
            colour: None,
        }
    }

    fn state(word: &str) -> Cell {
        let colour = match word {
            "up" | "listening" => Some("\x1b[32m"),
            "down" | "ejected" | "unresolved" | "stopped" => Some("\x1b[31m"),
            "drain" | "maint" => Some("\x1b[33m"),
            _ => None,
        };
        Cell {
            colour,
            ..Cell::text(word)
        }
    }
}

/// Names and reasons come from peers and files: no control character of theirs reaches the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Columns as wide as their widest cell, two spaces between, indented by two; nothing behind the last column.
fn layout(head: &[&str], rows: Vec<Vec<Cell>>, style: Style) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text.chars().count())
                .max()
                .unwrap_or(0)
                .max(title.len())
        })
        .collect();
    let right: Vec<bool> = (0..head.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .all(|cell| cell.right)
                && !rows.is_empty()
        })
        .collect();
    let titles = head.iter().zip(&right).map(|(title, &right)| {
        let colour = None;
        Cell {
            text: (*title).to_owned(),
            right,
            colour,
        }
    });
    let mut text = line(&titles.collect::<Vec<_>>(), &widths, style);
    rows.iter()
        .for_each(|row| text.push_str(&line(row, &widths, style)));
    text
}

fn line(cells: &[Cell], widths: &[usize], style: Style) -> String {
    let mut text = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        let gap = " ".repeat(width.saturating_sub(cell.text.chars().count()));
        let shown = match (style, cell.colour) {
            (Style::Colour, Some(colour)) => format!("{colour}{}\x1b[0m", cell.text),
            _ => cell.text.clone(),
        };
        text.push_str("  ");
        text.push_str(&if cell.right {
            gap + &shown
        } else {
            shown + &gap
        });
    }
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![Cell::text("n1"), Cell::state("up"), Cell::number(5)],
            vec![
                Cell::text("longer"),
                Cell::state("drain"),
                Cell::number(12_345),
            ],
        ]
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let text = layout(&["NAME", "STATE", "LIVE"], rows(), Style::Plain);
        let expected = [
            "  NAME    STATE   LIVE",
            "  n1      up         5",
            "  longer  drain  12345",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn colour_changes_no_width() {
        let plain = layout(&["NAME", "STATE", "LIVE"], rows(), Style::Plain);
        let coloured = layout(&["NAME", "STATE", "LIVE"], rows(), Style::Colour);
        assert!(coloured.contains("\x1b[32mup\x1b[0m"));
        let bare = ["\x1b[32m", "\x1b[33m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let row = vec![Cell::text("a\x1b[2J\nb")];
        assert_eq!(
            layout(&["NAME"], vec![row], Style::Plain).lines().count(),
            2
        );
        assert_eq!(clean("a\x1bb"), "a\u{fffd}b");
    }

    #[test]
    fn an_empty_table_has_its_head() {
        assert_eq!(
            layout(&["NAME", "LIVE"], Vec::new(), Style::Plain),
            "  NAME  LIVE\n"
        );
    }

    #[test]
    fn times_are_shown_in_two_units() {
        assert_eq!(span(59), "59s");
        assert_eq!(span(61), "1m01s");
        assert_eq!(span(7_300), "2h01m");
        assert_eq!(span(3 * 86_400 + 7_300), "3d02h");
        assert_eq!(ago("never"), "-");
    }
}
