//! Holds the configuration of the README and of the recipes for checks against the code: who copies an excerpt must get one that is right.

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
