//! `evenkeel schema`: the JSON schema of the configuration, for editors.

use super::failure::Failure;
use super::output::print;
use crate::config;

/// Prints it on standard output.
pub fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| Failure::Other(format!("write the schema: {error}")))?;
    print(&format!("{text}\n"))
}
