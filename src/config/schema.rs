//! The JSON schema of the configuration file (draft 2020-12), for editors.

use serde_json::{Value, json};

/// The schema, to be written as `balancer.schema.json` beside `balancer.toml`.
pub fn schema() -> Value {
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" })
}
