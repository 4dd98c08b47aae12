//! Requests of one client connection: where each begins and ends, and its parsed head.

use httparse::Status;

use super::body::{BodyFraming, BodyReader, TrailerSide};
use super::event::Event;
use super::fields::{
    ConnectionOptions, FieldTable, Fields, HttpVersion, Span, head_error, with_slots,
};
use super::host::{Host, parse_host};
use super::length::{LengthError, parse_length};
use super::request_error::RequestError;
use super::scan::{HeadError, HeadScanner};
use crate::base::head_limits::HeadLimits;

/// Reads the requests of one client, strictly. Pure: it keeps no bytes, the caller's buffer does.
#[derive(Debug)]
pub struct RequestReader {
    limits: HeadLimits,
    state: RequestState,
    parsed: ParsedRequest,
}

#[derive(Debug)]
enum RequestState {
    Head {
        scanner: HeadScanner,
        /// An empty line came before the request line.
        has_skipped: bool,
    },
    Body(BodyReader),
    /// The head of a WebSocket upgrade has passed.
    Upgrade,
    Failed(RequestError),
}

const NEXT_HEAD: RequestState = RequestState::Head {
    scanner: HeadScanner::NEW,
    has_skipped: false,
};

/// Facts of a checked request head, and the places of its parts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ParsedRequest {
    method: Span,
    target: Span,
    /// The target without scheme and authority.
    path_and_query: Span,
    fields: FieldTable,
    facts: RequestFacts,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct RequestFacts {
    version: HttpVersion,
    host: Option<Host>,
    body: BodyFraming,
    connection: ConnectionOptions,
    is_upgrade: bool,
}

impl RequestReader {
    pub fn new(limits: HeadLimits) -> RequestReader {
        RequestReader {
            limits,
            state: NEXT_HEAD,
            parsed: ParsedRequest::default(),
        }
    }

    /// Looks at the start of `input`, which begins with the first byte that no event has taken.
    /// `None`: more bytes are needed, or what comes belongs to an upgraded connection.
    ///
    /// # Errors
    /// The rule that is broken; each later call returns it, too.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Event>, RequestError> {
        let found = match &mut self.state {
            RequestState::Failed(error) => return Err(*error),
            RequestState::Upgrade => return Ok(None),
            RequestState::Head {
                has_skipped: has_skipped @ false,
                ..
            } if input.starts_with(b"\r\n") => {
                *has_skipped = true;
                return Ok(Some(Event::Skipped(2)));
            }
            RequestState::Head { scanner, .. } => {
                match scanner.scan(input, self.limits.max_bytes) {
                    Ok(None) => return Ok(None),
                    Ok(Some(length)) => self.read_head(input, length),
                    Err(error) => Err(error.into()),
                }
            }
            RequestState::Body(body) if body.is_done() => {
                self.state = NEXT_HEAD;
                return Ok(Some(Event::End));
            }
            RequestState::Body(_) if input.is_empty() => return Ok(None),
            RequestState::Body(body) => match body.read(input) {
                Ok(piece) => Ok(Event::of_body(piece)),
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = found {
            self.state = RequestState::Failed(error);
        }
        found.map(Some)
    }

    fn read_head(&mut self, input: &[u8], length: usize) -> Result<Event, RequestError> {
        let head = input.get(..length).unwrap_or(input);
        self.parsed.parse(head, self.limits.max_fields)?;
        self.state = if self.parsed.facts.is_upgrade {
            RequestState::Upgrade
        } else {
            RequestState::Body(BodyReader::new(self.parsed.facts.body, TrailerSide::Client))
        };
        Ok(Event::Head(length))
    }

    /// The head of the latest [`Event::Head`]; `head` are the bytes that it took.
    pub fn head<'a>(&'a self, head: &'a [u8]) -> RequestHead<'a> {
        self.parsed.view(head)
    }

    /// Gives away what was parsed of the latest head.
    pub fn take_parsed(&mut self) -> ParsedRequest {
        std::mem::take(&mut self.parsed)
    }

    /// True while nothing of a request is under way; `unread` is what no event has taken.
    pub fn is_idle(&self, unread: &[u8]) -> bool {
        matches!(self.state, RequestState::Head { .. }) && unread.is_empty()
    }

    /// True when the request before is complete, and the next one's head is looked for.
    pub fn awaits_head(&self) -> bool {
        matches!(self.state, RequestState::Head { .. })
    }

    /// True when bytes of the present request's body are still to come.
    pub fn is_in_body(&self) -> bool {
        matches!(&self.state, RequestState::Body(body) if !body.is_done())
    }
}

impl ParsedRequest {
    /// `head` is the one that this was parsed from.
    pub fn view<'a>(&'a self, head: &'a [u8]) -> RequestHead<'a> {
        RequestHead { head, parsed: self }
    }

    fn parse(&mut self, head: &[u8], max_fields: usize) -> Result<(), RequestError> {
        let line = with_slots(max_fields, |slots| {
            let mut request = httparse::Request::new(&mut []);
            match request.parse_with_uninit_headers(head, slots) {
                Ok(Status::Complete(length)) if length == head.len() => {}
                Err(httparse::Error::Version) if names_other_version(head) => {
                    return Err(HeadError::Version);
                }
                Ok(_) | Err(httparse::Error::Version) => return Err(HeadError::StartLine),
                Err(error) => return Err(head_error(error)),
            }
            let (Some(method), Some(target), Some(minor)) =
                (request.method, request.path, request.version)
            else {
                return Err(HeadError::StartLine);
            };
            self.fields.fill(head, request.headers);
            Ok((method, target, minor))
        });
        let (method, target, minor) = line?;
        check_line(head, method, target, minor)?;
        let (authority, path_and_query) = split_target(method, target)?;
        self.method = Span::of(head, method.as_bytes());
        self.target = Span::of(head, target.as_bytes());
        self.path_and_query = Span::of(head, path_and_query.as_bytes());
        let version = HttpVersion::of_minor(minor);
        self.facts = RequestFacts::of(self.fields.view(head), version, authority)?;
        Ok(())
    }
}

impl RequestFacts {
    fn of(
        fields: Fields<'_>,
        version: HttpVersion,
        authority: Option<&str>,
    ) -> Result<RequestFacts, RequestError> {
        let host = host_of(fields, version, authority)?;
        let body = body_of(fields, version)?;
        let connection = ConnectionOptions::of(fields);
        // Without the option the field is of another hop (RFC 9110 section 7.8).
        let is_upgrade = connection.has_upgrade && fields.has_token("upgrade", "websocket");
        if is_upgrade && version == HttpVersion::Http10 {
            return Err(RequestError::UpgradeVersion);
        }
        if is_upgrade && body != BodyFraming::None {
            return Err(RequestError::UpgradeBody);
        }
        Ok(RequestFacts {
            version,
            host,
            body,
            connection,
            is_upgrade,
        })
    }
}

/// True for a well-formed request line of an HTTP version that is not served. The preface of HTTP/2
/// is not a request.
fn names_other_version(head: &[u8]) -> bool {
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

/// httparse is lenient about the separators; the line must have nothing but single spaces.
fn check_line(head: &[u8], method: &str, target: &str, minor: u8) -> Result<(), HeadError> {
    let version: &[u8] = if minor == 0 {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    };
    let rest = head
        .strip_prefix(method.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|rest| rest.strip_prefix(target.as_bytes()));
    if rest.is_some_and(|rest| rest.starts_with(version)) {
        return Ok(());
    }
    Err(HeadError::StartLine)
}

/// The authority of a target, if it has one, and what stands behind it. Origin form, absolute form,
/// and `*` for OPTIONS are served; a reverse proxy does not serve CONNECT.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(Option<&'a str>, &'a str), RequestError> {
    let is_star = target == "*" && method == "OPTIONS";
    let (authority, rest) = match target.split_once("://") {
        _ if method == "CONNECT" => return Err(RequestError::Target),
        _ if is_star || target.starts_with('/') => (None, target),
        Some((scheme, rest)) if is_scheme(scheme) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            (Some(authority), rest)
        }
        _ => return Err(RequestError::Target),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A fragment would be cut off by one parser and kept by another; the others are no bytes of a
    // target, and refused by many.
    let is_odd = |byte: u8, odd: &[u8]| !byte.is_ascii_graphic() || odd.contains(&byte);
    let has_odd = path.bytes().any(|byte| is_odd(byte, b"#<>`"))
        || query.bytes().any(|byte| is_odd(byte, b"#<>\""));
    if has_odd {
        return Err(RequestError::Target);
    }
    Ok((authority, rest))
}

fn is_scheme(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
}

/// Requires a single valid Host, equal to the target's if that has one. HTTP/1.0 may come without.
fn host_of(
    fields: Fields<'_>,
    version: HttpVersion,
    authority: Option<&str>,
) -> Result<Option<Host>, RequestError> {
    let parse = |host: &[u8]| parse_host(host).ok_or(RequestError::Host);
    let mut hosts = fields.values("host");
    let host = hosts.next().map(parse).transpose()?;
    let is_missing = host.is_none() && version == HttpVersion::Http11;
    if is_missing || hosts.next().is_some() {
        return Err(RequestError::Host);
    }
    match (authority.map(|named| parse(named.as_bytes())), host) {
        (None, host) => Ok(host),
        (Some(Ok(named)), host) if host.is_none() || host.as_ref() == Some(&named) => {
            Ok(Some(named))
        }
        _ => Err(RequestError::Host),
    }
}

/// One length or exactly `chunked`, and never both: peers disagree on which of them wins.
fn body_of(fields: Fields<'_>, version: HttpVersion) -> Result<BodyFraming, RequestError> {
    let mut lengths = fields.values("content-length");
    let mut codings = fields.values("transfer-encoding");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(LengthError::Malformed.into());
    }
    let Some(coding) = codings.next() else {
        return match length.map_or(Ok(0), parse_length)? {
            0 => Ok(BodyFraming::None),
            length => Ok(BodyFraming::Length(length)),
        };
    };
    let is_only = length.is_none() && codings.next().is_none();
    if is_only && version == HttpVersion::Http11 && coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(BodyFraming::Chunked);
    }
    Err(RequestError::TransferEncoding)
}

/// A checked request head, in the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    head: &'a [u8],
    parsed: &'a ParsedRequest,
}

impl<'a> RequestHead<'a> {
    pub fn method(self) -> &'a [u8] {
        self.parsed.method.get(self.head)
    }

    /// The target in the form that the client used.
    pub fn target(self) -> &'a [u8] {
        self.parsed.target.get(self.head)
    }

    /// Path and query of the target. Empty, or without path, where an absolute form has none.
    pub fn path_and_query(self) -> &'a [u8] {
        self.parsed.path_and_query.get(self.head)
    }

    /// Path of the target; `/` where an absolute form has none.
    pub fn path(self) -> &'a [u8] {
        let target = self.path_and_query();
        let end = target.iter().position(|&byte| byte == b'?');
        match target.get(..end.unwrap_or(target.len())) {
            None | Some([]) => b"/",
            Some(path) => path,
        }
    }

    /// Query of the target, without its question mark.
    pub fn query(self) -> Option<&'a [u8]> {
        let target = self.path_and_query();
        let mark = target.iter().position(|&byte| byte == b'?')?;
        target.get(mark + 1..)
    }

    /// As [`RequestHead::method`]: checked ASCII.
    pub fn method_str(self) -> &'a str {
        str::from_utf8(self.method()).unwrap_or_default()
    }

    /// As [`RequestHead::path`]: checked ASCII.
    pub fn path_str(self) -> &'a str {
        str::from_utf8(self.path()).unwrap_or_default()
    }

    pub fn fields(self) -> Fields<'a> {
        self.parsed.fields.view(self.head)
    }

    pub fn version(self) -> HttpVersion {
        self.parsed.facts.version
    }

    /// The host of the target, else of the field, which must not differ. `None` in HTTP/1.0.
    pub fn host(self) -> Option<&'a Host> {
        self.parsed.facts.host.as_ref()
    }

    pub fn body(self) -> BodyFraming {
        self.parsed.facts.body
    }

    pub fn connection(self) -> ConnectionOptions {
        self.parsed.facts.connection
    }

    /// True when the client keeps its connection open after the answer.
    pub fn persists(self) -> bool {
        self.connection().persists(self.version())
    }

    /// True when the request asks for a WebSocket on this connection.
    pub fn is_upgrade(self) -> bool {
        self.parsed.facts.is_upgrade
    }

    /// True when the answer has no body, whatever its fields say.
    pub fn is_head_method(self) -> bool {
        self.method() == b"HEAD"
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::http::testing::SampleRequest;

    #[test]
    fn path_and_query_do_not_depend_on_the_form_of_the_target() {
        let table: [(&str, &str, Option<&str>); 9] = [
            ("/", "/", None),
            ("/x?y", "/x", Some("y")),
            ("/x?", "/x", Some("")),
            ("/x?a?b", "/x", Some("a?b")),
            ("http://a", "/", None),
            ("ws://a?y", "/", Some("y")),
            ("ws://a/?y", "/", Some("y")),
            ("ws://a//x%2f", "//x%2f", None),
            ("*", "*", None),
        ];
        for (target, path, query) in table {
            let head = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let sample = SampleRequest::new(&head);
            let head = sample.head();
            assert_eq!((head.method_str(), head.path_str()), ("OPTIONS", path));
            assert_eq!(head.path(), path.as_bytes());
            assert_eq!(head.query(), query.map(str::as_bytes), "{target}");
        }
    }
}
