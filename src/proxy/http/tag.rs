//! The tag of a request, by which an operator knows whose it is.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::hash_key::hash_key;
use crate::config::{HashKey, Tag};
use crate::wire::http::RequestHead;

/// The tag of a request; `None` where it has none.
pub(super) fn tag_of(tag: &Tag, head: RequestHead<'_>) -> Option<String> {
    let value = hash_key(&tag.key, None, head)?;
    let value = match tag.key {
        HashKey::Query(_) => Cow::from(percent_decode(&value)),
        _ => Cow::from(value),
    };
    let text = String::from_utf8_lossy(&value);
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleRequest;

    fn tagged(key: &str, target: &str) -> Option<String> {
        let fields = [("x-user", "u%207"), ("cookie", "a=1; uid=c7")];
        let request = SampleRequest::get(target, &fields);
        let tag = Tag {
            key: key.parse().unwrap(),
            is_hashed: false,
        };
        tag_of(&tag, request.head())
    }

    #[test]
    fn a_parameter_is_decoded_and_a_field_is_not() {
        let of = |key: &str, target: &str| tagged(key, target).unwrap_or_default();
        assert_eq!(of("query:uid", "/s?x=1&uid=a%20b%C3%A9"), "a b\u{e9}");
        assert_eq!(of("query:uid", "/s?uid=%ff"), "\u{fffd}");
        assert_eq!(of("header:X-User", "/"), "u%207");
        assert_eq!(of("cookie:uid", "/"), "c7");
        for target in ["/", "/?uid=", "/?uidx=1", "/?xuid=1"] {
            assert_eq!(tagged("query:uid", target), None, "{target}");
        }
    }
}
