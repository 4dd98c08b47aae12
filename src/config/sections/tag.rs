//! `tag` and `tag_hash` of a listener: what tells the operator whose a session is.

use super::super::defaults;
use super::super::keys::{Absent, Key, Kind, key};
use super::super::model::{HashKey, Tag};
use super::super::table::Table;

pub(super) const TAG: Key = key(
    "tag",
    Kind::Text("\"query:NAME\", \"header:NAME\" or \"cookie:NAME\""),
    Absent::None,
    "`websocket` only: where a request says whose it is. The value (of one above 64 bytes its beginning and a hash) is kept with the session, for `connections --tag`, `close --tag` and the access log.",
);
pub(super) const TAG_HASH: Key = key(
    "tag_hash",
    Kind::Flag,
    Absent::Flag(defaults::TAG_HASH),
    "`websocket` only: the access log has the first 16 digits of the SHA-256 of the tag in its place.",
);

pub(super) fn decode(table: &Table<'_>) -> Option<Tag> {
    let is_hashed = table.flag("tag_hash");
    if is_hashed && !table.has("tag") {
        table.conflict("tag_hash", "there is no `tag`");
    }
    let key = table.text_by("tag", read)?;
    Some(Tag { key, is_hashed })
}

fn read(text: &str) -> Result<HashKey, &'static str> {
    match text.parse()? {
        HashKey::Sni | HashKey::Path => Err("many clients have the same"),
        key => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, listener, right};

    fn web(keys: &str) -> String {
        listener(&format!("protocol = \"websocket\"\npool = \"p\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let tcp = web("tag = \"query:uid\"").replace("websocket", "tcp");
        each_refused([
            (web("tag = \"uid\""), "listener[0].tag", Fault::Value),
            (web("tag = \"path\""), "listener[0].tag", Fault::Value),
            (web("tag = \"header:\""), "listener[0].tag", Fault::Value),
            (tcp, "listener[0].tag", Fault::Conflict),
            (
                web("tag_hash = true"),
                "listener[0].tag_hash",
                Fault::Conflict,
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
