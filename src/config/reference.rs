//! Reference page of the configuration, in Markdown: made from the declared keys.

use serde_json::Value;

use super::declare::Declared;
use super::misplaced::header;
use super::spec::{KeySpec, Presence, RATE_MAX, TableSpec, ValueKind};
use super::tables::Config;
use crate::base::units::{format_duration, format_size};

/// Columns of the page.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
# Configuration

Every table and key of the file, with what is allowed, the default and the reason for it.
`balancer.toml` shows all of them in a file that works as it stands; `evenkeel schema` prints a JSON
schema for editors; `evenkeel check` shows mistakes with their lines.

- A time is a whole number and its unit: `ms`, `s`, `m`, `h`, `d`. A size has `B`, `KiB`, `MiB` or
  `GiB`, a percentage its `%`. A rate is a count in a time, such as `\"20/s\"`, `\"600/m\"` or
  `\"100/5s\"`; the count may come at once.
- Unknown keys are errors. Paths of files are relative to the folder of the file.
- A reload takes over every change but those of keys that are read at start only.

This page is made from the declarations in `src/config/tables`. To write it anew:
`WRITE_REFERENCE=1 cargo test --test reference`.
";

/// The page; `docs/configuration.md` holds it.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut tables = Vec::new();
    collect(Config::SPEC, "", &mut tables);
    for (path, table) in tables {
        page.push_str(&section(&path, table));
    }
    page
}

/// All tables below `table`, each behind the one that it stands in.
fn collect(table: &'static TableSpec, path: &str, tables: &mut Vec<(String, &'static TableSpec)>) {
    for key in table.all() {
        if let Some(inner) = key.kind.table() {
            let path = path_of(path, key);
            tables.push((path.clone(), inner));
            collect(inner, &path, tables);
        }
    }
}

/// The path of a table as the decoder has it, with `NAME` for the operator's names.
fn path_of(path: &str, key: &KeySpec) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let end = match key.kind {
        ValueKind::Named(_) => ".NAME",
        ValueKind::Tables(_) => "[0]",
        _ => "",
    };
    format!("{path}{dot}{}{end}", key.name)
}

fn section(path: &str, table: &'static TableSpec) -> String {
    let mut text = format!("\n## `{}`\n\n", header(path));
    text.push_str(&wrapped(&table.description(), ""));
    let (required, others): (Vec<_>, Vec<_>) = table.all().partition(|key| key.is_required());
    for key in required.into_iter().chain(others) {
        text.push_str(&entry(path, key));
    }
    text
}

fn entry(path: &str, key: &KeySpec) -> String {
    let mut head = format!("- **`{}`**: {}", key.name, allowed(path, key));
    match key.presence {
        Presence::Required => head.push_str("; required"),
        Presence::Default(default) => {
            head.push_str(&format!("; default `{}`", written(&default())));
        }
        Presence::Optional | Presence::Nested => {}
    }
    if key.at_start {
        head.push_str("; read at start only");
    }
    let reason = key.reason().map(|reason| format!("*Why: {reason}*"));
    let paragraphs = [Some(head + "."), Some(key.description()), reason];
    let paragraphs = paragraphs.iter().flatten();
    let paragraphs: Vec<_> = paragraphs.map(|text| wrapped(text, "  ")).collect();
    format!("\n{}", paragraphs.join("\n").replacen("  - ", "- ", 1))
}

fn allowed(path: &str, key: &KeySpec) -> String {
    let inner = header(&path_of(path, key));
    let anchor: String = inner.chars().filter(|c| !"[].".contains(*c)).collect();
    let link = format!("[`{inner}`](#{})", anchor.to_lowercase());
    match key.kind {
        ValueKind::Table(_) | ValueKind::Named(_) => format!("a table, {link}"),
        ValueKind::Tables(_) => format!("a list of tables, {link}"),
        ValueKind::FlagOrTable(_) => format!("`true`, `false` or a table, {link}"),
        ValueKind::Time { min, max } => {
            let (min, max) = (format_duration(min), format_duration(max));
            format!("a time from `\"{min}\"` to `\"{max}\"`")
        }
        ValueKind::Size { min, max } => {
            let (min, max) = (format_size(min), format_size(max));
            format!("a size from `\"{min}\"` to `\"{max}\"`")
        }
        ValueKind::Rate => format!("a rate whose count is from 1 to {RATE_MAX}"),
        _ => key.kind.allowed(),
    }
}

/// A default as the file writes it.
fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

/// Lines of at most [`WIDTH`] columns.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length <= WIDTH {
            lines.push(' ');
            width += 1 + length;
        } else {
            if width > 0 {
                lines.push('\n');
            }
            lines.push_str(indent);
            width = indent.len() + length;
        }
        lines.push_str(word);
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_table_is_described_in_sentences() {
        let mut tables = vec![(String::new(), Config::SPEC)];
        collect(Config::SPEC, "", &mut tables);
        for (path, table) in tables {
            let keys = table.all().map(|key| (key.name, key.doc));
            for (name, doc) in keys.chain([("", table.doc)]) {
                let paragraphs: Vec<_> = doc.split("\n\n").collect();
                assert!((1..=2).contains(&paragraphs.len()), "{path} {name}");
                let ends = |text: &&str| text.trim_end().ends_with('.');
                assert!(paragraphs.iter().all(ends), "{path} {name}: {doc}");
            }
        }
    }

    #[test]
    fn a_key_is_shown_with_its_bounds_default_and_reason() {
        let page = reference();
        let window = "- **`window`**: a time from `\"100ms\"` to `\"1d\"`; default `\"10s\"`.\n\n  \
                      Time in which failures count.\n\n  *Why: Long enough that";
        assert!(page.contains(window), "{page}");
        assert!(page.contains("default `0`; read at start only."));
        assert!(page.contains("[`[pool.NAME.check.tls]`](#poolnamechecktls)"));
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
