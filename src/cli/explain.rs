//! `evenkeel explain`: the configuration in effect, and where each value comes from.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::client::{Cell, OutputFormat, Style, clean, layout, to_json};
use super::failure::CommandError;
use super::locate::{ConfigArgument, locate};
use super::logs::level_variable;
use super::output::print;
use crate::config::{self, ExplainedKey, ExplainedTable, KeyOrigin};
use crate::server::ConfigSource;

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The file to explain
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Leave out what is default or not set
    #[arg(long)]
    set: bool,
    /// How it is shown
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    #[command(flatten)]
    pub config: ConfigArgument,
}

/// Prints every key with its value.
pub(super) fn explain(arguments: ExplainArguments) -> Result<(), CommandError> {
    let source = ConfigSource(locate(arguments.file.or(arguments.config.config))?);
    let text = source.read()?;
    // Of a file that is refused nothing is in effect.
    config::parse(&text, source.file())?;
    let mut tables = config::explain(&text);
    if let Some((variable, level)) = level_variable() {
        set_by_environment(&mut tables, variable, &level);
    }
    if arguments.set {
        keep_set(&mut tables);
    }
    print(&match arguments.output {
        OutputFormat::Json => to_json(&tables)?,
        OutputFormat::Table => shown(&tables),
    })
}

/// Shows the level that the environment has set, above the file's.
fn set_by_environment(tables: &mut [ExplainedTable], variable: &'static str, level: &str) {
    let global = tables.iter_mut().filter(|table| table.table == "global");
    let mut keys = global.flat_map(|table| &mut table.keys);
    if let Some(key) = keys.find(|key| key.key == "log_level") {
        key.value = level.into();
        key.from = KeyOrigin::Environment { variable };
    }
}

fn keep_set(tables: &mut Vec<ExplainedTable>) {
    for table in tables.iter_mut() {
        let is_unset =
            |key: &ExplainedKey| matches!(key.from, KeyOrigin::Default | KeyOrigin::NotSet);
        table.keys.retain(|key| !is_unset(key));
    }
    tables.retain(|table| !table.keys.is_empty());
}

fn shown(tables: &[ExplainedTable]) -> String {
    let tables = tables.iter().map(|table| {
        let rows = table.keys.iter().map(|key| {
            let from = match &key.from {
                KeyOrigin::File { line } => format!("line {line}"),
                KeyOrigin::Environment { variable } => (*variable).to_owned(),
                KeyOrigin::Default => "default".to_owned(),
                KeyOrigin::NotSet => "not set".to_owned(),
            };
            vec![
                Cell::text(key.key),
                Cell::text(&value(&key.value)),
                Cell::text(&from),
            ]
        });
        let head = ["KEY", "VALUE", "FROM"];
        let rows = layout(&head, rows.collect(), Style::Plain);
        match table.table.as_str() {
            "" => format!("tables\n{rows}"),
            name => format!("{}\n{rows}", clean(name)),
        }
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// A value as the file would have it, on one line.
fn value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(entries) => {
            let pairs = entries.iter();
            let pairs = pairs.map(|(key, inner)| format!("{key} = {}", self::value(inner)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
