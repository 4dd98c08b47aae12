//! Pieces of configuration text.

use std::fmt::Display;

use crate::nodes::Node;

/// A plain listener on a free port of loopback.
pub fn listener(name: &str, protocol: &str, pool: &str) -> String {
    listener_with(name, protocol, pool, "")
}

/// The same with further keys, one per line.
pub fn listener_with(name: &str, protocol: &str, pool: &str, keys: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\npool = \"{pool}\"\n{keys}\n\n"
    )
}

pub fn pool(name: &str, keys: &str, backends: &[String]) -> String {
    format!(
        "[pool.{name}]\n{keys}\nbackend = [\n  {},\n]\n\n",
        backends.join(",\n  ")
    )
}

pub fn backend(name: &str, address: impl Display) -> String {
    format!("{{ name = \"{name}\", address = \"{address}\" }}")
}

/// A backend with further keys, e.g. `weight = 2`.
pub fn backend_with(name: &str, address: impl Display, keys: &str) -> String {
    format!("{{ name = \"{name}\", address = \"{address}\", {keys} }}")
}

/// One listener named `main`, one pool named `nodes` of nodes named `n1`, `n2`, ...
pub fn simple(protocol: &str, keys: &str, nodes: &[&Node]) -> String {
    let backends: Vec<String> = nodes
        .iter()
        .enumerate()
        .map(|(i, node)| backend(&format!("n{}", i + 1), node.address))
        .collect();
    listener("main", protocol, "nodes") + &pool("nodes", keys, &backends)
}
