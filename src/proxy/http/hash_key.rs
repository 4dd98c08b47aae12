//! The value that a pool with `balance = "hash"` looks at, taken from an HTTP request.

use crate::config::HashKey;
use crate::wire::http::RequestHead;

/// The bytes to hash; `None` when the request has none: then the client's address is hashed.
pub(super) fn hash_key(key: &HashKey, sni: Option<&str>, head: RequestHead<'_>) -> Option<Vec<u8>> {
    let fields = head.fields();
    let value = match key {
        HashKey::Sni => sni?.as_bytes(),
        HashKey::Path => head.path(),
        HashKey::Header(name) => fields.values(name).next()?,
        HashKey::Query(name) => pairs(head.query()?, b'&').find_map(|pair| value_of(pair, name))?,
        HashKey::Cookie(name) => cookies(head, name).next()?,
    };
    Some(value.to_vec())
}

/// The values of all cookies of that name.
pub(super) fn cookies<'a>(head: RequestHead<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let values = head.fields().values("cookie");
    let pairs = values.flat_map(|value| pairs(value, b';'));
    pairs.filter_map(move |pair| value_of(pair, name))
}

fn pairs(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    list.split(move |&byte| byte == separator)
        .map(<[u8]>::trim_ascii)
}

/// The value of `name=value`, as it stands: not decoded, so that it is the same whatever reads it.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleRequest;

    fn key_of(target: &str, key: &HashKey) -> Option<Vec<u8>> {
        let fields = [
            ("x-user", "u7"),
            ("cookie", "xsid=0; sid=abc"),
            ("cookie", "node=n1"),
        ];
        let request = SampleRequest::get(target, &fields);
        hash_key(key, Some("a.example"), request.head())
    }

    fn key(key: HashKey) -> Option<Vec<u8>> {
        key_of("/chat?aid=1&id=42&id=43", &key)
    }

    #[test]
    fn finds_each_kind_of_key() {
        assert_eq!(key(HashKey::Sni).unwrap(), b"a.example");
        assert_eq!(key(HashKey::Path).unwrap(), b"/chat");
        assert_eq!(key(HashKey::Header("X-User".to_owned())).unwrap(), b"u7");
        assert_eq!(key(HashKey::Query("id".to_owned())).unwrap(), b"42");
        assert_eq!(key(HashKey::Cookie("sid".to_owned())).unwrap(), b"abc");
        assert_eq!(key(HashKey::Cookie("node".to_owned())).unwrap(), b"n1");
    }

    #[test]
    fn the_form_of_a_target_does_not_matter() {
        for target in ["/?id=42", "http://a?id=42", "ws://a/?id=42"] {
            assert_eq!(key_of(target, &HashKey::Path).unwrap(), b"/", "{target}");
            let query = HashKey::Query("id".to_owned());
            assert_eq!(key_of(target, &query).unwrap(), b"42", "{target}");
        }
    }

    #[test]
    fn what_is_not_there_has_no_key() {
        for missing in [
            HashKey::Header("x".to_owned()),
            HashKey::Query("i".to_owned()),
            HashKey::Cookie("si".to_owned()),
        ] {
            assert_eq!(key(missing), None);
        }
        assert_eq!(key_of("/chat", &HashKey::Query("id".to_owned())), None);
    }
}
