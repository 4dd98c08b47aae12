//! `evenkeel schema`: the JSON schema of the configuration, for editors.

use std::io::Write;

use super::failure::Failure;
use crate::config;

/// Prints it on standard output.
pub fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| Failure::Other(format!("write the schema: {error}")))?;
    // Not `println!`, which panics when the reader (`| head`) has gone.
    writeln!(std::io::stdout(), "{text}").map_err(Failure::io("write the schema"))
}
