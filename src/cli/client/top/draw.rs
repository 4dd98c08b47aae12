//! The screen of `evenkeel top`, drawn from its model.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Row as TableRow, Table, TableState};

use super::model::{Mode, Model, View};
use super::rates::short;
use super::rows::{Cell, Rows};
use crate::admin::view::StatusView;
use crate::cli::client::layout::{clean, span};

/// Widest cell but for the last column, which has what is left.
const MAX_WIDTH: usize = 28;

const HELP: &str = "\
1 2 3 4, Tab   backends, pools, listeners, jobs
j k, arrows    move; PgUp, PgDn, Home, End
s  S           sort by the next column; turn the order
/              filter by a word; Esc clears it
d              drain the backend or listener
r              let it take connections again
a              abort the job
q              quit";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, has_colour: bool) {
    let paint = Paint { has_colour };
    let [head, tabs, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model, paint)), head);
    frame.render_widget(tab_line(model, paint), tabs);
    draw_table(frame, table, model, paint);
    frame.render_widget(footer(model, paint), foot);
    if model.mode == Mode::Help {
        draw_help(frame);
    }
}

/// Colours, or none of them.
#[derive(Clone, Copy)]
struct Paint {
    has_colour: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.has_colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn state(self, word: &str) -> Style {
        match word {
            "up" | "listening" => self.colour(Color::Green),
            "down" | "ejected" | "unresolved" | "stopped" => self.colour(Color::Red),
            _ => self.colour(Color::Yellow),
        }
    }

    /// For text that must be seen without colours, too.
    fn alarm(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

fn heading(model: &Model, paint: Paint) -> Text<'static> {
    let Some(status) = &model.status else {
        return Text::from("evenkeel: asking for its status");
    };
    let StatusView {
        version, process, ..
    } = status;
    let (state, style) = match (process.ready, process.short_of_memory) {
        (true, false) => ("ready", paint.colour(Color::Green)),
        (true, true) => ("short of memory", paint.alarm()),
        (false, _) => ("stopping", paint.alarm()),
    };
    let gauges = &process.gauges;
    let first = Line::from(vec![
        Span::raw(format!("evenkeel {}  ", clean(version))),
        Span::styled(state, style),
        Span::raw(format!(
            "  up {}  {} of {} connections, {} in set-up",
            span(process.uptime_seconds),
            gauges.connections,
            gauges.max_connections,
            gauges.setup_connections
        )),
    ]);
    let rates = model.rates.of_listeners();
    let mut second = vec![Span::raw(format!(
        "{}/s accepted  {}/s requests  {}B/s in  {}B/s out  ",
        short(rates.connections),
        short(rates.requests),
        short(rates.bytes_from_client),
        short(rates.bytes_from_backend)
    ))];
    let refused = format!("{}/s refused", short(rates.failures));
    second.push(if rates.failures > 0.0 {
        Span::styled(refused, paint.alarm())
    } else {
        Span::raw(refused)
    });
    if status.configuration.last_error.is_some() {
        second.push(Span::styled(
            "  the latest reload was refused",
            paint.alarm(),
        ));
    }
    Text::from(vec![first, Line::from(second)])
}

fn tab_line(model: &Model, paint: Paint) -> Line<'static> {
    let mut parts = Vec::new();
    for (index, view) in View::ALL.into_iter().enumerate() {
        let count = model
            .status
            .as_ref()
            .map_or(0, |status| count(view, status));
        let text = format!(" {} {} {count} ", index + 1, view.title());
        let style = if view == model.view {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        parts.push(Span::styled(text, style));
    }
    if !model.filter.is_empty() && model.mode != Mode::Filter {
        let filter = format!("  filter: {}", model.filter);
        parts.push(Span::styled(filter, paint.colour(Color::Yellow)));
    }
    Line::from(parts)
}

fn count(view: View, status: &StatusView) -> usize {
    match view {
        View::Backends => status.pools.iter().map(|pool| pool.backends.len()).sum(),
        View::Pools => status.pools.len(),
        View::Listeners => status.listeners.len(),
        View::Jobs => status.jobs.len(),
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, model: &Model, paint: Paint) {
    let rows = model.rows();
    let (column, is_reversed) = model.sorted();
    let head = rows.head.iter().enumerate().map(|(index, title)| {
        let mark = match (index == column, is_reversed) {
            (false, _) => "",
            (true, true) => "v",
            (true, false) => "^",
        };
        format!("{title}{mark}")
    });
    let head: Vec<String> = head.collect();
    let widths = widths(&rows, &head, area.width.into());
    let is_number = |index: usize| {
        let mut cells = rows.rows.iter().filter_map(|row| row.cells.get(index));
        cells.next().is_some_and(Cell::is_number)
    };
    let columns = widths.len();
    let titles = head
        .into_iter()
        .take(columns)
        .enumerate()
        .map(|(index, title)| {
            let alignment = alignment(is_number(index));
            Text::from(title).alignment(alignment)
        });
    let lines = rows.rows.iter().map(|row| {
        TableRow::new(row.cells.iter().take(columns).map(|cell| {
            let style = match cell {
                Cell::State(word) => paint.state(word),
                _ => Style::new(),
            };
            let text = Text::from(cell.shown()).style(style);
            text.alignment(alignment(cell.is_number()))
        }))
    });
    let constraints = widths.into_iter().map(Constraint::Length);
    let table = Table::new(lines, constraints)
        .header(TableRow::new(titles).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn alignment(is_number: bool) -> Alignment {
    if is_number {
        Alignment::Right
    } else {
        Alignment::Left
    }
}

/// Widths of the columns that have room, from the first one. The last column has what is left.
fn widths(rows: &Rows, head: &[String], room: usize) -> Vec<u16> {
    let wanted = |(index, title): (usize, &String)| {
        let cells = rows.rows.iter().filter_map(|row| row.cells.get(index));
        let widest = cells.map(|cell| cell.shown().chars().count()).max();
        widest.unwrap_or(0).max(title.len()).min(MAX_WIDTH)
    };
    let (mut widths, mut used) = (Vec::new(), 0);
    for (index, width) in head.iter().enumerate().map(wanted).enumerate() {
        let gap = usize::from(index > 0);
        let left = room.saturating_sub(used + gap);
        let is_last = index + 1 == head.len();
        let width = if is_last { left } else { width };
        if width == 0 || width > left && index > 0 {
            break;
        }
        used += width + gap;
        widths.push(u16::try_from(width).unwrap_or(u16::MAX));
    }
    widths
}

fn footer(model: &Model, paint: Paint) -> Line<'static> {
    match &model.mode {
        Mode::Filter => Line::from(format!("filter: {}_", model.filter)),
        Mode::Confirm(question, _) => Line::styled(format!("{question} (y/n)"), paint.alarm()),
        Mode::Browse | Mode::Help => {
            if let Some(error) = &model.error {
                return Line::styled(clean(error), paint.alarm());
            }
            match &model.message {
                Some(message) => Line::from(clean(message)),
                None => Line::from("? help  / filter  s sort  d drain  r ready  a abort  q quit"),
            }
        }
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = HELP.lines().count();
    let widest = HELP.lines().map(str::len).max().unwrap_or_default();
    let size = |length: usize| u16::try_from(length + 2).unwrap_or(u16::MAX);
    let area = frame.area().centered(
        Constraint::Length(size(widest)),
        Constraint::Length(size(lines)),
    );
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(HELP).block(Block::bordered().title("keys")),
        area,
    );
}
