//! `evenkeel schema`: the JSON schema of the configuration, for editors.

use super::failure::CommandError;
use super::output::print;
use crate::config;

/// Prints it on standard output.
pub(super) fn schema() -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| CommandError::Other(format!("write the schema: {error}")))?;
    print(&format!("{text}\n"))
}
