//! Holds the sources to the rules of CONTRIBUTING.md that a machine can see: how a doc comment
//! begins, how wide comments are, and that a type's name means one thing.

use std::collections::BTreeMap;

use super::sources::{self, Source};
use syn::Item;

/// Columns of a comment line.
const MAX_COLUMNS: usize = 100;
/// A doc comment begins with a noun or a verb, not with one of these.
const EMPTY_BEGINNINGS: &[&str] = &[
    "It", "Its", "What", "Who", "Whom", "Whose", "Of", "The same", "Nobody", "By", "Behind", "One",
];
/// Doc comments of a hundred that may do so: some sentences are best that way.
const MAX_EMPTY_PERCENT: usize = 1;
/// Types of a hundred that may share their name with another one: `config::Pool` describes the
/// `pool::Pool` that is made of it.
const MAX_SHARED_PERCENT: usize = 10;

/// The first line of each block of doc comments, with its number.
fn doc_beginnings(text: &str) -> Vec<(usize, &str)> {
    let mut beginnings = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let doc = line.trim_start().strip_prefix("///");
        if let Some(doc) = doc.filter(|_| !inside) {
            beginnings.push((number + 1, doc.trim()));
        }
        inside = doc.is_some();
    }
    beginnings
}

fn begins_empty(doc: &str) -> bool {
    EMPTY_BEGINNINGS.iter().any(|beginning| {
        let rest = doc.strip_prefix(beginning);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

fn type_names(items: &[Item], into: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Struct(item) => into.push(item.ident.to_string()),
            Item::Enum(item) => into.push(item.ident.to_string()),
            Item::Trait(item) => into.push(item.ident.to_string()),
            Item::Mod(item) => {
                if let Some((_, items)) = &item.content {
                    type_names(items, into);
                }
            }
            _ => {}
        }
    }
}

fn wide_comments(source: &Source) -> Vec<String> {
    let is_wide =
        |line: &str| line.trim_start().starts_with("//") && line.chars().count() > MAX_COLUMNS;
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| is_wide(line))
        .map(|(number, _)| format!("src/{}:{}", source.path.display(), number + 1))
        .collect()
}

#[test]
fn doc_comments_say_what_a_thing_is() {
    let (mut all, mut empty) = (0, Vec::new());
    for source in sources::all() {
        for (number, doc) in doc_beginnings(&source.text) {
            all += 1;
            if begins_empty(doc) {
                empty.push(format!("src/{}:{number}: {doc}", source.path.display()));
            }
        }
    }
    let allowed = all * MAX_EMPTY_PERCENT / 100;
    assert!(
        empty.len() <= allowed,
        "{} of {all} doc comments begin with a word that says nothing, at most {allowed}:\n{}",
        empty.len(),
        empty.join("\n")
    );
}

#[test]
fn comments_are_not_wide() {
    let wide: Vec<String> = sources::all().iter().flat_map(wide_comments).collect();
    assert!(
        wide.is_empty(),
        "over {MAX_COLUMNS} columns:\n{}",
        wide.join("\n")
    );
}

#[test]
fn a_name_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources::all() {
        let mut names = Vec::new();
        type_names(&source.file.items, &mut names);
        for name in names {
            places
                .entry(name)
                .or_default()
                .push(source.path.display().to_string());
        }
    }
    let all: usize = places.values().map(Vec::len).sum();
    places.retain(|_, places| places.len() > 1);
    let shared: usize = places.values().map(Vec::len).sum();
    let allowed = all * MAX_SHARED_PERCENT / 100;
    let list: Vec<String> = places
        .iter()
        .map(|(name, places)| format!("{name}: {}", places.join(" ")))
        .collect();
    assert!(
        shared <= allowed,
        "{shared} of {all} types share their name, at most {allowed}:\n{}",
        list.join("\n")
    );
}

#[test]
fn an_empty_beginning_is_a_whole_word() {
    assert!(begins_empty("What a peer said.") && begins_empty("The same for TLS."));
    assert!(!begins_empty("Items of a list.") && !begins_empty("Ones and zeros."));
}
