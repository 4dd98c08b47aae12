//! Holds `balancer.toml`, the schema, the reference page and the examples against the code: every key
//! stands in the file with the default and the comment of its declaration, and no damage to a file
//! makes the reader panic or lose the place.
//!
//! `WRITE_REFERENCE=1 cargo test --test reference` writes the pages, the schema and the comments anew.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use evenkeel::config::{self, Config, ConfigErrors, ErrorKind};
use proptest::prelude::*;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> String {
    fs::read_to_string(root().join("balancer.toml")).expect("balancer.toml")
}

fn read(text: &str) -> Result<Config, ConfigErrors> {
    config::parse(text, Path::new("balancer.toml"))
}

/// A line of the reference file that shows a key.
#[derive(Debug, Clone)]
struct Shown {
    index: usize,
    /// The table as the schema knows it, such as `pool.*.check`.
    table: String,
    key: String,
    value: Value,
    active: bool,
    comment: String,
}

/// Headers and keys stand at the beginning of a line; what is commented out has `#` and no space before it.
fn shown(text: &str) -> Vec<Shown> {
    let mut table = String::new();
    let mut shown = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let active = !line.starts_with('#');
        let bare = line.strip_prefix('#').unwrap_or(line);
        if bare.starts_with('[') {
            table = generic(bare);
            let (parent, key) = table.rsplit_once('.').unwrap_or(("", &table));
            let (table, key) = (parent.to_owned(), key.to_owned());
            shown.push(Shown {
                index,
                table,
                key,
                value: Value::Null,
                active,
                comment: String::new(),
            });
        } else if bare.starts_with(|c: char| c.is_ascii_lowercase())
            && let Ok(parsed) = toml::from_str::<toml::Table>(bare)
        {
            for (key, value) in parsed {
                let comment = bare
                    .split_once(" # ")
                    .map_or("", |(_, comment)| comment)
                    .to_owned();
                let value = serde_json::to_value(value).expect("a value");
                shown.push(Shown {
                    index,
                    table: table.clone(),
                    key,
                    value,
                    active,
                    comment,
                });
            }
        } else if let (Some(last), Some(comment)) = (shown.last_mut(), continued(line)) {
            last.comment = format!("{} {comment}", last.comment);
        }
    }
    shown
}

/// The rest of a comment that began behind a key.
fn continued(line: &str) -> Option<&str> {
    line.strip_prefix("    ")?.trim_start().strip_prefix("# ")
}

/// `[pool.chat.check]` as `pool.*.check`.
fn generic(header: &str) -> String {
    let name = header
        .split(']')
        .next()
        .unwrap_or_default()
        .trim_start_matches('[');
    let parts = name.split('.').enumerate();
    let is_name = |index: usize| index == 1 && name.starts_with("pool.");
    parts
        .map(|(index, part)| if is_name(index) { "*" } else { part })
        .collect::<Vec<_>>()
        .join(".")
}

/// Every key of the schema by table and name.
fn declared() -> BTreeMap<(String, String), Value> {
    fn walk(schema: &Value, table: &str, found: &mut BTreeMap<(String, String), Value>) {
        let inside = |part: &str| {
            if table.is_empty() {
                part.to_owned()
            } else {
                format!("{table}.{part}")
            }
        };
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            found.insert((table.to_owned(), key.clone()), property.clone());
            let path = inside(key);
            for table in [property, &property["items"], &property["oneOf"][1]] {
                walk(table, &path, found);
            }
            walk(
                &property["additionalProperties"],
                &format!("{path}.*"),
                found,
            );
        }
    }
    let mut found = BTreeMap::new();
    walk(&config::schema(), "", &mut found);
    found
}

fn with_line(text: &str, index: usize, line: &str) -> String {
    let lines = text
        .lines()
        .enumerate()
        .map(|(at, old)| if at == index { line } else { old });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Asserts that a file has this text, or writes it where that is asked for.
fn is_up_to_date(name: &str, text: &str) {
    let file = root().join(name);
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        fs::write(&file, text).expect("writable");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    let lines = committed.lines().zip(text.lines()).enumerate();
    let first = lines.into_iter().find(|(_, (old, new))| old != new);
    assert!(
        committed == text,
        "{name} is out of date: WRITE_REFERENCE=1 cargo test --test reference; first: {first:?}"
    );
}

/// Column at which comments of keys begin.
const COMMENTS: usize = 32;
/// Longest line of the file.
const LINE: usize = 100;

#[test]
fn the_comments_of_the_reference_file_are_those_of_the_declarations() {
    let text = reference();
    let declared = declared();
    let shown = first_of_each_key(shown(&text));
    let mut keys = BTreeMap::new();
    for shown in &shown {
        let property = &declared[&(shown.table.clone(), shown.key.clone())];
        let line = text.lines().nth(shown.index).unwrap_or_default();
        let end = line.find(" # ").unwrap_or(line.len());
        let line = with_comment(line[..end].trim_end(), &comment(property, &shown.value));
        keys.insert(shown.index, line);
    }
    for ((table, key), property) in &declared {
        let is_key = |shown: &&Shown| shown.table == *table && shown.key == *key;
        let beside = shown.iter().rfind(|shown| shown.table == *table);
        if let (None, Some(beside), Some(default)) =
            (shown.iter().find(is_key), beside, property.get("default"))
        {
            let mark = if beside.active { "" } else { "#" };
            let line = format!("{mark}{key} = {}", written(default));
            let lines = keys.entry(beside.index).or_default();
            lines.push_str(&with_comment(&line, &comment(property, default)));
        }
    }
    let mut commented = String::new();
    for (index, line) in text.lines().enumerate() {
        match keys.get(&index) {
            Some(lines) => commented.push_str(lines),
            None if continued(line).is_some() => {}
            None => commented.push_str(&format!("{line}\n")),
        }
    }
    is_up_to_date("balancer.toml", &commented);
}

/// The first line of each key, but for tables.
fn first_of_each_key(shown: Vec<Shown>) -> Vec<Shown> {
    let mut seen = BTreeSet::new();
    let keys = shown.into_iter().filter(|shown| !shown.value.is_null());
    let mut is_first = |shown: &Shown| seen.insert((shown.table.clone(), shown.key.clone()));
    keys.filter(|shown| is_first(shown)).collect()
}

/// A default as the file writes it.
fn written(default: &Value) -> String {
    default.to_string().replace("\",\"", "\", \"")
}

/// The words that are allowed, the first sentence of the description, what it means that the key
/// is not there, and the default where another value is shown.
fn comment(property: &Value, value: &Value) -> String {
    let words = property["enum"].as_array();
    let words = words.or_else(|| property["items"]["enum"].as_array());
    let words = words.map(|words| {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        format!("{}: ", words.join(" | "))
    });
    let description = property["description"].as_str().unwrap_or_default();
    let description = description.split(" Allowed: ").next().unwrap_or_default();
    let mut sentences = description.trim_end_matches('.').split(". ");
    let first = sentences.next().unwrap_or_default();
    let without = sentences.find(|sentence| sentence.starts_with("Without it"));
    let without = without.map(|sentence| format!("; w{}", &sentence[1..]));
    let default = property.get("default").filter(|default| *default != value);
    let default =
        default.map(|default| format!("; default: {}", written(default).trim_matches('"')));
    let parts = [words, Some(uncapitalized(first)), without, default];
    parts.into_iter().flatten().collect()
}

/// `A key` as `a key`; names such as `TLS` stay.
fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => text.to_owned(),
    }
}

/// The comment behind a key, over as many lines as it needs.
fn with_comment(line: &str, comment: &str) -> String {
    let column = COMMENTS.max(line.chars().count() + 1);
    let mut text = format!("{line:column$}#");
    let mut width = column + 1;
    for word in comment.split(' ') {
        let length = word.chars().count() + 1;
        if width + length > LINE {
            text.push_str(&format!("\n{:column$}#", ""));
            width = column + 1;
        }
        text.push_str(&format!(" {word}"));
        width += length;
    }
    text.push('\n');
    text
}

#[test]
fn the_reference_page_is_that_of_the_declarations() {
    is_up_to_date("docs/configuration.md", &config::reference());
}

#[test]
fn the_reference_file_is_a_right_configuration() {
    let config = read(&reference()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(reference().starts_with("#:schema ./balancer.schema.json\n"));
    assert!(config.listeners.len() > 1 && config.pools.len() > 1 && config.admin.is_some());
}

#[test]
fn every_key_stands_in_the_reference_file_and_no_other() {
    // `[pool.chat]` shows `pool`, whose keys are names.
    let key = |shown: Shown| match shown.key.as_str() {
        "*" => (String::new(), shown.table),
        _ => (shown.table, shown.key),
    };
    let shown: BTreeSet<_> = shown(&reference()).into_iter().map(key).collect();
    let declared: BTreeSet<_> = declared().into_keys().collect();
    let missing: Vec<_> = declared.difference(&shown).collect();
    let unknown: Vec<_> = shown.difference(&declared).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing {missing:?}, unknown {unknown:?}"
    );
}

/// The first line that shows a key has its default, or names it in its comment: `# default: X`.
#[test]
fn every_default_that_is_written_is_the_one_of_the_code() {
    let declared = declared();
    let mut seen = BTreeSet::new();
    let mut compared = 0;
    for shown in shown(&reference()) {
        let key = (shown.table.clone(), shown.key.clone());
        let Some(default) = declared
            .get(&key)
            .and_then(|property| property.get("default"))
        else {
            continue;
        };
        if shown.value.is_null() || !seen.insert(key) {
            continue;
        }
        compared += 1;
        let named = shown.comment.contains(&format!(
            "default: {}",
            default.to_string().trim_matches('"')
        ));
        assert!(
            shown.value == *default || named,
            "line {}: the default is {default}",
            shown.index + 1
        );
    }
    let with_default = declared
        .values()
        .filter(|property| property.get("default").is_some())
        .count();
    assert_eq!(
        compared, with_default,
        "keys with a default that are compared"
    );
}

#[test]
fn a_default_that_is_left_out_makes_no_difference() {
    let text = reference();
    let (whole, declared) = (read(&text).expect("right"), declared());
    let mut left_out = 0;
    for shown in shown(&text).into_iter().filter(|shown| shown.active) {
        let property = &declared.get(&(shown.table.clone(), shown.key.clone()));
        if property.and_then(|property| property.get("default")) != Some(&shown.value) {
            continue;
        }
        left_out += 1;
        let without = read(&with_line(&text, shown.index, ""));
        assert_eq!(without.as_ref(), Ok(&whole), "line {}", shown.index + 1);
    }
    assert!(left_out > 45, "{left_out}");
}

#[test]
fn every_active_key_does_something() {
    let text = reference();
    let (whole, declared) = (read(&text).expect("right"), declared());
    let mut changed = 0;
    for shown in shown(&text).into_iter().filter(|shown| shown.active) {
        let Some(property) = declared.get(&(shown.table.clone(), shown.key.clone())) else {
            continue;
        };
        let Some(other) = another(property, &shown.value) else {
            continue;
        };
        changed += 1;
        let line = format!("{} = {other}", shown.key);
        assert_ne!(
            read(&with_line(&text, shown.index, &line)).as_ref(),
            Ok(&whole),
            "{}.{line}",
            shown.table
        );
    }
    assert!(changed > 40, "{changed}");
}

/// A value that the key allows too, where its kind says enough to find one.
fn another(property: &Value, value: &Value) -> Option<Value> {
    if let Some(words) = property["enum"].as_array() {
        return words.iter().find(|word| *word != value).cloned();
    }
    match (property["type"].as_str()?, property["pattern"].as_str()) {
        ("boolean", _) => Some(json!(!value.as_bool()?)),
        ("integer", _) => Some(json!(value.as_u64()? + 1)),
        ("string", Some(pattern)) if pattern.contains("ms|s") => Some(json!("7s")),
        ("string", Some(_)) => Some(json!("7%")),
        _ => None,
    }
}

/// What makes a commented-out key usable beside what is active.
const VARIANTS: [(&str, &str); 17] = [
    ("", ""),
    ("#store = \"rediss://10.0.0.9:6379\"", "#tls.verify = true"),
    ("#[cluster]\n#store = ", "[cluster]\nstore = "),
    (
        "#[traces]\n#endpoint = \"http:",
        "[traces]\nendpoint = \"https:",
    ),
    ("protocol = \"websocket\"", "protocol = \"tcp\""),
    (
        "backlog = 4096 ",
        "tls.certificates = [{ cert = \"a\", key = \"b\" }] ",
    ),
    ("balance = \"round_robin\"", "balance = \"hash\""),
    ("type = \"http\"", "type = \"websocket\""),
    ("type = \"http\"", "type = \"expect\""),
    ("type = \"http\"", "type = \"redis\""),
    ("dns = \"localhost:9701\"", ""),
    ("tls = false ", "#tls = false "),
    (
        "follow_frames = true ",
        "tls = { certificates = [{ cert = \"a\", key = \"b\" }] } # ",
    ),
    ("#send_proxy = \"v2\"", "send_proxy = \"v2\""),
    ("bind = \"127.0.0.1:8080\"", "bind = \"unix:/run/a\""),
    ("bind = \"127.0.0.1:9900\"", "bind = \"unix:/run/b\""),
    ("bind = \"127.0.0.1:9901\"", "bind = \"unix:/run/c\""),
];

#[test]
fn every_example_that_is_commented_out_is_right() {
    let text = reference();
    let commented: Vec<_> = shown(&text)
        .into_iter()
        .filter(|shown| !shown.active)
        .collect();
    assert!(commented.len() > 20, "{}", commented.len());
    for shown in commented {
        let block = block(&text, shown.index);
        let right = VARIANTS.iter().any(|(from, to)| {
            let variant = uncommented(&text.replacen(from, to, 1), &block);
            let messages = read(&variant)
                .err()
                .map(|errors| errors.messages())
                .unwrap_or_default();
            messages.iter().all(|message| {
                message.fault != ErrorKind::Syntax && message.line != shown.index + 1
            })
        });
        assert!(
            right,
            "line {} is wrong when it is uncommented",
            shown.index + 1
        );
    }
}

/// The lines that are uncommented together: a header with its keys, or a key alone.
fn block(text: &str, index: usize) -> RangeInclusive<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let is_code = |at: &usize| {
        let is_key =
            lines[*at].starts_with('#') && !lines[*at].starts_with("# ") && lines[*at].len() > 1;
        is_key || continued(lines[*at]).is_some()
    };
    let first = (0..=index)
        .rev()
        .take_while(is_code)
        .find(|at| lines[*at].starts_with("#["));
    let last = (index..lines.len()).take_while(is_code).last();
    match (first, last) {
        (Some(first), Some(last)) => first..=last,
        _ => index..=index,
    }
}

fn uncommented(text: &str, block: &RangeInclusive<usize>) -> String {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(at, line)| {
        if block.contains(&at) {
            line.trim_start_matches('#')
        } else {
            line
        }
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_schema_file_is_the_schema_of_the_code() {
    let schema = serde_json::to_string_pretty(&config::schema()).expect("JSON");
    is_up_to_date("balancer.schema.json", &format!("{schema}\n"));
}

fn examples() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("examples")).expect("examples");
    let files = folder.map(|entry| entry.expect("entry").path());
    files
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect()
}

#[test]
fn every_example_is_right_and_says_what_it_is_for() {
    let examples = examples();
    assert!(examples.len() >= 5);
    for file in examples {
        let text = fs::read_to_string(&file).expect("readable");
        config::parse(&text, &file).unwrap_or_else(|errors| panic!("{errors}"));
        let head = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .count();
        assert!(
            head > 3 && text.starts_with("#:schema ../balancer.schema.json\n"),
            "{}",
            file.display()
        );
    }
}

/// Either right, or every problem has its place in the text and can be drawn.
fn is_survived(text: &str, draw: bool) {
    let Err(errors) = read(text) else { return };
    let messages = errors.messages();
    assert!(!messages.is_empty());
    let lines = text.matches('\n').count() + 1;
    for message in &messages {
        assert!(
            (1..=lines).contains(&message.line) && message.column > 0,
            "{message:?}"
        );
        assert!(!message.message.is_empty(), "{message:?}");
    }
    if draw {
        assert!(errors.to_string().contains(" --> balancer.toml:"));
    }
}

#[test]
fn a_file_cut_off_at_any_byte_is_right_or_refused_with_a_line() {
    let mut files: Vec<String> = examples()
        .iter()
        .map(|file| fs::read_to_string(file).expect("readable"))
        .collect();
    files.push(reference());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in 0..threads {
            let files = &files;
            scope.spawn(move || {
                for text in files {
                    for end in (part..text.len()).step_by(threads) {
                        if text.is_char_boundary(end) {
                            is_survived(&text[..end], end % 64 == 0);
                        }
                    }
                }
            });
        }
    });
}

/// Pieces that mean something to the parser or to a decoder.
const PIECES: [&str; 20] = [
    "[",
    "]",
    "[[listener]]\n",
    "{",
    "}",
    "\"",
    "'''",
    "=",
    "\n",
    ",",
    "#",
    ".",
    "tls = true\n",
    "pool = 1\n",
    "0x",
    "-1",
    "\u{0}",
    "é",
    "[pool.chat]\n",
    "1979-05-27",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damage_to_the_reference_file_is_survived(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, prop::sample::select(&PIECES[..])), 1..6),
    ) {
        let mut text = reference();
        for (at, length, piece) in edits {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((start + length).min(text.len())).max(start);
            text.replace_range(start..end, piece);
        }
        is_survived(&text, text.len().is_multiple_of(8));
    }

    #[test]
    fn any_text_is_survived(text in any::<String>(), pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        is_survived(&text, true);
        is_survived(&pieces.concat(), true);
    }
}
