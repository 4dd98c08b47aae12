//! Screens of `evenkeel top`, drawn on a terminal of memory.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::model::{Key, Model};
use super::sample;

fn model(keys: &str) -> Model {
    let mut model = Model::default();
    let mut status = sample::status();
    model.update(Ok(status.clone()), Duration::from_secs(1));
    status.listeners[0].counters.accepted += 50;
    status.listeners[0].counters.bytes_from_client += 12_000_000;
    status.listeners[0].refused += 1;
    status.pools[0].backends[0].counters.connections += 50;
    model.update(Ok(status), Duration::from_secs(2));
    for key in keys.chars() {
        model.press(Key::Letter(key));
    }
    model
}

fn terminal(model: &Model, size: (u16, u16), has_colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, model, has_colour))
        .unwrap();
    terminal
}

/// The lines of a screen, without spaces at their ends.
fn screen(model: &Model, size: (u16, u16)) -> Vec<String> {
    let terminal = terminal(model, size, false);
    let buffer = terminal.backend().buffer();
    let line = |row| {
        let cells = (0..size.0).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..size.1).map(line).collect()
}

#[test]
fn backends_on_80_columns() {
    let expected = [
        "evenkeel 1.2.3  ready  up 2h01m  163 of 100000 connections, 2 in set-up",
        "50/s accepted  0/s requests  12MB/s in  0B/s out  1/s refused",
        " 1 backends 3  2 pools 2  3 listeners 2  4 jobs 1",
        "BACKEND^ STATE WEIGHT LIVE BALANCE CONN/s FAIL/s IN/s OUT/s REASON",
        "chat/n1  up         1  120    100%     50      0    0     0",
        "chat/n2  down       1    3       -      0      0    0     0 refused by 10.0.0.2:",
        "web/w1   up         1   40    100%      0      0    0     0",
        "",
        "? help  / filter  s sort  d drain  r ready  a abort  q quit",
    ];
    assert_eq!(screen(&model(""), (80, 9)), expected);
}

#[test]
fn pools_listeners_and_jobs_on_80_columns() {
    let table = |view, rows: usize| screen(&model(view), (80, 8))[3..3 + rows].to_vec();
    let pools = [
        "POOL^  UP LIVE QUEUED CONN/s REF/s RETRY/s IN/s OUT/s REMARK",
        "chat  1/2  123      0     50     0       0    0     0",
        "web   1/1   40      0      0     0       0    0     0",
    ];
    assert_eq!(table("2", 3), pools);
    let listeners = [
        "LISTENER^ STATE     LIVE CONN/s REQ/s REF/s IN/s OUT/s REFUSED MOSTLY",
        "internal  listening   13      0     0     0    0     0       0",
        "public    listening  150     50     0     1  12M     0       5 denied",
    ];
    assert_eq!(table("3", 3), listeners);
    let jobs = [
        "JOB^ BY       ON      PHASE  DONE LEFT ETA PACE",
        "   3 operator chat/n2 ending   10    3  5s 1/s",
    ];
    assert_eq!(table("4", 2), jobs);
}

#[test]
fn a_question_has_the_number_of_connections() {
    let last = screen(&model("d"), (80, 8)).pop();
    let question = "drain chat/n1 with 120 connections, at its pool's pace? (y/n)";
    assert_eq!(last.as_deref(), Some(question));
}

#[test]
fn help_and_filter_are_shown() {
    let help = screen(&model("?"), (80, 24)).join("\n");
    assert!(help.contains("abort the job"), "{help}");
    let filtered = screen(&model("/n2"), (80, 8));
    assert!(
        filtered[4].starts_with("chat/n2") && filtered[5].is_empty(),
        "{filtered:?}"
    );
    assert_eq!(filtered[7], "filter: n2_");
}

#[test]
fn a_lost_endpoint_is_told_under_the_latest_status() {
    let mut model = model("");
    model.update(
        Err("no admin endpoint: \u{1b}refused".to_owned()),
        Duration::from_secs(3),
    );
    let lines = screen(&model, (80, 8));
    assert!(lines[4].starts_with("chat/n1"), "{lines:?}");
    assert_eq!(lines[7], "no admin endpoint: \u{fffd}refused");
    assert!(screen(&Model::default(), (80, 8))[0].contains("asking"));
}

/// A window can be as small as it likes.
#[test]
fn any_size_is_drawn() {
    for size in [(1, 1), (10, 3), (20, 5), (40, 10), (300, 100)] {
        for keys in ["", "2", "3", "4", "?", "d", "/x"] {
            screen(&model(keys), size);
        }
    }
    // Columns without room are left out, names never.
    let narrow = screen(&model(""), (40, 9));
    assert_eq!(narrow[3], "BACKEND^ STATE WEIGHT LIVE BALANCE");
    assert_eq!(narrow[4], "chat/n1  up         1  120    100%");
    let wide = screen(&model(""), (120, 9));
    assert!(wide[5].ends_with("refused by 10.0.0.2:80"), "{wide:?}");
}

#[test]
fn without_colour_there_is_none_and_the_cursor_is_seen() {
    let model = model("");
    let colours = |has_colour| {
        let terminal = terminal(&model, (80, 9), has_colour);
        let cells = terminal.backend().buffer().content().to_vec();
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset);
        let reversed = cells
            .iter()
            .filter(|cell| cell.modifier.contains(Modifier::REVERSED));
        (coloured, reversed.count() > 80)
    };
    assert_eq!(colours(false), (false, true));
    assert_eq!(colours(true), (true, true));
}
