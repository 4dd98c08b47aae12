//! `check.headers`: further header fields of a check's request.

use super::check_kind::{CheckHeaders, read_token};
use crate::config::error::ErrorKind;
use crate::config::value::ValueReader;

/// Fields that the check itself makes, or that say where the request ends.
const TAKEN: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "http2-settings",
];

/// More are a mistake: a request's head has its bounds everywhere.
const MAX_HEADERS: usize = 32;

pub(super) fn headers(value: &ValueReader<'_>) -> Option<CheckHeaders> {
    let fields = value.children_by(read_name);
    if fields.len() > MAX_HEADERS {
        value.refuse(ErrorKind::Value, "more than 32 header fields");
    }
    let read = |(name, value): (String, ValueReader<'_>)| Some((name, value.text_by(read_value)?));
    Some(fields.into_iter().filter_map(read).collect())
}

fn read_name(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "host" => Err("the Host header is `host` of the check"),
        "sec-websocket-protocol" => Err("the subprotocol is `protocol` of the check"),
        name if TAKEN.contains(&name) || name.starts_with("sec-websocket-") => {
            Err("the check makes it itself")
        }
        _ => read_token(text).map_err(|_| "it is not the name of a header field"),
    }
}

/// RFC 9110, 5.5, of which other bytes than those of ASCII are obsolete.
fn read_value(text: &str) -> Result<String, &'static str> {
    let is_allowed = |b: u8| b == b'\t' || (0x20..0x7f).contains(&b);
    match text {
        _ if text.trim() != text => Err("it begins or ends with a blank"),
        _ if !text.bytes().all(is_allowed) => {
            Err("it has a character that is not allowed in a header")
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckKind;
    use crate::config::testing::{each_refused, pool, right};

    fn check(headers: &str) -> String {
        pool(&format!(
            "check = {{ type = \"websocket\", headers = {headers} }}"
        ))
    }

    #[test]
    fn fields_keep_their_spelling() {
        let headers = "{ Origin = \"https://a.test\", X-API-key = \"1, 2\" }";
        let kind = right(&check(headers)).pools["p"]
            .check
            .clone()
            .unwrap()
            .kind;
        let CheckKind::Websocket { headers, .. } = kind else {
            panic!("{kind:?}")
        };
        let mut expected = [("Origin", "https://a.test"), ("X-API-key", "1, 2")];
        expected.sort_unstable();
        let mut headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        headers.sort_unstable();
        assert_eq!(headers, expected);
    }

    #[test]
    fn each_wrong_field_is_refused() {
        let at = |name: &str, value: &str, fault| {
            let path: &'static str = format!("pool.p.check.headers.{name}").leak();
            (check(&format!("{{ \"{name}\" = {value} }}")), path, fault)
        };
        each_refused([
            at("Host", "\"a\"", ErrorKind::Value),
            at("sec-websocket-KEY", "\"a\"", ErrorKind::Value),
            at("Sec-WebSocket-Protocol", "\"a\"", ErrorKind::Value),
            at("Content-Length", "\"0\"", ErrorKind::Value),
            at("a b", "\"c\"", ErrorKind::Value),
            at("X-A", "\"a\\r\\nb\"", ErrorKind::Value),
            at("X-A", "\" a\"", ErrorKind::Value),
            at("X-A", "1", ErrorKind::Type),
        ]);
        each_refused([(check("[\"a\"]"), "pool.p.check.headers", ErrorKind::Type)]);
    }
}
