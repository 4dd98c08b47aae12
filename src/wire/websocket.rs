//! The WebSocket opening handshake (RFC 6455 sections 1.3 and 4): what makes a request an upgrade,
//! what makes an answer a real 101. A tunnel is opened only after both held; nothing here sends or
//! frames anything.

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use data_encoding::BASE64;
use sha1::{Digest, Sha1};

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the nonce behind `Sec-WebSocket-Key`.
const KEY_BYTES: usize = 16;
/// RFC 7692 section 7, and its parameter.
const DEFLATE: &[u8] = b"permessage-deflate";
const NO_TAKEOVER: &[u8] = b"client_no_context_takeover";
/// The one version that is spoken; sent with a 426.
pub const VERSION: &str = "13";

/// The parts of a checked upgrade request that its answer has to agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeOffer {
    /// `Sec-WebSocket-Key` as sent.
    pub key: String,
    /// `Sec-WebSocket-Protocol` values in the client's order.
    pub protocols: Vec<String>,
}

/// Why a request that names `websocket` in `Upgrade` is no valid upgrade; the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeOfferError {
    #[error("upgrade with a method other than GET")]
    Method,
    #[error("upgrade in a version of http other than 1.1")]
    Protocol,
    #[error("connection header does not name upgrade")]
    Connection,
    #[error("sec-websocket-key is missing, repeated or not 16 bytes of base64")]
    Key,
    #[error("sec-websocket-version is missing or repeated")]
    NoVersion,
    #[error("sec-websocket-version is not 13")]
    Version,
    #[error("sec-websocket-protocol is not a list of tokens")]
    Subprotocol,
    #[error("upgrade with a body")]
    Body,
}

impl UpgradeOfferError {
    pub fn status(self) -> StatusCode {
        match self {
            UpgradeOfferError::Version => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why an answer is no valid 101 for the request; the backend's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("status is not 101")]
    Status,
    #[error("upgrade header is not websocket")]
    Upgrade,
    #[error("connection header does not name upgrade")]
    Connection,
    #[error("sec-websocket-accept is missing, repeated or wrong")]
    Accept,
    #[error("subprotocol was not asked for")]
    Subprotocol,
}

/// True when the request means to become a WebSocket: one of the `Upgrade` tokens is `websocket`.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Checks an upgrade request (Host is the head check's business).
///
/// # Errors
/// The first rule of RFC 6455 section 4.2.1 that does not hold.
pub fn check_request(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<UpgradeOffer, UpgradeOfferError> {
    if method != Method::GET {
        return Err(UpgradeOfferError::Method);
    }
    if version != Version::HTTP_11 || !asks_for_websocket(headers) {
        return Err(UpgradeOfferError::Protocol);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(UpgradeOfferError::Connection);
    }
    if has_body(headers) {
        return Err(UpgradeOfferError::Body);
    }
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Some(VERSION) => {}
        Some(_) => return Err(UpgradeOfferError::Version),
        None => return Err(UpgradeOfferError::NoVersion),
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(UpgradeOfferError::Key)?;
    let protocols =
        tokens(headers, &SEC_WEBSOCKET_PROTOCOL).ok_or(UpgradeOfferError::Subprotocol)?;
    Ok(UpgradeOffer {
        key: key.to_owned(),
        protocols,
    })
}

/// Checks a backend's (or, for a check, a node's) answer to `offer`.
///
/// # Errors
/// The first rule of RFC 6455 section 4.1 that does not hold.
pub fn check_response(
    status: StatusCode,
    headers: &HeaderMap,
    offer: &UpgradeOffer,
) -> Result<(), AnswerError> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(AnswerError::Status);
    }
    if !only(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(AnswerError::Upgrade);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(AnswerError::Connection);
    }
    if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(accept_key(&offer.key).as_str()) {
        return Err(AnswerError::Accept);
    }
    match &chosen(headers)[..] {
        [] => Ok(()),
        [one] if offer.protocols.iter().any(|p| p.as_bytes() == *one) => Ok(()),
        _ => Err(AnswerError::Subprotocol),
    }
}

/// The subprotocols that an answer names: none, or one. Some servers send an empty field, which
/// names none.
fn chosen(headers: &HeaderMap) -> Vec<&[u8]> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let items = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    items
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
        .collect()
}

/// Leaves of an answer's `Sec-WebSocket-Protocol` only the subprotocol that it names: browsers fail
/// a connection over an empty one.
pub fn drop_empty_subprotocols(headers: &mut HeaderMap) {
    let named = chosen(headers)
        .first()
        .map(|one| HeaderValue::from_bytes(one));
    match named {
        Some(Ok(one)) => headers.insert(SEC_WEBSOCKET_PROTOCOL, one),
        _ => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

/// Whether each extension of a `Sec-WebSocket-Extensions` value is one whose messages do not hang
/// on earlier ones once [`without_context_takeover`] has made it so: permessage-deflate is (RFC
/// 7692); of all others it is not known.
pub fn is_resumable(extensions: &HeaderValue) -> bool {
    let is_known = |one: &[u8]| {
        let name = one.split(|&byte| byte == b';').next().unwrap_or(one);
        name.trim_ascii().eq_ignore_ascii_case(DEFLATE)
    };
    extensions
        .as_bytes()
        .split(|&byte| byte == b',')
        .all(is_known)
}

/// A server's agreement to permessage-deflate that has the client compress each message by itself:
/// a server may ask for that whether or not the client has offered it (RFC 7692 section 7.1.1.2).
/// Another server can then read what comes next.
pub fn without_context_takeover(extensions: &HeaderValue) -> HeaderValue {
    let has = |one: &[u8]| {
        let mut parameters = one.split(|&byte| byte == b';');
        parameters.any(|parameter| parameter.trim_ascii().eq_ignore_ascii_case(NO_TAKEOVER))
    };
    let mut edited = Vec::new();
    for one in extensions.as_bytes().split(|&byte| byte == b',') {
        if !edited.is_empty() {
            edited.extend_from_slice(b", ");
        }
        edited.extend_from_slice(one.trim_ascii());
        if !has(one) {
            edited.extend_from_slice(b"; ");
            edited.extend_from_slice(NO_TAKEOVER);
        }
    }
    HeaderValue::from_bytes(&edited).unwrap_or_else(|_| extensions.clone())
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` as sent.
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID);
    BASE64.encode(&hash.finalize())
}

/// `Sec-WebSocket-Key` for a nonce.
pub fn encode_key(nonce: [u8; KEY_BYTES]) -> String {
    BASE64.encode(&nonce)
}

fn is_key(key: &str) -> bool {
    BASE64
        .decode(key.as_bytes())
        .is_ok_and(|nonce| nonce.len() == KEY_BYTES)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| length.as_bytes() != b"0")
}

/// The value of a header that must be there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values
        .next()
        .is_none()
        .then(|| value.trim_matches([' ', '\t']))
}

/// True when `token` is in the comma-separated list of `name`, in any case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut items = headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The tokens of a list header in order; `None` when one of them is no token. Empty elements are
/// ignored (RFC 9110 section 5.6.1.2).
fn tokens(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for value in headers.get_all(name) {
        for item in value.to_str().ok()?.split(',') {
            let item = item.trim_matches([' ', '\t']);
            if item.is_empty() {
                continue;
            }
            if !item.bytes().all(super::http::is_token_byte) {
                return None;
            }
            found.push(item.to_owned());
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const REQUEST: &[(&str, &str)] = &[
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-version", "13"),
    ];
    const RESPONSE: &[(&str, &str)] = &[
        ("upgrade", "WebSocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];

    /// `base` with the fields of `changes` replaced; an empty value removes, a `+` before the name
    /// adds.
    fn headers(base: &[(&str, &str)], changes: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in base.iter().chain(changes) {
            let added = name.strip_prefix('+');
            let name = HeaderName::try_from(added.unwrap_or(name)).unwrap();
            match (added, value.is_empty()) {
                (None, true) => drop(map.remove(name)),
                (None, false) => drop(map.insert(name, value.parse().unwrap())),
                (Some(_), _) => drop(map.append(name, value.parse().unwrap())),
            }
        }
        map
    }

    fn request(changes: &[(&str, &str)]) -> Result<UpgradeOffer, UpgradeOfferError> {
        check_request(&Method::GET, Version::HTTP_11, &headers(REQUEST, changes))
    }

    fn response(changes: &[(&str, &str)]) -> Result<(), AnswerError> {
        let offer = UpgradeOffer {
            key: KEY.to_owned(),
            protocols: vec!["chat".to_owned(), "v2.json".to_owned()],
        };
        check_response(
            StatusCode::SWITCHING_PROTOCOLS,
            &headers(RESPONSE, changes),
            &offer,
        )
    }

    #[test]
    fn accepts_the_example_of_the_rfc() {
        assert_eq!(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            request(&[]),
            Ok(UpgradeOffer {
                key: KEY.to_owned(),
                protocols: Vec::new()
            })
        );
        assert_eq!(response(&[]), Ok(()));
    }

    #[test]
    fn reads_token_lists_over_several_fields() {
        let browser = [
            ("connection", "keep-alive, UPGRADE"),
            ("upgrade", "h2c"),
            ("+upgrade", "x/1,WebSocket"),
            ("content-length", "0"),
        ];
        assert!(request(&browser).is_ok());
        let offer = request(&[
            ("sec-websocket-protocol", "chat, v2.json"),
            ("+sec-websocket-protocol", "x"),
        ])
        .unwrap();
        assert_eq!(offer.protocols, ["chat", "v2.json", "x"]);
    }

    #[test]
    fn empty_elements_of_a_subprotocol_list_are_ignored() {
        let table: [(&str, &[&str]); 4] = [
            (" ", &[]),
            ("a, ,b", &["a", "b"]),
            ("a,", &["a"]),
            (",,a", &["a"]),
        ];
        for (value, expected) in table {
            let offer = request(&[("sec-websocket-protocol", value)]).unwrap();
            assert_eq!(offer.protocols, expected, "{value:?}");
        }
    }

    #[test]
    fn an_empty_subprotocol_in_an_answer_means_none_chosen() {
        let field = |value| ("+sec-websocket-protocol", value);
        let none = headers(RESPONSE, &[]);
        let chat = headers(RESPONSE, &[field("chat")]);
        let table = [
            (vec![field("")], &none),
            (vec![field(" , ")], &none),
            (vec![field("chat")], &chat),
            (vec![field("chat,")], &chat),
            (vec![field(""), field("chat")], &chat),
        ];
        for (fields, expected) in table {
            assert_eq!(response(&fields), Ok(()), "{fields:?}");
            let mut answer = headers(RESPONSE, &fields);
            drop_empty_subprotocols(&mut answer);
            assert_eq!(answer, *expected, "{fields:?}");
        }
    }

    #[test]
    fn refuses_each_broken_rule_of_a_request() {
        let table: &[(&[(&str, &str)], UpgradeOfferError)] = &[
            (&[("upgrade", "h2c")], UpgradeOfferError::Protocol),
            (&[("upgrade", "xwebsocket")], UpgradeOfferError::Protocol),
            (&[("connection", "")], UpgradeOfferError::Connection),
            (
                &[("connection", "keep-alive")],
                UpgradeOfferError::Connection,
            ),
            (&[("sec-websocket-key", "")], UpgradeOfferError::Key),
            (&[("sec-websocket-key", "short")], UpgradeOfferError::Key),
            (
                &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25j")],
                UpgradeOfferError::Key,
            ),
            (
                &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZR==")],
                UpgradeOfferError::Key,
            ),
            (&[("+sec-websocket-key", KEY)], UpgradeOfferError::Key),
            (
                &[("sec-websocket-version", "")],
                UpgradeOfferError::NoVersion,
            ),
            (
                &[("sec-websocket-version", "8")],
                UpgradeOfferError::Version,
            ),
            (
                &[("+sec-websocket-version", "13")],
                UpgradeOfferError::NoVersion,
            ),
            (
                &[("sec-websocket-protocol", "a b")],
                UpgradeOfferError::Subprotocol,
            ),
            (&[("content-length", "1")], UpgradeOfferError::Body),
            (&[("transfer-encoding", "chunked")], UpgradeOfferError::Body),
        ];
        for (changes, expected) in table {
            assert_eq!(request(changes), Err(*expected), "{changes:?}");
        }
        let plain = headers(REQUEST, &[]);
        assert_eq!(
            check_request(&Method::POST, Version::HTTP_11, &plain),
            Err(UpgradeOfferError::Method)
        );
        assert_eq!(
            check_request(&Method::GET, Version::HTTP_10, &plain),
            Err(UpgradeOfferError::Protocol)
        );
        assert_eq!(
            UpgradeOfferError::Version.status(),
            StatusCode::UPGRADE_REQUIRED
        );
        assert_eq!(UpgradeOfferError::Key.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn refuses_each_kind_of_fake_101() {
        let table: &[(&[(&str, &str)], AnswerError)] = &[
            (&[("upgrade", "")], AnswerError::Upgrade),
            (&[("upgrade", "h2c")], AnswerError::Upgrade),
            (&[("upgrade", "websocket, h2c")], AnswerError::Upgrade),
            (&[("connection", "")], AnswerError::Connection),
            (&[("connection", "close")], AnswerError::Connection),
            (&[("sec-websocket-accept", "")], AnswerError::Accept),
            (&[("sec-websocket-accept", KEY)], AnswerError::Accept),
            (
                &[("sec-websocket-accept", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=")],
                AnswerError::Accept,
            ),
            (
                &[("+sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
                AnswerError::Accept,
            ),
            (
                &[("sec-websocket-protocol", "mqtt")],
                AnswerError::Subprotocol,
            ),
            (
                &[("sec-websocket-protocol", "Chat")],
                AnswerError::Subprotocol,
            ),
            (
                &[
                    ("sec-websocket-protocol", "chat"),
                    ("+sec-websocket-protocol", "chat"),
                ],
                AnswerError::Subprotocol,
            ),
        ];
        for (changes, expected) in table {
            assert_eq!(response(changes), Err(*expected), "{changes:?}");
        }
        assert_eq!(response(&[("sec-websocket-protocol", "v2.json")]), Ok(()));
        let offer = UpgradeOffer {
            key: KEY.to_owned(),
            protocols: Vec::new(),
        };
        let answer = check_response(StatusCode::OK, &headers(RESPONSE, &[]), &offer);
        assert_eq!(answer, Err(AnswerError::Status));
    }

    #[test]
    fn an_agreement_to_compress_goes_on_without_a_window() {
        let value = HeaderValue::from_static;
        let table = [
            (
                "permessage-deflate",
                "permessage-deflate; client_no_context_takeover",
            ),
            (
                "permessage-deflate; server_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=10; client_no_context_takeover",
            ),
            (
                "permessage-deflate;Client_No_Context_Takeover",
                "permessage-deflate;Client_No_Context_Takeover",
            ),
        ];
        for (before, after) in table {
            assert!(is_resumable(&value(before)));
            assert_eq!(without_context_takeover(&value(before)), value(after));
        }
        assert!(!is_resumable(&value("permessage-deflate, x-own")));
        assert!(!is_resumable(&value("x-own")));
    }

    #[test]
    fn keys_made_for_a_nonce_are_accepted() {
        assert!(is_key(&encode_key([0xff; KEY_BYTES])));
    }
}
