//! The configuration: the typed model, the decoder that makes it from TOML, the difference of two, and the JSON schema.

pub mod model;

pub use model::*;
