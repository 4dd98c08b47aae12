//! `hash_key` as operators write it: `sni`, `path`, `header:NAME`, `query:NAME`, `cookie:NAME`.

use std::fmt;
use std::str::FromStr;

/// Part of a connection that `hash` looks at. A connection without it falls back to the client's
/// address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Sni,
    Path,
    /// In lower case.
    Header(String),
    Query(String),
    Cookie(String),
}

/// For messages and the schema.
pub(super) const ALLOWED: &str =
    "\"sni\", \"path\", \"header:NAME\", \"query:NAME\" or \"cookie:NAME\"";

impl FromStr for HashKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<HashKey, Self::Err> {
        match text.split_once(':') {
            None if text == "sni" => Ok(HashKey::Sni),
            None if text == "path" => Ok(HashKey::Path),
            // Header names are compared without case; one form makes equal keys equal.
            Some(("header", name)) => {
                token(name).map(|name| HashKey::Header(name.to_ascii_lowercase()))
            }
            Some(("query", "")) => Err("the name is missing"),
            Some(("query", name)) => Ok(HashKey::Query(name.to_owned())),
            Some(("cookie", name)) => token(name).map(|name| HashKey::Cookie(name.to_owned())),
            _ => Err("there is no such key"),
        }
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn token(name: &str) -> Result<&str, &'static str> {
    match name {
        "" => Err("the name is missing"),
        _ if name.bytes().all(is_token) => Ok(name),
        _ => Err("the name has a character that is not allowed in a name"),
    }
}

/// Whether a token of RFC 9110, 5.6.2, may have this byte.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::Sni => write!(f, "sni"),
            HashKey::Path => write!(f, "path"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Query(name) => write!(f, "query:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_written() {
        for text in [
            "sni",
            "path",
            "header:x-user",
            "query:room id",
            "cookie:SESSION",
        ] {
            assert_eq!(text.parse::<HashKey>().unwrap().to_string(), text);
        }
        assert_eq!(
            "header:X-User".parse(),
            Ok(HashKey::Header("x-user".to_owned()))
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "host",
            "SNI",
            "header:",
            "header:a b",
            "cookie:a;b",
            "query:",
            "sni:x",
        ] {
            assert!(text.parse::<HashKey>().is_err(), "{text}");
        }
    }
}
