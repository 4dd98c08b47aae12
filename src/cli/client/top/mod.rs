//! `evenkeel top`: the running balancer on a terminal, second by second.
//!
//! One thread has the terminal: it takes keys and draws the model. Another one asks the admin
//! endpoint, so that a slow answer holds up no key.

mod asker;
mod draw;
mod model;
mod rates;
mod rows;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal as _, stdin, stdout};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::asker::{Asker, Reply};
use self::model::{Command, Key, Model};
use super::arguments::AskArguments;
use super::target::AdminTarget;
use crate::base::units::parse_duration;
use crate::cli::colour::colour_on_stdout;
use crate::cli::failure::CommandError;

/// Time between two looks for an answer, while no key is pressed.
const GLANCE: Duration = Duration::from_millis(100);
/// Bounds on `--interval`: a large status takes a while, and a rate over an hour is none.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Time between two looks
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    ask: AskArguments,
}

/// Reads a time between two looks.
fn interval(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    if INTERVALS.contains(&time) {
        Ok(time)
    } else {
        Err("it is not between 100ms and 1h".to_owned())
    }
}

/// Shows the balancer until the operator has seen enough.
pub(crate) fn top(arguments: TopArguments) -> Result<(), CommandError> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        let why = "top needs a terminal; status --watch writes to any output";
        return Err(CommandError::Usage(why.to_owned()));
    }
    let ask = &arguments.ask;
    let target = AdminTarget::find(&ask.target, ask.config().as_deref())?;
    let asker = Asker::start(target, arguments.interval)?;
    let has_colour = colour_on_stdout();
    let mut terminal = ratatui::try_init().map_err(CommandError::io("take the terminal"))?;
    let shown = show(&mut terminal, &asker, has_colour);
    ratatui::restore();
    shown.map_err(CommandError::io("use the terminal"))
}

fn show(
    terminal: &mut DefaultTerminal,
    asker: &Asker,
    has_colour: bool,
) -> Result<(), std::io::Error> {
    let began = Instant::now();
    let mut model = Model::default();
    loop {
        terminal.draw(|frame| draw::draw(frame, &model, has_colour))?;
        // Drawn anew when something has come.
        loop {
            let has_event = event::poll(GLANCE)?;
            let replies: Vec<Reply> = asker.replies().collect();
            let is_new = has_event || !replies.is_empty();
            for reply in replies {
                match reply {
                    Reply::Status(answer) => model.update(answer.map(|one| *one), began.elapsed()),
                    Reply::Done(message) => model.message = Some(message),
                }
            }
            if has_event && let Some(key) = key(&event::read()?) {
                match model.press(key) {
                    Some(Command::Quit) => return Ok(()),
                    Some(command) => asker.order(command),
                    None => {}
                }
            }
            if is_new {
                break;
            }
        }
    }
}

/// The key of an event; `None`: another one, such as a new size.
fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    Some(match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(letter) => Key::Letter(*letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
