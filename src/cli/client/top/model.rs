//! State of `evenkeel top`: the latest status, and what the operator looks at. Pure: keys and
//! answers in, requests out.

use std::time::Duration;

use super::rates::RateTable;
use super::rows::{Row, Rows, Subject};
use crate::admin::view::StatusView;
use crate::cli::client::ask::connections;

/// Longest filter: names are shorter.
const MAX_FILTER: usize = 64;
/// Rows of one page of the keys for pages.
const PAGE: usize = 10;

/// Page of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Backends,
    Pools,
    Listeners,
    Jobs,
}

impl View {
    pub(super) const ALL: [View; 4] = [View::Backends, View::Pools, View::Listeners, View::Jobs];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Backends => "backends",
            View::Pools => "pools",
            View::Listeners => "listeners",
            View::Jobs => "jobs",
        }
    }
}

/// A key, without the terminal's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Tab,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// A wish of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Drain(Subject),
    Ready(Subject),
    Abort(u64),
}

/// Meaning of the keys now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// The filter is being written.
    Filter,
    /// A question is asked, with the command of a yes.
    Confirm(String, Command),
    Help,
}

#[derive(Debug)]
pub(super) struct Model {
    pub status: Option<StatusView>,
    pub rates: RateTable,
    pub view: View,
    pub mode: Mode,
    pub filter: String,
    /// Column by which each view is sorted, and whether the largest stands first.
    sorted: [(usize, bool); 4],
    /// Place of the selected row.
    pub selected: usize,
    /// Result of the latest command.
    pub message: Option<String>,
    /// Why there is no newer status.
    pub error: Option<String>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            status: None,
            rates: RateTable::default(),
            view: View::Backends,
            mode: Mode::Browse,
            filter: String::new(),
            sorted: [(0, false); 4],
            selected: 0,
            message: None,
            error: None,
        }
    }
}

impl Model {
    /// Takes an answer of the endpoint, at a time since the start.
    pub(super) fn update(&mut self, answer: Result<StatusView, String>, at: Duration) {
        match answer {
            Ok(status) => {
                self.rates.update(&status, at);
                // The cursor stays with its object, wherever that goes.
                let subject = self.selected_row().map(|row| row.subject);
                self.status = Some(status);
                self.error = None;
                self.select(subject);
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Column by which the present view is sorted, and whether the largest stands first.
    pub(super) fn sorted(&self) -> (usize, bool) {
        self.sorted
            .get(self.view as usize)
            .copied()
            .unwrap_or_default()
    }

    /// The rows of the present view: filtered and sorted.
    pub(super) fn rows(&self) -> Rows {
        let Some(status) = &self.status else {
            return Rows::none(self.view);
        };
        let mut rows = Rows::of(self.view, status, &self.rates);
        rows.filter(&self.filter);
        let (column, is_reversed) = self.sorted();
        rows.sort(column, is_reversed);
        rows
    }

    fn selected_row(&self) -> Option<Row> {
        let mut rows = self.rows().rows;
        (self.selected < rows.len()).then(|| rows.swap_remove(self.selected))
    }

    fn select(&mut self, subject: Option<Subject>) {
        let rows = self.rows().rows;
        let place = rows
            .iter()
            .position(|row| Some(&row.subject) == subject.as_ref());
        let last = rows.len().saturating_sub(1);
        self.selected = place.unwrap_or(self.selected).min(last);
    }

    /// Does what a key means, and returns a command for the endpoint.
    pub(super) fn press(&mut self, key: Key) -> Option<Command> {
        if key == Key::Interrupt {
            return Some(Command::Quit);
        }
        match self.mode.clone() {
            Mode::Browse => return self.browse(key),
            Mode::Filter => self.write_filter(key),
            Mode::Help => self.mode = Mode::Browse,
            Mode::Confirm(_, command) => {
                self.mode = Mode::Browse;
                if key == Key::Letter('y') {
                    return Some(command);
                }
                self.message = Some("nothing was done".to_owned());
            }
        }
        None
    }

    fn browse(&mut self, key: Key) -> Option<Command> {
        self.message = None;
        match key {
            Key::Letter('q') => return Some(Command::Quit),
            Key::Letter('?' | 'h') => self.mode = Mode::Help,
            Key::Letter('/') => self.mode = Mode::Filter,
            Key::Escape => self.filter.clear(),
            Key::Letter('d') => self.ask_to_drain(),
            Key::Letter('r') => self.ask_to_ready(),
            Key::Letter('a') => self.ask_to_abort(),
            Key::Letter('s') => self.sort_by_next(),
            Key::Letter('S') => self.turn_order(),
            Key::Letter(letter @ '1'..='4') => self.show(letter),
            Key::Tab => {
                let next = (self.view as usize + 1) % View::ALL.len();
                self.view = View::ALL.get(next).copied().unwrap_or(View::Backends);
                self.selected = 0;
            }
            _ => self.walk(key),
        }
        self.select(None);
        None
    }

    fn show(&mut self, letter: char) {
        let index = letter.to_digit(10).map_or(0, |digit| digit as usize);
        if let Some(view) = View::ALL.get(index.saturating_sub(1)) {
            self.view = *view;
            self.selected = 0;
        }
    }

    fn walk(&mut self, key: Key) {
        let at = self.selected;
        self.selected = match key {
            Key::Up | Key::Letter('k') => at.saturating_sub(1),
            Key::Down | Key::Letter('j') => at + 1,
            Key::PageUp => at.saturating_sub(PAGE),
            Key::PageDown => at + PAGE,
            Key::Home => 0,
            Key::End => usize::MAX,
            _ => at,
        };
    }

    fn write_filter(&mut self, key: Key) {
        match key {
            Key::Letter(letter) if self.filter.len() < MAX_FILTER => self.filter.push(letter),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            _ => {}
        }
        self.select(None);
    }

    fn sort_by_next(&mut self) {
        let columns = self.rows().head.len().max(1);
        if let Some(sorted) = self.sorted.get_mut(self.view as usize) {
            let next = (sorted.0 + 1) % columns;
            // Names rise, numbers fall.
            *sorted = (next, next != 0);
        }
    }

    fn turn_order(&mut self) {
        if let Some(sorted) = self.sorted.get_mut(self.view as usize) {
            sorted.1 = !sorted.1;
        }
    }

    /// Asks, with the number of connections that it is about.
    fn ask_to_drain(&mut self) {
        match self.selected_row() {
            Some(Row { subject, live, .. }) if subject.can_be_drained() => {
                let question = format!(
                    "drain {subject} with {}, at its pool's pace?",
                    connections(live)
                );
                self.mode = Mode::Confirm(question, Command::Drain(subject));
            }
            _ => self.message = Some("only backends and listeners are drained".to_owned()),
        }
    }

    fn ask_to_ready(&mut self) {
        match self.selected_row() {
            Some(Row { subject, live, .. }) if subject.can_be_drained() => {
                let question = format!(
                    "let {subject} take connections again? it has {}",
                    connections(live)
                );
                self.mode = Mode::Confirm(question, Command::Ready(subject));
            }
            _ => self.message = Some("only backends and listeners are made ready".to_owned()),
        }
    }

    fn ask_to_abort(&mut self) {
        match self.selected_row() {
            Some(Row {
                subject: Subject::Job(id),
                live,
                ..
            }) => {
                let question = format!("abort job {id}? {} stay", connections(live));
                self.mode = Mode::Confirm(question, Command::Abort(id));
            }
            _ => self.message = Some("only jobs are aborted: they are on page 4".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::top::sample;

    fn model() -> Model {
        let mut model = Model::default();
        model.update(Ok(sample::status()), Duration::from_secs(1));
        model
    }

    fn press(model: &mut Model, keys: &str) -> Option<Command> {
        keys.chars()
            .fold(None, |_, key| model.press(Key::Letter(key)))
    }

    fn names(model: &Model) -> Vec<String> {
        let rows = model.rows().rows;
        rows.iter().map(|row| row.subject.to_string()).collect()
    }

    #[test]
    fn a_drain_is_asked_with_its_connections_and_done_by_a_yes() {
        let mut model = model();
        assert_eq!(press(&mut model, "d"), None);
        let Mode::Confirm(question, _) = &model.mode else {
            panic!("{:?}", model.mode)
        };
        assert!(
            question.contains("chat/n1 with 120 connections"),
            "{question}"
        );
        assert_eq!(press(&mut model, "n"), None);
        assert_eq!(model.message.as_deref(), Some("nothing was done"));
        let drained = Subject::Backend("chat".to_owned(), "n1".to_owned());
        assert_eq!(press(&mut model, "dy"), Some(Command::Drain(drained)));
        assert_eq!(model.mode, Mode::Browse);
    }

    #[test]
    fn a_job_is_aborted_on_its_page_only() {
        let mut model = model();
        assert_eq!(press(&mut model, "ay"), None);
        assert_eq!(press(&mut model, "4ay"), Some(Command::Abort(3)));
        assert_eq!(press(&mut model, "2dy"), None, "a pool is not drained");
    }

    #[test]
    fn rows_are_filtered_as_the_filter_is_written() {
        let mut model = model();
        assert_eq!(names(&model), ["chat/n1", "chat/n2", "web/w1"]);
        press(&mut model, "/n2");
        assert_eq!(names(&model), ["chat/n2"]);
        model.press(Key::Enter);
        assert_eq!(press(&mut model, "d"), None);
        assert!(matches!(&model.mode, Mode::Confirm(question, _) if question.contains("chat/n2")));
        model.press(Key::Escape);
        model.press(Key::Escape);
        assert_eq!(names(&model).len(), 3);
    }

    #[test]
    fn rows_are_sorted_by_each_column_and_the_cursor_stays_with_its_row() {
        let mut model = model();
        press(&mut model, "sss");
        assert_eq!(model.sorted(), (3, true));
        assert_eq!(names(&model), ["chat/n1", "web/w1", "chat/n2"]);
        press(&mut model, "jj");
        press(&mut model, "S");
        assert_eq!(names(&model), ["chat/n2", "web/w1", "chat/n1"]);
        model.press(Key::Home);
        let mut status = sample::status();
        status.pools[0].backends[1].live = 500;
        model.update(Ok(status), Duration::from_secs(2));
        assert_eq!(names(&model)[model.selected], "chat/n2");
    }

    #[test]
    fn the_cursor_never_leaves_the_table() {
        let mut model = model();
        for key in [Key::PageDown, Key::End, Key::Down] {
            model.press(key);
            assert_eq!(model.selected, 2);
        }
        model.press(Key::PageUp);
        assert_eq!(model.selected, 0);
        press(&mut model, "4jjj");
        assert_eq!(model.selected, 0);
    }

    #[test]
    fn an_endpoint_that_is_gone_leaves_the_latest_status() {
        let mut model = model();
        model.update(Err("connection refused".to_owned()), Duration::from_secs(2));
        assert_eq!(names(&model).len(), 3);
        assert!(model.error.is_some());
        model.update(Ok(sample::status()), Duration::from_secs(3));
        assert_eq!(model.error, None);
    }

    #[test]
    fn ctrl_c_quits_whatever_is_asked() {
        let mut model = model();
        press(&mut model, "d");
        assert_eq!(model.press(Key::Interrupt), Some(Command::Quit));
        assert_eq!(press(&mut Model::default(), "q"), Some(Command::Quit));
    }
}
