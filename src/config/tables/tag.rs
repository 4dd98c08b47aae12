//! `tag` and `tag_hash` of a listener: they tell the operator whose a session is.

use crate::config::declare::{Declared, TableSpec};
use crate::config::hash_key::HashKey;
use crate::config::reader::TableReader;
use crate::config::spec::text;
use crate::config::value_types;

table! {
    /// `tag` and `tag_hash`.
    struct TagKeys {
        /// Header, cookie or query parameter that says whose a request is; `websocket` only. The
        /// value (of one above 64 bytes its beginning and a hash) is kept with the session, for
        /// `connections --tag`, `close --tag` and the access log.
        tag: Option<HashKey> = text("\"query:NAME\", \"header:NAME\" or \"cookie:NAME\""),
            optional by value_types::text(read_tag);
        /// Whether the access log has the first 16 digits of the tag's SHA-256 in its place;
        /// `websocket` only.
        ///
        /// An operator who names a tag wants to find it in the log.
        tag_hash: bool, default(false);
    }
}

/// `listener.tag`: it tells the operator whose a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// A header, a cookie or a parameter of the query.
    pub key: HashKey,
    /// The access log has a hash of it. Default false.
    pub is_hashed: bool,
}

impl Declared for Option<Tag> {
    const SPEC: &'static TableSpec = TagKeys::SPEC;

    fn read(table: &TableReader<'_>) -> Option<Self> {
        let keys = TagKeys::read(table)?;
        if keys.tag_hash && !table.has("tag") {
            table.conflict("tag_hash", "there is no `tag`");
        }
        let is_hashed = keys.tag_hash;
        Some(keys.tag.map(|key| Tag { key, is_hashed }))
    }

    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let keys = |tag: &Self| TagKeys {
            tag: tag.as_ref().map(|tag| tag.key.clone()),
            tag_hash: tag.as_ref().is_some_and(|tag| tag.is_hashed),
        };
        keys(self).differing(&keys(other))
    }
}

fn read_tag(text: &str) -> Result<HashKey, &'static str> {
    match text.parse()? {
        HashKey::Sni | HashKey::Path => Err("it is the same for many clients"),
        key => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, listener, right};

    fn web(keys: &str) -> String {
        listener(&format!("protocol = \"websocket\"\npool = \"p\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let tcp = web("tag = \"query:uid\"").replace("websocket", "tcp");
        each_refused([
            (web("tag = \"uid\""), "listener[0].tag", ErrorKind::Value),
            (web("tag = \"path\""), "listener[0].tag", ErrorKind::Value),
            (
                web("tag = \"header:\""),
                "listener[0].tag",
                ErrorKind::Value,
            ),
            (tcp, "listener[0].tag", ErrorKind::Conflict),
            (
                web("tag_hash = true"),
                "listener[0].tag_hash",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_tag_is_a_parameter_a_header_or_a_cookie() {
        let tag = |keys: &str| right(&web(keys)).listeners[0].tag.clone();
        assert_eq!(tag(""), None);
        for (text, is_hashed) in [
            ("query:uid", false),
            ("header:x-user", true),
            ("cookie:SID", false),
        ] {
            let read = tag(&format!("tag = \"{text}\"\ntag_hash = {is_hashed}")).unwrap();
            assert_eq!(
                (read.key.to_string().as_str(), read.is_hashed),
                (text, is_hashed)
            );
        }
    }
}
