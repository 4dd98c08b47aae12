//! The id of an HTTP request: one name for it in the logs of all who handle it. Taken from a
//! trusted peer, else made here; sent on to the backend, and written to the access log.

use http::{HeaderMap, HeaderName, HeaderValue};

const FIELD: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a trusted peer: as much as the access log keeps.
const MAX_BYTES: usize = 128;

/// Gives the fields one id, and returns it.
pub(super) fn ensure(headers: &mut HeaderMap, is_believed: bool) -> String {
    let known = is_believed.then(|| known(headers)).flatten();
    let id = known.unwrap_or_else(new);
    // Visible ASCII, both.
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(FIELD, value);
    }
    id
}

/// The id that came, if it came alone and can stand in a log.
fn known(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(FIELD).iter();
    let (only, None) = (values.next()?, values.next()) else {
        return None;
    };
    let is_fit =
        (1..=MAX_BYTES).contains(&only.len()) && only.as_bytes().iter().all(u8::is_ascii_graphic);
    is_fit.then(|| String::from_utf8_lossy(only.as_bytes()).into_owned())
}

/// 128 random bits in hexadecimal, as nginx makes them.
fn new() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(ids: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(FIELD, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        headers
    }

    fn is_new(id: &str) -> bool {
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    #[test]
    fn only_one_that_is_fit_and_comes_from_a_trusted_peer_is_taken() {
        let long = "x".repeat(MAX_BYTES + 1);
        for (ids, is_believed, is_taken) in [
            (&["abc-1"][..], true, true),
            (&["abc-1"], false, false),
            (&[], true, false),
            (&["a", "b"], true, false),
            (&["a b"], true, false),
            (&[""], true, false),
            (&[&*long], true, false),
        ] {
            let mut headers = headers(ids);
            let id = ensure(&mut headers, is_believed);
            let sent: Vec<_> = headers.get_all(FIELD).iter().collect();
            assert_eq!(sent, [&id], "{ids:?}");
            assert_eq!(
                id == ids.first().copied().unwrap_or_default(),
                is_taken,
                "{ids:?}"
            );
            assert!(is_taken || is_new(&id), "{id}");
        }
    }
}
