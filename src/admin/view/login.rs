//! `/login`, `/api/v1/` and `/api/v1/configuration`: what a page of the endpoint asks first.

use serde::Serialize;

/// `GET` and `POST /login`: whose the session is. Every other field is `null` where there is none
/// and one is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LoginView {
    /// The endpoint asks for a token.
    pub required: bool,
    /// Name of the token; `none` where no token is needed.
    pub name: Option<String>,
    /// `read` or `operate`.
    pub role: Option<String>,
    /// The only backend that may be acted on, as `POOL/BACKEND`.
    pub backend: Option<String>,
    /// Value of `x-csrf-token` that each change by this session needs.
    pub csrf: Option<String>,
    /// Time until the session ends.
    pub left_seconds: Option<u64>,
}

/// `GET /api/v1/`: the routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct IndexView {
    pub version: String,
    /// Path of the description of this API, in OpenAPI 3.1.
    pub openapi: String,
    pub routes: Vec<RouteView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RouteView {
    pub method: String,
    /// With names in braces for what a caller fills in.
    pub path: String,
    pub about: String,
}

/// `GET /api/v1/configuration`: the file as it was when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConfigurationTextView {
    pub file: String,
    pub number: u64,
    pub hash: String,
    pub loaded_at: String,
    pub text: String,
}
