//! `evenkeel jobs` and `evenkeel abort`: jobs that close or move live connections.

use clap::Args;

use super::arguments::{AskArguments, number};
use super::ask::ask_and_show;
use super::layout::{Cell, Style, layout, span};
use super::request::ApiRequest;
use crate::admin::view::{JobView, JobsView};
use crate::cli::failure::CommandError;

#[derive(Debug, Args)]
pub(crate) struct AbortArguments {
    /// Which job, by its id in `evenkeel jobs`
    #[arg(value_name = "JOB", value_parser = number)]
    id: u64,
    #[command(flatten)]
    ask: AskArguments,
}

/// Column of moved sessions, if a job moves some.
const MOVED_COLUMN: usize = 7;

/// Prints the running jobs and the latest that are over.
pub(crate) fn list(arguments: AskArguments) -> Result<(), CommandError> {
    let request = ApiRequest::get("/api/v1/jobs");
    ask_and_show(&arguments, request, |jobs: &JobsView| {
        table(&jobs.jobs, Style::of_stdout())
    })
}

/// Aborts a job; connections that were told to close are closed.
pub(crate) fn abort(arguments: AbortArguments) -> Result<(), CommandError> {
    let path = format!("/api/v1/jobs/{}/abort", arguments.id);
    let nothing = serde_json::json!({});
    ask_and_show(&arguments.ask, ApiRequest::post(&path, &nothing), line)
}

/// Writes a job in one line, ending with a line end.
pub(super) fn line(job: &JobView) -> String {
    let JobView {
        id,
        by,
        target,
        phase,
        ended,
        left,
        pace,
        moves,
        ..
    } = job;
    let by = match by.as_str() {
        "operator" => String::new(),
        other => format!(" by {other}"),
    };
    let eta = eta(job).map_or(String::new(), |eta| format!(", about {eta}"));
    let done = if *moves { "moved" } else { "ended" };
    format!("job {id}{by} on {target}: {phase}, {pace}, {ended} {done}, {left} left{eta}\n")
}

pub(super) fn eta(job: &JobView) -> Option<String> {
    job.left_seconds.filter(|_| !is_over(job)).map(span)
}

pub(super) fn is_over(job: &JobView) -> bool {
    matches!(job.phase.as_str(), "done" | "aborted")
}

/// Writes a table of jobs, ending with a line end.
pub(super) fn table(jobs: &[JobView], style: Style) -> String {
    if jobs.is_empty() {
        return "no jobs\n".to_owned();
    }
    let mut head = vec![
        "JOB", "BY", "ON", "PHASE", "PACE", "CLOSE", "ENDED", "LEFT", "ETA",
    ];
    let any_moves = jobs.iter().any(|job| job.moves);
    if any_moves {
        head.insert(MOVED_COLUMN, "MOVED");
    }
    let rows = jobs.iter().map(|job| {
        let none = || Cell::amount("-".to_owned());
        let of = |is_it: bool, number: u64| {
            if is_it { Cell::number(number) } else { none() }
        };
        let mut cells = vec![
            Cell::number(job.id),
            Cell::text(&job.by),
            Cell::foreign(&job.target),
            Cell::text(&job.phase),
            Cell::text(&job.pace),
            of(!job.moves, job.code.into()),
            of(!job.moves, job.ended),
            Cell::number(job.left),
            Cell::amount(eta(job).unwrap_or_default()),
        ];
        if any_moves {
            cells.insert(MOVED_COLUMN, of(job.moves, job.ended));
        }
        cells
    });
    layout(&head, rows.collect(), style)
}

/// Job of the tests.
#[cfg(test)]
pub fn running() -> JobView {
    JobView {
        id: 3,
        by: "health".into(),
        target: "chat/n1".into(),
        phase: "ending".into(),
        ended: 10,
        left: 490,
        left_seconds: Some(5),
        pace: "100/s".into(),
        code: 1012,
        moves: false,
        started_at: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_done_to_whom() {
        let job = running();
        assert_eq!(
            line(&job),
            "job 3 by health on chat/n1: ending, 100/s, 10 ended, 490 left, about 5s\n"
        );
        assert_eq!(table(&[], Style::Plain), "no jobs\n");
        let plain = table(std::slice::from_ref(&job), Style::Plain);
        assert!(
            plain.contains("chat/n1") && !plain.contains("MOVED"),
            "{plain}"
        );
        let moved = JobView {
            id: 4,
            moves: true,
            ended: 2,
            ..job.clone()
        };
        assert!(line(&moved).contains(", 2 moved, "));
        let both = table(&[job, moved], Style::Plain);
        let rows: Vec<Vec<&str>> = both
            .lines()
            .map(|row| row.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0][5..8], ["CLOSE", "ENDED", "MOVED"]);
        assert_eq!(rows[1][5..8], ["1012", "10", "-"]);
        assert_eq!(rows[2][5..8], ["-", "-", "2"]);
    }
}
