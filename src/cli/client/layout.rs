//! Layout of tables for people: aligned columns, with colour where a terminal shows it.

use crate::cli::colour::colour_on_stdout;
use crate::observe::escape;

/// Use of colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Colour,
}

impl Style {
    /// Chooses colour on a terminal, unless `NO_COLOR` is set and not empty (no-color.org) or the
    /// terminal is dumb.
    pub(super) fn of_stdout() -> Style {
        if colour_on_stdout() {
            Style::Colour
        } else {
            Style::Plain
        }
    }
}

/// Cell of a row.
pub(crate) struct Cell {
    text: String,
    right: bool,
    colour: Option<&'static str>,
}

impl Cell {
    /// Makes a cell of text; `-` where it is empty.
    pub(crate) fn text(text: &str) -> Cell {
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

    /// Makes a cell of text that a client chose, escaped as in the access log.
    pub(super) fn foreign(text: &str) -> Cell {
        let mut escaped = String::new();
        escape(text, &mut escaped);
        Cell::text(&escaped)
    }

    /// Makes a cell that is aligned right, for comparing down its column.
    pub(super) fn amount(text: String) -> Cell {
        Cell {
            text,
            right: true,
            colour: None,
        }
    }

    pub(super) fn number(number: u64) -> Cell {
        Cell::amount(number.to_string())
    }

    /// Makes a cell of a state, in its colour.
    pub(super) fn state(word: &str) -> Cell {
        let colour = match word {
            "up" | "listening" => Some("\x1b[32m"),
            "down" | "ejected" | "unresolved" | "stopped" => Some("\x1b[31m"),
            "drain" | "maint" | "draining" => Some("\x1b[33m"),
            _ => None,
        };
        Cell {
            colour,
            ..Cell::text(word)
        }
    }
}

/// Replaces control characters: names and reasons come from peers and files, and none of theirs may
/// reach the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Writes a time in its largest two units.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Lays out a table: columns as wide as their widest cell, two spaces between, indented by two, no
/// space at the end.
pub(crate) fn layout(head: &[&str], rows: Vec<Vec<Cell>>, style: Style) -> String {
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
    }
}
