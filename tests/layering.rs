//! Reads the sources and holds them to their floors: no import that goes up or sideways, no file over 400 lines of code,
//! no `unsafe` outside `net`. ARCHITECTURE.md explains the floors; the table below is the one of `src/lib.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code a file may have, without its tests, blank lines and comments.
const MAX_LINES: usize = 400;

/// Rooms by floor, lowest first. `lib` and `main` are files, not rooms: they stand on the highest floor.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["wire", "balance", "config"],
    &["net"],
    &["tls", "observe"],
    &["pool", "admission"],
    &["relay"],
    &["proxy", "health", "discovery"],
    &["server"],
    &["admin"],
    &["cli"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The source with comments blanked and the inside of literals masked; line breaks stay where they are.
fn code_only(source: &str) -> String {
    let bytes: Vec<char> = source.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < bytes.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => {
                let end = (i..bytes.len())
                    .find(|&j| bytes[j] == '\n')
                    .unwrap_or(bytes.len());
                blank(&mut out, &bytes[i..end], ' ');
                end
            }
            ('/', '*') => {
                let end = block_comment_end(&bytes, i);
                blank(&mut out, &bytes[i..end], ' ');
                end
            }
            ('"', _) => masked(&mut out, &bytes, i, string_end(&bytes, i)),
            ('r', '"' | '#') if i == 0 || !is_word(bytes[i - 1]) || bytes[i - 1] == 'b' => {
                match raw_string_end(&bytes, i) {
                    Some(end) => masked(&mut out, &bytes, i, end),
                    None => plain(&mut out, &bytes, i),
                }
            }
            ('\'', '\\') => {
                let end = (i + 3..bytes.len())
                    .find(|&j| bytes[j] == '\'')
                    .map_or(bytes.len(), |j| j + 1);
                masked(&mut out, &bytes, i, end)
            }
            ('\'', _) if at(i + 2) == '\'' => masked(&mut out, &bytes, i, i + 3),
            _ => plain(&mut out, &bytes, i),
        };
        i = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn plain(out: &mut String, bytes: &[char], i: usize) -> usize {
    out.push(bytes[i]);
    i + 1
}

fn blank(out: &mut String, bytes: &[char], with: char) {
    out.extend(bytes.iter().map(|&c| if c == '\n' { '\n' } else { with }));
}

fn masked(out: &mut String, bytes: &[char], start: usize, end: usize) -> usize {
    // A mask that is no blank, so that the lines of a long literal count as lines of code.
    blank(out, &bytes[start..end], '"');
    end
}

fn string_end(bytes: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < bytes.len() {
        match bytes[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[char], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&'"') {
        return None;
    }
    (open + 1..bytes.len())
        .find(|&i| {
            bytes[i] == '"'
                && bytes[i + 1..]
                    .iter()
                    .take(hashes)
                    .filter(|&&c| c == '#')
                    .count()
                    == hashes
        })
        .map(|i| i + 1 + hashes)
}

fn block_comment_end(bytes: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < bytes.len() {
        match (bytes[i], bytes[i + 1]) {
            ('/', '*') => {
                depth += 1;
                i += 2;
            }
            ('*', '/') => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    bytes.len()
}

/// Where the `#[cfg(test)]` modules of masked code begin and end, as byte ranges.
fn test_parts(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let rest = &code[start..];
        let Some(open) = rest.find(['{', ';']) else {
            continue;
        };
        if rest.as_bytes()[open] == b';' {
            parts.push(start..start + open + 1);
            continue;
        }
        let mut depth = 0usize;
        let end = rest[open..].char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(open + i + 1)
        });
        parts.push(start..start + end.unwrap_or(rest.len()));
    }
    parts
}

fn lines_of_code(source: &str) -> usize {
    let mut code = code_only(source);
    for part in test_parts(&code).into_iter().rev() {
        code.replace_range(part, "");
    }
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The module path of a file below `src`: `proxy/http.rs` -> `[proxy, http]`, `proxy/mod.rs` -> `[proxy]`, `lib.rs` -> `[]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(
        path.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        path.pop();
    }
    path
}

/// The rooms that a piece of masked code of a file names, with the line of each.
fn rooms_named(file: &Path, code: &str) -> Vec<(usize, String)> {
    let tests = test_parts(code);
    let module = module_path(file);
    let mut found = Vec::new();
    for (keyword, is_super) in [("crate::", false), ("evenkeel::", false), ("super::", true)] {
        for (at, _) in code.match_indices(keyword) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(is_word) || (is_super && code[..at].ends_with("super::")) {
                continue;
            }
            let mut rest = &code[at + keyword.len()..];
            let mut base = Vec::new();
            if is_super {
                let mut ups = 1;
                while let Some(further) = rest.strip_prefix("super::") {
                    ups += 1;
                    rest = further;
                }
                // A test module of the file itself is one level deeper than the file.
                let nested = usize::from(tests.iter().any(|part| part.contains(&at)));
                base = module.clone();
                base.truncate((module.len() + nested).saturating_sub(ups));
            }
            let line = code[..at].matches('\n').count() + 1;
            match base.first() {
                Some(room) => found.push((line, room.clone())),
                None => found.extend(first_names(rest).into_iter().map(|name| (line, name))),
            }
        }
    }
    found.sort();
    found
}

/// The names a path or a `{..}` group begins with.
fn first_names(rest: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|&c| is_word(c))
            .collect::<String>()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut names = vec![word(group)];
    let mut depth = 0usize;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[i + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Everything wrong with one file, one line each.
fn complaints(file: &Path, source: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let shown = file.display();
    let code = code_only(source);
    let is_test_file = file.file_stem().is_some_and(|stem| stem == "tests");
    let lines = lines_of_code(source);
    if lines > MAX_LINES && !is_test_file {
        wrong.push(format!(
            "{shown}: {lines} lines of code, at most {MAX_LINES}"
        ));
    }
    let module = module_path(file);
    let room = module.first().map(String::as_str);
    if room != Some("net")
        && code
            .split(|c: char| !is_word(c))
            .any(|word| word == "unsafe")
    {
        wrong.push(format!("{shown}: unsafe outside net"));
    }
    let own_floor = match room {
        None => FLOORS.len(),
        Some(room) => match floor(room) {
            Some(floor) => floor,
            None => {
                wrong.push(format!("{shown}: room {room} stands on no floor"));
                return wrong;
            }
        },
    };
    for (line, named) in rooms_named(file, &code) {
        if Some(named.as_str()) == room {
            continue;
        }
        match floor(&named) {
            Some(floor) if floor < own_floor => {}
            Some(floor) if floor == own_floor => {
                wrong.push(format!("{shown}:{line}: {named} is on the same floor"))
            }
            Some(_) => wrong.push(format!("{shown}:{line}: {named} is on a higher floor")),
            // An item of `lib.rs` itself, which stands above every room.
            None if room.is_some() => wrong.push(format!("{shown}:{line}: {named} is no room")),
            None => {}
        }
    }
    wrong
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read the sources") {
        let path = entry.expect("read the sources").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_sources_keep_their_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(
        files.len() > 20,
        "only {} sources found below {}",
        files.len(),
        root.display()
    );
    let mut report = String::new();
    for path in files {
        let source = fs::read_to_string(&path).expect("read a source");
        for complaint in complaints(path.strip_prefix(&root).expect("below src"), &source) {
            writeln!(report, "src/{complaint}").expect("write to a string");
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_table_of_floors_is_the_one_of_lib() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
        .expect("read lib.rs");
    let rooms: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_suffix(';')?.split_once("mod "))
        .filter(|(visible, _)| ["pub ", "pub(crate) "].contains(visible))
        .map(|(_, room)| room)
        .collect();
    let mut listed: Vec<&str> = FLOORS
        .iter()
        .flat_map(|rooms| rooms.iter().copied())
        .collect();
    let mut declared = rooms.clone();
    listed.sort_unstable();
    declared.sort_unstable();
    assert_eq!(listed, declared);
}

fn check(file: &str, source: &str) -> Vec<String> {
    complaints(Path::new(file), source)
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
    assert_eq!(
        check("relay/leg.rs", "fn f() { super::super::proxy::serve() }").len(),
        1
    );
    assert_eq!(check("relay/mod.rs", "use super::proxy;").len(), 1);
    assert_eq!(
        check(
            "base/units.rs",
            "fn f() -> crate::config::Config { todo!() }"
        )
        .len(),
        1
    );
}

#[test]
fn an_import_that_goes_sideways_is_seen() {
    assert_eq!(
        check("proxy/http.rs", "use crate::health::Watch;"),
        ["proxy/http.rs:1: health is on the same floor"]
    );
    assert_eq!(
        check(
            "tls/mod.rs",
            "use crate::{\n  net::Peer,\n  observe::{Record, End},\n};"
        )
        .len(),
        1
    );
}

#[test]
fn an_import_that_goes_down_or_stays_is_fine() {
    assert_eq!(
        check(
            "proxy/http.rs",
            "use crate::{pool::{Lease, Pool}, relay};\nuse super::rules::Rules;"
        ),
        [""; 0]
    );
    assert_eq!(check("main.rs", "use evenkeel::cli;"), [""; 0]);
    assert_eq!(
        check(
            "pool/mod.rs",
            "#[cfg(test)]\nmod tests { use super::*; use super::pick; }"
        ),
        [""; 0]
    );
    assert_eq!(
        check(
            "pool/pick.rs",
            "#[cfg(test)]\nmod tests { use super::super::Pool; }"
        ),
        [""; 0]
    );
}

#[test]
fn words_in_comments_and_literals_are_no_imports() {
    let source = "//! crate::server is above\n/* unsafe /* crate::cli */ */\nconst A: &str = \"crate::cli unsafe\";\n\
                  const B: &str = r#\"crate::\"cli\"#;\nconst C: char = '\"';\nfn f<'a>(x: &'a str) {}\n";
    assert_eq!(check("pool/mod.rs", source), [""; 0]);
}

#[test]
fn unsafe_is_seen_outside_net_only() {
    assert_eq!(
        check("relay/splice.rs", "fn f() { unsafe { g() } }"),
        ["relay/splice.rs: unsafe outside net"]
    );
    assert_eq!(check("net/fd.rs", "fn f() { unsafe { g() } }"), [""; 0]);
    assert_eq!(check("lib.rs", "#![deny(unsafe_code)]"), [""; 0]);
}

#[test]
fn a_file_that_is_too_long_is_seen_without_its_tests_and_comments() {
    let long = "let x = 1;\n".repeat(MAX_LINES + 1);
    assert_eq!(check("pool/mod.rs", &long).len(), 1);
    let fits = format!(
        "//! Head.\n\n{}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
        "let x = 1;\n".repeat(MAX_LINES),
        "let y = \"}\";\n".repeat(500)
    );
    assert_eq!(check("pool/mod.rs", &fits), [""; 0]);
}

#[test]
fn a_room_without_a_floor_is_seen() {
    assert_eq!(
        check("attic/mod.rs", ""),
        ["attic/mod.rs: room attic stands on no floor"]
    );
    assert_eq!(
        check("pool/mod.rs", "use crate::attic::x;"),
        ["pool/mod.rs:1: attic is no room"]
    );
}
