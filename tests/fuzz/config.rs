//! Configuration reader: no text makes it panic, every error has its line, and a right text differs
//! in nothing from itself.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use evenkeel::config::{self, Action};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A file that is right, to begin with.
const RIGHT: &str = include_str!("../../balancer.toml");

#[derive(Debug, Arbitrary)]
enum Case {
    Text(String),
    Bytes(Vec<u8>),
    Written(Vec<Line>),
    /// The reference file with lines left out, doubled and put in.
    Edited(Vec<(u16, Edit)>),
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Remove,
    Double,
    Insert(Line),
    Replace(Line),
}

#[derive(Debug, Arbitrary)]
enum Line {
    Header { word: u16, list: bool, name: u8 },
    Pair(u16, Written),
    Comment(String),
    Raw(String),
}

#[derive(Debug, Arbitrary)]
enum Written {
    Flag(bool),
    Number(i32),
    Word(u16),
    Text(String),
    Time(u32, u8),
    Address(u8, u16),
    List(Vec<Written>),
    Table(Vec<(u16, Written)>),
    Raw(String),
}

fuzz_target!(|case: Case| {
    let text = case.text();
    let file = Path::new("balancer.toml");
    let _ = config::admin_alone(&text, file);
    match config::parse(&text, file) {
        Ok(read) => {
            assert_eq!(config::diff(&read, &read), []);
            let changes = config::preview(&read, &read);
            assert!(changes.iter().all(|change| change.action == Action::Kept));
        }
        Err(errors) => {
            let messages = errors.messages();
            assert!(!messages.is_empty());
            let lines = text.matches('\n').count() + 1;
            for message in messages {
                assert!((1..=lines).contains(&message.line), "{message:?}");
                assert!(
                    message.column >= 1 && !message.message.is_empty(),
                    "{message:?}"
                );
            }
            assert!(errors.to_string().contains("balancer.toml"));
        }
    }
});

/// Every word that a key or a value may be.
fn words() -> &'static [String] {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let mut words = vec!["chat".to_owned(), "n1".to_owned()];
        collect(&config::schema(), &mut words);
        words.sort();
        words.dedup();
        words
    })
}

fn collect(schema: &Value, words: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                words.extend(properties.keys().cloned());
            }
            if let Some(Value::Array(allowed)) = members.get("enum") {
                words.extend(allowed.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            members.values().for_each(|member| collect(member, words));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        _ => {}
    }
}

fn word(index: u16) -> &'static str {
    let words = words();
    &words[usize::from(index) % words.len()]
}

impl Case {
    fn text(&self) -> String {
        match self {
            Case::Text(text) => text.clone(),
            Case::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Case::Written(lines) => lines.iter().map(Line::text).collect(),
            Case::Edited(edits) => {
                let mut lines: Vec<String> =
                    RIGHT.lines().map(|line| format!("{line}\n")).collect();
                for (at, edit) in edits {
                    let at = usize::from(*at) % lines.len().max(1);
                    match edit {
                        Edit::Remove if lines.len() > 1 => drop(lines.remove(at)),
                        Edit::Remove => {}
                        Edit::Double => lines.insert(at, lines[at].clone()),
                        Edit::Insert(line) => lines.insert(at, line.text()),
                        Edit::Replace(line) => lines[at] = line.text(),
                    }
                }
                lines.concat()
            }
        }
    }
}

impl Line {
    fn text(&self) -> String {
        match self {
            Line::Header {
                word: key,
                list,
                name,
            } => {
                let key = word(*key);
                let name = if name % 2 == 0 {
                    String::new()
                } else {
                    format!(".{}", name % 8)
                };
                if *list {
                    format!("[[{key}{name}]]\n")
                } else {
                    format!("[{key}{name}]\n")
                }
            }
            Line::Pair(key, value) => format!("{} = {}\n", word(*key), value.text()),
            Line::Comment(text) => format!("# {text}\n"),
            Line::Raw(text) => format!("{text}\n"),
        }
    }
}

impl Written {
    fn text(&self) -> String {
        match self {
            Written::Flag(flag) => flag.to_string(),
            Written::Number(number) => number.to_string(),
            Written::Word(index) => format!("\"{}\"", word(*index)),
            Written::Text(text) => format!("{text:?}"),
            Written::Time(number, unit) => {
                let units = ["ms", "s", "m", "h", "d", "KiB", "%", ""];
                format!("\"{number}{}\"", units[usize::from(unit % 8)])
            }
            Written::Address(last, port) => format!("\"127.0.0.{last}:{port}\""),
            Written::List(items) => {
                let items: Vec<String> = items.iter().map(Written::text).collect();
                format!("[{}]", items.join(", "))
            }
            Written::Table(pairs) => {
                let pairs = pairs.iter();
                let pairs: Vec<String> = pairs
                    .map(|(key, value)| format!("{} = {}", word(*key), value.text()))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            Written::Raw(text) => text.clone(),
        }
    }
}
