//! The WebSocket opening handshake (RFC 6455 sections 1.3 and 4): what makes a request an upgrade,
//! what makes an answer a real 101. A tunnel is opened only after both held; nothing here sends or
//! frames anything.

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use super::http::{FieldLookup, HttpVersion, RequestHead, is_token_byte};

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the nonce behind `Sec-WebSocket-Key`.
const NONCE_BYTES: usize = 16;
/// Nonce in base64.
const KEY_BYTES: usize = 24;
/// Hash of the key in base64.
const ACCEPT_BYTES: usize = 28;
/// RFC 7692 section 7, and its parameter.
const DEFLATE: &[u8] = b"permessage-deflate";
const NO_TAKEOVER: &[u8] = b"client_no_context_takeover";
/// The one version that is spoken; sent with a 426.
pub const VERSION: &str = "13";

const SWITCHING_PROTOCOLS: u16 = 101;
const BAD_REQUEST: u16 = 400;
const UPGRADE_REQUIRED: u16 = 426;

/// The parts of a checked upgrade request that its answer has to agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeOffer {
    /// `Sec-WebSocket-Key` as sent.
    pub key: [u8; KEY_BYTES],
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
    pub fn status(self) -> u16 {
        match self {
            UpgradeOfferError::Version => UPGRADE_REQUIRED,
            _ => BAD_REQUEST,
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
pub fn asks_for_websocket(fields: &impl FieldLookup) -> bool {
    has_token(fields, "upgrade", "websocket")
}

/// Checks an upgrade request (Host is the head check's business).
///
/// # Errors
/// The first rule of RFC 6455 section 4.2.1 that does not hold.
pub fn check_upgrade(head: RequestHead<'_>) -> Result<UpgradeOffer, UpgradeOfferError> {
    check_offer(head.method(), head.version(), &head.fields())
}

fn check_offer(
    method: &[u8],
    version: HttpVersion,
    fields: &impl FieldLookup,
) -> Result<UpgradeOffer, UpgradeOfferError> {
    if method != b"GET" {
        return Err(UpgradeOfferError::Method);
    }
    if version != HttpVersion::Http11 || !asks_for_websocket(fields) {
        return Err(UpgradeOfferError::Protocol);
    }
    if !has_token(fields, "connection", "upgrade") {
        return Err(UpgradeOfferError::Connection);
    }
    if has_body(fields) {
        return Err(UpgradeOfferError::Body);
    }
    match only(fields, "sec-websocket-version") {
        Some(version) if version == VERSION.as_bytes() => {}
        Some(_) => return Err(UpgradeOfferError::Version),
        None => return Err(UpgradeOfferError::NoVersion),
    }
    let key = only(fields, "sec-websocket-key")
        .and_then(parse_key)
        .ok_or(UpgradeOfferError::Key)?;
    let protocols =
        tokens(fields, "sec-websocket-protocol").ok_or(UpgradeOfferError::Subprotocol)?;
    Ok(UpgradeOffer { key, protocols })
}

/// Checks a backend's (or, for a check, a node's) answer to `offer`.
///
/// # Errors
/// The first rule of RFC 6455 section 4.1 that does not hold.
pub fn check_response(
    status: u16,
    fields: &impl FieldLookup,
    offer: &UpgradeOffer,
) -> Result<(), AnswerError> {
    if status != SWITCHING_PROTOCOLS {
        return Err(AnswerError::Status);
    }
    if !only(fields, "upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return Err(AnswerError::Upgrade);
    }
    if !has_token(fields, "connection", "upgrade") {
        return Err(AnswerError::Connection);
    }
    if only(fields, "sec-websocket-accept") != Some(&accept_key(&offer.key)[..]) {
        return Err(AnswerError::Accept);
    }
    let mut chosen = chosen(fields);
    match (chosen.next(), chosen.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if offer.protocols.iter().any(|p| p.as_bytes() == one) => Ok(()),
        _ => Err(AnswerError::Subprotocol),
    }
}

/// The subprotocols that an answer names: none, or one. Some servers send an empty field, which
/// names none.
fn chosen(fields: &impl FieldLookup) -> impl Iterator<Item = &[u8]> {
    items(fields, "sec-websocket-protocol").filter(|item| !item.is_empty())
}

/// The subprotocol that an answer names. The client is to see it alone: browsers fail a connection
/// over an empty one.
pub fn chosen_subprotocol(fields: &impl FieldLookup) -> Option<&[u8]> {
    chosen(fields).next()
}

/// Whether each extension of a `Sec-WebSocket-Extensions` value is one whose messages do not hang
/// on earlier ones once [`without_context_takeover`] has made it so: permessage-deflate is (RFC
/// 7692); of all others it is not known.
pub fn is_resumable(extensions: &[u8]) -> bool {
    let is_known = |one: &[u8]| {
        let name = one.split(|&byte| byte == b';').next().unwrap_or(one);
        name.trim_ascii().eq_ignore_ascii_case(DEFLATE)
    };
    extensions.split(|&byte| byte == b',').all(is_known)
}

/// A server's agreement to permessage-deflate that has the client compress each message by itself:
/// a server may ask for that whether or not the client has offered it (RFC 7692 section 7.1.1.2).
/// Another server can then read what comes next.
pub fn without_context_takeover(extensions: &[u8]) -> Vec<u8> {
    let has = |one: &[u8]| {
        let mut parameters = one.split(|&byte| byte == b';');
        parameters.any(|parameter| parameter.trim_ascii().eq_ignore_ascii_case(NO_TAKEOVER))
    };
    let mut edited = Vec::new();
    for one in extensions.split(|&byte| byte == b',') {
        if !edited.is_empty() {
            edited.extend_from_slice(b", ");
        }
        edited.extend_from_slice(one.trim_ascii());
        if !has(one) {
            edited.extend_from_slice(b"; ");
            edited.extend_from_slice(NO_TAKEOVER);
        }
    }
    edited
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` as sent.
pub fn accept_key(key: &[u8; KEY_BYTES]) -> [u8; ACCEPT_BYTES] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    let mut accept = [0; ACCEPT_BYTES];
    BASE64.encode_mut(&hash.finalize(), &mut accept);
    accept
}

/// `Sec-WebSocket-Key` for a nonce.
pub fn encode_key(nonce: [u8; NONCE_BYTES]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    BASE64.encode_mut(&nonce, &mut key);
    key
}

/// A key as sent, if it is a nonce of the right length.
fn parse_key(sent: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let key: [u8; KEY_BYTES] = sent.try_into().ok()?;
    // Room for the padding, too.
    let mut nonce = [0; KEY_BYTES / 4 * 3];
    let length = BASE64.decode_mut(&key, &mut nonce).ok()?;
    (length == NONCE_BYTES).then_some(key)
}

fn has_body(fields: &impl FieldLookup) -> bool {
    fields.all_values("transfer-encoding").next().is_some()
        || fields
            .all_values("content-length")
            .any(|length| length != b"0")
}

/// The value of a field that must be there once.
fn only<'a>(fields: &'a impl FieldLookup, name: &str) -> Option<&'a [u8]> {
    let mut values = fields.all_values(name);
    let value = values.next()?;
    let is_fit = value.is_ascii() && values.next().is_none();
    is_fit.then(|| value.trim_ascii())
}

/// True when `token` is in the comma-separated list of `name`, in any case.
fn has_token(fields: &impl FieldLookup, name: &str, token: &str) -> bool {
    items(fields, name).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// The items of a list field in order, over all its lines; empty ones, too.
fn items<'a>(fields: &'a impl FieldLookup, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let values = fields.all_values(name);
    values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// The tokens of a list field in order; `None` when one of them is no token. Empty elements are
/// ignored (RFC 9110 section 5.6.1.2).
fn tokens(fields: &impl FieldLookup, name: &str) -> Option<Vec<String>> {
    let token = |item: &[u8]| -> Option<String> {
        let is_token = item.iter().copied().all(is_token_byte);
        is_token.then(|| item.iter().copied().map(char::from).collect())
    };
    items(fields, name)
        .filter(|item| !item.is_empty())
        .map(token)
        .collect()
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderName};

    use super::*;
    use crate::wire::http::RequestError;
    use crate::wire::http::testing::{SampleAnswer, SampleRequest};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const KEY_AS_SENT: [u8; KEY_BYTES] = *b"dGhlIHNhbXBsZSBub25jZQ==";
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

    fn lines(map: &HeaderMap) -> Vec<(&str, &str)> {
        map.iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect()
    }

    /// The verdict on an upgrade's fields, whoever has read them.
    fn request(changes: &[(&str, &str)]) -> Result<UpgradeOffer, UpgradeOfferError> {
        let map = headers(REQUEST, changes);
        let verdict = check_offer(b"GET", HttpVersion::Http11, &map);
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for (name, value) in lines(&map) {
            text += &format!("{name}: {value}\r\n");
        }
        match SampleRequest::parse(&format!("{text}\r\n")) {
            Ok(sample) => assert_eq!(check_upgrade(sample.head()), verdict, "{text}"),
            Err(error) => assert_eq!(
                (error, &verdict),
                (RequestError::UpgradeBody, &Err(UpgradeOfferError::Body))
            ),
        }
        verdict
    }

    fn response(changes: &[(&str, &str)]) -> Result<(), AnswerError> {
        let offer = UpgradeOffer {
            key: KEY_AS_SENT,
            protocols: vec!["chat".to_owned(), "v2.json".to_owned()],
        };
        let map = headers(RESPONSE, changes);
        let verdict = check_response(101, &map, &offer);
        let sample = SampleAnswer::new(101, &lines(&map));
        assert_eq!(check_response(101, &sample.fields(), &offer), verdict);
        verdict
    }

    #[test]
    fn accepts_the_example_of_the_rfc() {
        assert_eq!(&accept_key(&KEY_AS_SENT), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            request(&[]),
            Ok(UpgradeOffer {
                key: KEY_AS_SENT,
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
        let chat = Some(&b"chat"[..]);
        let table = [
            (vec![], None),
            (vec![field("")], None),
            (vec![field(" , ")], None),
            (vec![field("chat")], chat),
            (vec![field("chat,")], chat),
            (vec![field(""), field("chat")], chat),
        ];
        for (fields, expected) in table {
            assert_eq!(response(&fields), Ok(()), "{fields:?}");
            let answer = headers(RESPONSE, &fields);
            assert_eq!(chosen_subprotocol(&answer), expected, "{fields:?}");
            let answer = SampleAnswer::new(101, &lines(&answer));
            assert_eq!(chosen_subprotocol(&answer.fields()), expected, "{fields:?}");
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
            (&[("content-length", "00")], UpgradeOfferError::Body),
            (&[("transfer-encoding", "chunked")], UpgradeOfferError::Body),
        ];
        for (changes, expected) in table {
            assert_eq!(request(changes), Err(*expected), "{changes:?}");
        }
        let plain = headers(REQUEST, &[]);
        assert_eq!(
            check_offer(b"POST", HttpVersion::Http11, &plain),
            Err(UpgradeOfferError::Method)
        );
        assert_eq!(
            check_offer(b"GET", HttpVersion::Http10, &plain),
            Err(UpgradeOfferError::Protocol)
        );
        let posted = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(
            check_upgrade(SampleRequest::new(posted).head()),
            Err(UpgradeOfferError::Method)
        );
        assert_eq!(UpgradeOfferError::Version.status(), 426);
        assert_eq!(UpgradeOfferError::Key.status(), 400);
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
            key: KEY_AS_SENT,
            protocols: Vec::new(),
        };
        let answer = check_response(200, &headers(RESPONSE, &[]), &offer);
        assert_eq!(answer, Err(AnswerError::Status));
    }

    #[test]
    fn an_agreement_to_compress_goes_on_without_a_window() {
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
            assert!(is_resumable(before.as_bytes()));
            let edited = without_context_takeover(before.as_bytes());
            assert_eq!(edited, after.as_bytes());
        }
        assert!(!is_resumable(b"permessage-deflate, x-own"));
        assert!(!is_resumable(b"x-own"));
    }

    #[test]
    fn keys_made_for_a_nonce_are_accepted() {
        let key = encode_key([0xff; NONCE_BYTES]);
        assert_eq!(parse_key(&key), Some(key));
    }
}
