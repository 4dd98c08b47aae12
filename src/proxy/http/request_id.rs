//! The id of an HTTP request: one name for it in the logs of all who handle it. Taken from a
//! trusted peer, else made here; sent on to the backend, and written to the access log.

use crate::wire::http::RequestHead;

pub(super) const FIELD: &str = "X-Request-Id";
/// Longest id of a trusted peer: as much as the access log keeps.
const MAX_BYTES: usize = 128;

/// The id of a request: visible ASCII.
pub(super) fn request_id(head: RequestHead<'_>, is_believed: bool) -> String {
    let known = is_believed.then(|| known(head)).flatten();
    known.unwrap_or_else(new)
}

/// The id that came, if it came alone and can stand in a log.
fn known(head: RequestHead<'_>) -> Option<String> {
    let only = head.fields().only(FIELD)?;
    let is_fit = (1..=MAX_BYTES).contains(&only.len()) && only.iter().all(u8::is_ascii_graphic);
    is_fit.then(|| String::from_utf8_lossy(only).into_owned())
}

/// 128 random bits in hexadecimal, as nginx makes them.
fn new() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::Edits;
    use crate::wire::http::testing::SampleRequest;

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
            let sent: Vec<_> = ids.iter().map(|id| ("x-request-id", *id)).collect();
            let request = SampleRequest::get("/", &sent);
            let id = request_id(request.head(), is_believed);
            let mut edits = Edits::default();
            edits.set(FIELD, id.as_bytes());
            let expected = [(FIELD.to_owned(), id.clone())];
            assert_eq!(request.forwarded(&edits), expected, "{ids:?}");
            assert_eq!(
                id == ids.first().copied().unwrap_or_default(),
                is_taken,
                "{ids:?}"
            );
            assert!(is_taken || is_new(&id), "{id}");
        }
    }
}
