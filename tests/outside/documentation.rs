//! The reference pages of the documentation name every metric and every command that the binary has.

use std::path::Path;

use crate::harness::{Balancer, run};
use crate::nodes::Node;
use crate::settings::simple;

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    std::fs::read_to_string(file.join(name)).expect(name)
}

/// Names that `page` does not have in a code span of their own.
fn missing<'a>(page: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect()
}

#[tokio::test]
async fn every_metric_stands_in_the_reference() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    balancer.address("main").await;
    let metrics = balancer.get("/metrics").await.body;
    let families = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let families: Vec<&str> = families
        .filter_map(|family| Some(family.split_once(' ')?.0))
        .collect();
    assert!(families.len() > 40, "{families:?}");
    let missing = missing(&page("metrics.md"), families.iter().copied());
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_command_stands_in_the_reference() {
    let (_, help, _) = run(&["--help"], Path::new(".")).await;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    let page = page("cli.md");
    let is_there = |command: &str| page.contains(&format!("`evenkeel {command}"));
    let missing: Vec<_> = commands.iter().filter(|one| !is_there(one)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
