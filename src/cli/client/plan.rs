//! `evenkeel plan`: preview of a reload of a file. The file is read and checked here, so that its
//! errors are drawn as `check` draws them; the balancer gets its text.

use std::path::PathBuf;

use clap::Args;

use super::arguments::AskArguments;
use super::ask::{ANSWER_TIMEOUT, ask, parse, show};
use super::layout::{Cell, Style, layout};
use super::request::{ApiRequest, send};
use crate::admin::view::{PlanPartView, PlanView};
use crate::cli::failure::CommandError;
use crate::config;
use crate::server::ConfigSource;

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The configuration that would be loaded
    #[arg(value_name = "NEW.toml")]
    file: PathBuf,
    /// Show what is kept, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    ask: AskArguments,
}

pub(crate) fn plan(arguments: PlanArguments) -> Result<(), CommandError> {
    let source = ConfigSource(arguments.file);
    let text = source.read()?;
    // The files that it names are the balancer's, which may run elsewhere or as somebody else.
    config::parse(&text, source.file())?;
    let body = serde_json::json!({ "configuration": text });
    ask(&arguments.ask, async |target, output| {
        let request = ApiRequest::post("/api/v1/plan", &body);
        let answer = send(target, request, ANSWER_TIMEOUT).await?;
        show(output, &answer, |plan: &PlanView| {
            table(plan, arguments.all, Style::of_stdout())
        })?;
        let PlanView { refusals, .. } = parse(&answer)?;
        if refusals.is_empty() {
            return Ok(());
        }
        let refusals = refusals.join("\n");
        let message = format!("such a reload would be refused:\n{refusals}");
        Err(CommandError::Other(message))
    })
}

fn table(plan: &PlanView, all: bool, style: Style) -> String {
    let head = ["PART", "NAME", "FATE", "KEYS", "LIVE", "LEFT BEHIND"];
    let shown = plan.parts.iter().filter(|part| all || part.fate != "kept");
    let rows: Vec<_> = shown.map(row).collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = layout(&head, rows, style);
    }
    text.push_str(&summary(plan));
    text
}

fn row(part: &PlanPartView) -> Vec<Cell> {
    let live = part
        .live
        .map_or_else(|| "-".to_owned(), |live| live.to_string());
    vec![
        Cell::text(&part.part),
        Cell::text(&part.name),
        Cell::text(&part.fate),
        Cell::text(&part.keys.join(", ")),
        Cell::amount(live),
        Cell::number(part.left_behind),
    ]
}

fn summary(plan: &PlanView) -> String {
    let totals = &plan.totals;
    let mut text = match totals.changes {
        0 => "nothing would change".to_owned(),
        1 => "1 change".to_owned(),
        changes => format!("{changes} changes"),
    };
    if totals.changes > 0 {
        let changed = totals.changes.saturating_sub(totals.adds + totals.removes);
        text.push_str(&format!(
            ": {} added, {changed} changed, {} removed",
            totals.adds, totals.removes
        ));
    }
    text.push_str(&format!(
        "; {} kept; {} connections closed, {} left behind\n",
        totals.kept, totals.closes, totals.left_behind
    ));
    for key in &plan.needs_restart {
        text.push_str(&format!("{key} takes effect at the next start\n"));
    }
    text
}
