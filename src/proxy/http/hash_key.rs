//! The value that a pool with `balance = "hash"` looks at, taken from an HTTP request.

use http::header::COOKIE;
use http::{HeaderMap, Uri};

use crate::config::HashKey;

/// The bytes to hash; `None` when the request has none: then the client's address is hashed.
pub(super) fn hash_key(
    key: &HashKey,
    sni: Option<&str>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Vec<u8>> {
    let value = match key {
        HashKey::Sni => sni?.as_bytes(),
        HashKey::Path => uri.path().as_bytes(),
        HashKey::Header(name) => headers.get(name)?.as_bytes(),
        HashKey::Query(name) => {
            pairs(uri.query()?.as_bytes(), b'&').find_map(|pair| value_of(pair, name))?
        }
        HashKey::Cookie(name) => {
            let mut cookies = headers
                .get_all(COOKIE)
                .iter()
                .flat_map(|value| pairs(value.as_bytes(), b';'));
            cookies.find_map(|pair| value_of(pair, name))?
        }
    };
    Some(value.to_vec())
}

pub(super) fn pairs(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    list.split(move |&byte| byte == separator)
        .map(<[u8]>::trim_ascii)
}

/// The value of `name=value`, as it stands: not decoded, so that it is the same whatever reads it.
pub(super) fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: HashKey) -> Option<Vec<u8>> {
        let uri = "/chat?aid=1&id=42&id=43".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "u7".parse().unwrap());
        headers.append("cookie", "xsid=0; sid=abc".parse().unwrap());
        headers.append("cookie", "node=n1".parse().unwrap());
        hash_key(&key, Some("a.example"), &uri, &headers)
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
    fn what_is_not_there_has_no_key() {
        for missing in [
            HashKey::Header("x".to_owned()),
            HashKey::Query("i".to_owned()),
            HashKey::Cookie("si".to_owned()),
        ] {
            assert_eq!(key(missing), None);
        }
    }
}
