//! The check of one complete request head: request line, fields, Host, and how long the body is.
//!
//! httparse finds the tokens; every rule it is lenient about is checked here again.

use httparse::{Error, Header, Status};

use super::host::{Host, parse_host};
use super::{RequestError, is_token_byte, is_value_byte};
use crate::base::head_limits::HeadLimits;

/// Most header fields of one request. hyper's own limit, so that hyper never refuses a request
/// itself.
pub const MAX_HEADERS: usize = HeadLimits::REQUEST.max_fields;

/// Largest `Content-Length` or chunk: fits signed 64-bit arithmetic of every peer.
pub const MAX_LENGTH_BYTES: u64 = i64::MAX as u64;

/// Facts of a request that determine its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestFraming {
    pub body: BodyLength,
    /// Asks for a WebSocket: one of the `Upgrade` tokens says so.
    pub upgrade: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
}

/// Checks a head that ends with its empty line.
pub(super) fn check(head: &[u8]) -> Result<RequestFraming, RequestError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(RequestError::RequestLine),
        Err(Error::Version) if names_other_version(head) => return Err(RequestError::Version),
        Err(error) => return Err(refusal(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(RequestError::RequestLine);
    };
    let line = format!("{method} {target} HTTP/1.{minor}\r\n");
    if !head.starts_with(line.as_bytes()) {
        return Err(RequestError::RequestLine);
    }
    for field in request.headers.iter() {
        check_field(field)?;
    }
    check_target(method, target)?;
    check_host(target, minor, request.headers)?;
    let body = body_length(minor, request.headers)?;
    let upgrade = values(request.headers, "upgrade").any(|list| has_token(list, b"websocket"));
    if upgrade && body != BodyLength::Known(0) {
        return Err(RequestError::UpgradeBody);
    }
    Ok(RequestFraming { body, upgrade })
}

fn refusal(error: Error) -> RequestError {
    match error {
        Error::TooManyHeaders => RequestError::TooManyHeaders,
        Error::HeaderName | Error::HeaderValue => RequestError::Field,
        _ => RequestError::RequestLine,
    }
}

/// True for a well-formed request line of an HTTP version that is not served. The preface of HTTP/2
/// is not a request.
pub(super) fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let version = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(_), Some(version), None) if method != b"PRI" => version,
        _ => return false,
    };
    matches!(
        version,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']
    )
}

fn check_field(field: &Header<'_>) -> Result<(), RequestError> {
    let name_holds = !field.name.is_empty() && field.name.bytes().all(is_token_byte);
    let value_holds = field.value.iter().copied().all(is_value_byte);
    (name_holds && value_holds)
        .then_some(())
        .ok_or(RequestError::Field)
}

/// Origin form, absolute form of `http` and `https`, and `*` for OPTIONS. A reverse proxy does not
/// serve CONNECT.
fn check_target(method: &str, target: &str) -> Result<(), RequestError> {
    // A fragment would be cut off by one parser and kept by another.
    let plain = target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let form = match target {
        _ if method == "CONNECT" => false,
        "*" => method == "OPTIONS",
        _ => target.starts_with('/') || authority(target).is_some(),
    };
    // The type that the request is built with must accept it, or hyper would answer in our place.
    (plain && form && target.parse::<::http::Uri>().is_ok())
        .then_some(())
        .ok_or(RequestError::Target)
}

/// The authority of an absolute-form target.
fn authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return None;
    }
    rest.split(['/', '?']).next()
}

/// Requires a single valid Host, equal to the target's if that has one. HTTP/1.0 may come without.
fn check_host(target: &str, minor: u8, fields: &[Header<'_>]) -> Result<(), RequestError> {
    let mut hosts = values(fields, "host");
    let host = match hosts.next() {
        Some(host) => Some(parse_host(host).ok_or(RequestError::Host)?),
        None if minor == 0 => None,
        None => return Err(RequestError::Host),
    };
    if hosts.next().is_some() {
        return Err(RequestError::Host);
    }
    match authority(target) {
        None => Ok(()),
        Some(named) => same_host(parse_host(named.as_bytes()), host),
    }
}

fn same_host(named: Option<Host>, host: Option<Host>) -> Result<(), RequestError> {
    match (named, host) {
        (Some(_), None) => Ok(()),
        (Some(named), Some(host)) if named == host => Ok(()),
        _ => Err(RequestError::Host),
    }
}

pub(super) fn body_length(minor: u8, fields: &[Header<'_>]) -> Result<BodyLength, RequestError> {
    let mut lengths = values(fields, "content-length");
    let mut encodings = values(fields, "transfer-encoding");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(RequestError::Length);
    }
    let Some(encoding) = encodings.next() else {
        return length.map_or(Ok(0), parse_length).map(BodyLength::Known);
    };
    let strict = minor == 1 && length.is_none() && encodings.next().is_none();
    if !strict || !encoding.eq_ignore_ascii_case(b"chunked") {
        return Err(RequestError::TransferEncoding);
    }
    Ok(BodyLength::Chunked)
}

pub(super) fn parse_length(value: &[u8]) -> Result<u64, RequestError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::Length);
    }
    let length = str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok());
    length
        .filter(|&length| length <= MAX_LENGTH_BYTES)
        .ok_or(RequestError::LengthTooLarge)
}

fn values<'a>(fields: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let named = fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| trim(field.value))
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| trim(item).eq_ignore_ascii_case(token))
}

/// Trims optional white space (RFC 9110 section 5.6.3), and no other byte.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
