//! `pool.sticky`, and `pool.retry_after`: what a WebSocket pool tells clients that come back.

use std::path::PathBuf;
use std::time::Duration;

/// `pool.sticky`: a signed cookie brings a client back to its backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Sticky {
    /// The cookie's name. Default `evenkeel`.
    pub cookie: String,
    /// File of one to three keys, the first of which signs; read at start and reload.
    pub key_file: PathBuf,
    /// How long a cookie is good; renewed once half of it has passed. Default 1 day.
    pub ttl: Duration,
    /// Default `lax`.
    pub same_site: SameSite,
    /// The client sends it over TLS only. Default false.
    pub secure: bool,
    /// Default `keep`.
    pub on_drain: OnDrain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

/// What becomes of a client whose backend is draining, or has a weight of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrain {
    /// It goes on there until its cookie expires, which is not renewed.
    Keep,
    /// Another backend is picked.
    Repick,
}

/// `pool.retry_after`: the range of the `Retry-After` of a 503, each drawn anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// Default 1 s.
    pub min: Duration,
    /// Default 10 s.
    pub max: Duration,
}
