//! Holds the README's configuration against the code: who copies an excerpt must get one that is right.

use std::path::Path;

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
fn every_excerpt_of_the_readme_is_a_right_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(file).expect("README.md");
    let excerpts = blocks(&text, "toml");
    assert!(!excerpts.is_empty());
    for excerpt in excerpts {
        if let Err(errors) = config::parse(excerpt, Path::new("README.md")) {
            panic!("{excerpt}\n{errors}");
        }
    }
}
