//! Holds the configuration in the README and the docs against the code: an excerpt that somebody copies must be right.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};

use evenkeel::config;

/// The text of each fenced block of `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let parts = text.split(begin.as_str()).skip(1);
    parts
        .filter_map(|part| part.split_once("\n```").map(|(block, _)| block))
        .collect()
}

#[test]
fn the_file_in_the_readme_is_a_right_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(file).expect("README.md");
    let mut files = text.split("<<'END'\n").skip(1);
    let whole = files.next().and_then(|part| part.split_once("\nEND\n"));
    let (whole, _) = whole.expect("a file to paste");
    assert!(files.next().is_none(), "one file is enough");
    if let Err(errors) = config::parse(whole, Path::new("README.md")) {
        panic!("{whole}\n{errors}");
    }
}

/// The commands of our binary in the shell blocks of a page, each by its words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lines = blocks(text, "sh").into_iter().flat_map(str::lines);
    let parts = lines.flat_map(|line| line.split(" && "));
    let calls = parts.filter_map(|part| {
        let part = part.split(" #").next().unwrap_or_default();
        let call = part.trim().strip_prefix("evenkeel ")?;
        // What a shell would make of the rest is not for this test.
        let is_plain = !call.contains(['$', '\'', '"', '`', '>', '|', '\\']);
        is_plain.then(|| call.split_whitespace().map(str::to_owned).collect())
    });
    calls.collect()
}

#[test]
fn every_command_in_a_page_is_one_that_the_binary_understands() {
    let mut pages = guides();
    pages.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let mut seen = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page");
        for words in commands(&text) {
            seen += 1;
            let named = ["evenkeel".to_owned()].into_iter().chain(words.clone());
            if let Err(error) = evenkeel::cli::command().try_get_matches_from(named) {
                let is_help = !error.use_stderr();
                assert!(is_help, "{}: {words:?}\n{error}", page.display());
            }
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn every_recipe_for_a_check_is_a_right_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/checks.md");
    let text = std::fs::read_to_string(file).expect("docs/checks.md");
    let recipes = blocks(&text, "toml");
    assert!(recipes.len() > 8);
    for recipe in recipes {
        let pool = recipe.split(['[', ']', '.']).nth(2).expect("a pool first");
        let listener = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"{pool}\"\n"
        );
        if let Err(errors) = config::parse(&(listener + recipe), Path::new("checks.md")) {
            panic!("{recipe}\n{errors}");
        }
    }
}

/// The pages whose excerpts are parts of a file.
fn guides() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = vec![docs.join("long-lived.md")];
    for folder in ["guides", "quickstarts", "reference"] {
        let entries = std::fs::read_dir(docs.join(folder)).expect(folder);
        pages.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// Adds to an excerpt the parts of a file that it leaves out.
fn completed(excerpt: &str) -> String {
    const LISTENER: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"websocket\"\npool = \"chat\"\n";
    const BACKENDS: &str = "\n[[pool.chat.backend]]\nname = \"n1\"\naddress = \"127.0.0.1:1\"\n\
        [[pool.chat.backend]]\nname = \"spare\"\naddress = \"127.0.0.1:2\"\nbackup = true\n";
    let mut text = String::new();
    if excerpt.contains("[[admin.token]]") {
        text += "[admin]\nbind = \"127.0.0.1:0\"\n";
    }
    if !excerpt.contains("[[listener]]") {
        text += LISTENER;
    }
    text += excerpt;
    if !excerpt.contains("backend = [") {
        text += BACKENDS;
    }
    text
}

#[test]
fn every_excerpt_of_the_guides_is_a_right_configuration() {
    let mut seen = 0;
    for page in guides() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for excerpt in blocks(&text, "toml") {
            seen += 1;
            let whole = completed(excerpt);
            if let Err(errors) = config::parse(&whole, &page) {
                panic!("{}\n{whole}\n{errors}", page.display());
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

/// Every page of the project, from its root.
fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// The text without fenced blocks and code spans.
fn prose(text: &str) -> String {
    let unfenced: String = text.split("```").step_by(2).collect();
    unfenced.split('`').step_by(2).collect()
}

/// The names by which a page's headings are linked to.
fn anchors(text: &str) -> Vec<String> {
    let unfenced: String = text.split("```").step_by(2).collect();
    let headings = unfenced.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// A link of `page` that leads nowhere, with its page.
fn broken(page: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.parent().expect("a folder");
    let target = if file.is_empty() {
        page.to_owned()
    } else {
        folder.join(file)
    };
    let is_there = if anchor.is_empty() {
        target.exists()
    } else {
        let text = std::fs::read_to_string(&target).unwrap_or_default();
        anchors(&text).iter().any(|one| one == anchor)
    };
    (!is_there).then(|| format!("{}: {link}", page.display()))
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    pages(&root.join("docs"), &mut found);
    let entries = std::fs::read_dir(root).expect("the root");
    let entries = entries.map(|entry| entry.expect("an entry").path());
    found.extend(entries.filter(|path| path.extension().is_some_and(|one| one == "md")));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in found {
        let text = prose(&std::fs::read_to_string(&page).expect("a page"));
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains(':')) {
            seen += 1;
            wrong.extend(broken(&page, link));
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
