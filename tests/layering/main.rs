//! Holds the sources to their floors: no import that goes up or sideways, no circle of imports
//! between the files of a room, no `unsafe` outside `net`, no file over 400 lines of code. The rules
//! are in ARCHITECTURE.md; the table of floors is the one of `src/lib.rs`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by a panic; its modules are its own"
)]

mod sources;
mod wording;

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use sources::{Source, flat};

/// Lines of code a file may have, without its tests, blank lines and comments.
const MAX_LINES: usize = 400;

/// Rooms by floor, lowest first. `lib` and `main` are files, not rooms: they stand above all.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["wire", "balance", "config"],
    &["net"],
    &["tls", "observe"],
    &["remote"],
    &["pool", "admission"],
    &["relay"],
    &["proxy", "health", "discovery", "cluster"],
    &["server"],
    &["admin"],
    &["cli"],
];

/// A path that begins with `crate`, `evenkeel` or `super`, as full segments from the crate's root.
struct Import {
    line: usize,
    path: Vec<String>,
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn imports(source: &Source) -> Vec<Import> {
    let mut found = Vec::new();
    scan(source.tokens(), &source.module(), &mut found);
    found
}

fn scan(tokens: TokenStream, module: &[String], found: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Group(group) => scan(group.stream(), module, found),
            TokenTree::Ident(word) if !follows_path(&tokens, at) => {
                let base = match word.to_string().as_str() {
                    "crate" | "evenkeel" => Some(Vec::new()),
                    "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                    _ => None,
                };
                if let Some(base) = base.filter(|_| is_colons(&tokens, at + 1)) {
                    let line = word.span().start().line;
                    paths(&tokens[at + 3..], base, line, found);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// True behind `::`: such a word begins no path.
fn follows_path(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_colons(tokens, at - 2)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon =
        |at| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

/// Follows a path to its end, into every branch of a `{..}` group.
fn paths(tokens: &[TokenTree], mut path: Vec<String>, line: usize, found: &mut Vec<Import>) {
    match tokens.first() {
        Some(TokenTree::Ident(word)) => {
            if *word == "super" {
                path.pop();
            } else {
                path.push(word.to_string());
            }
            if is_colons(tokens, 1) {
                return paths(&tokens[3..], path, line, found);
            }
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let inside: Vec<TokenTree> = group.stream().into_iter().collect();
            let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
            for branch in inside.split(is_comma).filter(|branch| !branch.is_empty()) {
                let line = branch[0].span().start().line;
                paths(branch, path.clone(), line, found);
            }
            return;
        }
        _ => {}
    }
    found.push(Import { line, path });
}

fn lines_of_code(source: &Source) -> usize {
    let mut lines = BTreeSet::new();
    for token in flat(source.tokens()) {
        match token {
            TokenTree::Group(group) => {
                lines.insert(group.span_open().start().line);
                lines.insert(group.span_close().start().line);
            }
            token => lines.extend(token.span().start().line..=token.span().end().line),
        }
    }
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let text: Vec<&str> = source.text.lines().collect();
    lines.retain(|&line| text.get(line - 1).is_some_and(|line| !is_comment(line)));
    lines.len()
}

/// Everything wrong with one file, one line each.
fn complaints(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let shown = source.path.display();
    let lines = lines_of_code(source);
    if lines > MAX_LINES {
        wrong.push(format!(
            "{shown}: {lines} lines of code, at most {MAX_LINES}"
        ));
    }
    let room = source.room();
    let is_unsafe =
        |token: &TokenTree| matches!(token, TokenTree::Ident(word) if *word == "unsafe");
    if room.as_deref() != Some("net") && flat(source.tokens()).iter().any(is_unsafe) {
        wrong.push(format!("{shown}: unsafe outside net"));
    }
    let own_floor = match room.as_deref().map(floor) {
        None => FLOORS.len(),
        Some(Some(floor)) => floor,
        Some(None) => {
            wrong.push(format!("{shown}: its room stands on no floor"));
            return wrong;
        }
    };
    for Import { line, path } in imports(source) {
        let Some(named) = path.first().filter(|named| Some(*named) != room.as_ref()) else {
            continue;
        };
        match floor(named) {
            Some(floor) if floor < own_floor => {}
            Some(floor) if floor == own_floor => {
                wrong.push(format!("{shown}:{line}: {named} is on the same floor"));
            }
            Some(_) => wrong.push(format!("{shown}:{line}: {named} is on a higher floor")),
            // An item of `lib.rs` itself, which stands above every room.
            None if room.is_some() => wrong.push(format!("{shown}:{line}: {named} is no room")),
            None => {}
        }
    }
    wrong
}

/// The files of each room that import each other in a circle.
fn circles(sources: &[Source]) -> Vec<Vec<String>> {
    let files: BTreeMap<Vec<String>, String> = sources
        .iter()
        .map(|source| (source.module(), source.path.display().to_string()))
        .collect();
    let mut reaches: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let own = source.path.display().to_string();
        let targets = imports(source).into_iter().filter_map(|import| {
            (1..=import.path.len())
                .rev()
                .find_map(|length| files.get(&import.path[..length]).cloned())
        });
        reaches.insert(
            own.clone(),
            targets.filter(|target| *target != own).collect(),
        );
    }
    // The transitive closure: the rooms are small.
    loop {
        let before: usize = reaches.values().map(BTreeSet::len).sum();
        let files: Vec<String> = reaches.keys().cloned().collect();
        for file in &files {
            let next: Vec<String> = reaches[file]
                .iter()
                .filter_map(|target| reaches.get(target))
                .flatten()
                .cloned()
                .collect();
            if let Some(known) = reaches.get_mut(file) {
                known.extend(next);
            }
        }
        if reaches.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (file, all) in &reaches {
        let known = circles.iter().any(|circle| circle.contains(file));
        if known || !all.contains(file) {
            continue;
        }
        let together = |other: &&String| reaches.get(*other).is_some_and(|all| all.contains(file));
        circles.push(all.iter().filter(together).cloned().collect());
    }
    circles
}

#[test]
fn the_sources_keep_their_floors() {
    let wrong: Vec<String> = sources::all().iter().flat_map(complaints).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let circles: Vec<String> = circles(&sources::all())
        .iter()
        .map(|circle| circle.join(" "))
        .collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn the_table_of_floors_is_the_one_of_lib() {
    let sources = sources::all();
    let lib = sources
        .iter()
        .find(|source| source.path.ends_with("lib.rs"));
    let mut declared: Vec<String> = lib
        .expect("lib.rs")
        .text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|line| line.strip_suffix(';').map(str::to_owned))
        .collect();
    let mut listed: Vec<&str> = FLOORS.concat();
    listed.sort_unstable();
    declared.sort_unstable();
    assert_eq!(listed, declared);
}

fn check(file: &str, text: &str) -> Vec<String> {
    complaints(&Source::parse(file, text))
}

#[test]
fn an_import_that_goes_up_is_seen() {
    assert_eq!(
        check("pool/pick.rs", "use crate::server::Server;\n"),
        ["pool/pick.rs:1: server is on a higher floor"]
    );
    assert_eq!(
        check("wire/mod.rs", "\nuse crate::{base::units, net::Peer};"),
        ["wire/mod.rs:2: net is on a higher floor"]
    );
    let inside = "fn f() { super::super::proxy::serve() }";
    assert_eq!(check("relay/leg.rs", inside).len(), 1);
    assert_eq!(check("relay/mod.rs", "use super::proxy;").len(), 1);
    let answer = "fn f() -> crate::config::Config { todo!() }";
    assert_eq!(check("base/units.rs", answer).len(), 1);
    let in_a_macro = "fn f() { println!(\"{}\", crate::cli::name()) }";
    assert_eq!(check("pool/pick.rs", in_a_macro).len(), 1);
}

#[test]
fn an_import_that_goes_sideways_is_seen() {
    assert_eq!(
        check("proxy/http.rs", "use crate::health::Watch;"),
        ["proxy/http.rs:1: health is on the same floor"]
    );
    let group = "use crate::{\n  net::Peer,\n  observe::{Record, End},\n};";
    assert_eq!(check("tls/mod.rs", group).len(), 2);
}

#[test]
fn an_import_that_goes_down_or_stays_is_fine() {
    let group = "use crate::{pool::{Lease, Pool}, relay};\nuse super::rules::Rules;";
    assert_eq!(check("proxy/http.rs", group), [""; 0]);
    assert_eq!(check("main.rs", "use evenkeel::cli;"), [""; 0]);
    let tests = "#[cfg(test)]\nmod tests { use super::*; use super::super::server; }";
    assert_eq!(check("pool/pick.rs", tests), [""; 0]);
}

#[test]
fn a_room_without_a_floor_is_seen() {
    assert_eq!(
        check("attic/mod.rs", "use crate::base::units;"),
        ["attic/mod.rs: its room stands on no floor"]
    );
    assert_eq!(check("pool/mod.rs", "use crate::attic::Box;").len(), 1);
}

#[test]
fn words_in_comments_and_literals_are_no_imports() {
    let text = "// crate::server::Server\nconst A: &str = \"crate::server::x unsafe\";";
    assert_eq!(check("pool/mod.rs", text), [""; 0]);
}

#[test]
fn unsafe_is_seen_outside_net_only() {
    let text = "fn f() { unsafe { g() } }";
    assert_eq!(check("net/fds.rs", text), [""; 0]);
    assert_eq!(
        check("relay/pipe.rs", text),
        ["relay/pipe.rs: unsafe outside net"]
    );
}

#[test]
fn a_file_that_is_too_long_is_seen_without_its_tests_and_comments() {
    let function = "/// Said.\nfn f() {}\n\n".repeat(MAX_LINES);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{function}}}\n");
    assert_eq!(check("pool/mod.rs", &format!("{function}{tests}")), [""; 0]);
    assert_eq!(
        check("pool/mod.rs", &format!("{function}fn g() {{}}\n{tests}")),
        ["pool/mod.rs: 401 lines of code, at most 400"]
    );
}

#[test]
fn a_circle_is_seen_and_a_row_is_none() {
    let room = |one: &str, other: &str| {
        circles(&[
            Source::parse("pool/mod.rs", "pub use pick::Pick;"),
            Source::parse("pool/pick.rs", one),
            Source::parse("pool/view.rs", other),
        ])
    };
    let row = room("use super::view::View;", "use crate::base::units;");
    assert_eq!(row, Vec::<Vec<String>>::new());
    let circle = room("use super::view::View;", "fn f() { super::pick::g() }");
    assert_eq!(circle, [["pool/pick.rs", "pool/view.rs"]]);
}
