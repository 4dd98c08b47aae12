use std::fmt::Debug;

use super::tests::SMUGGLING;
use super::*;

/// What a reader makes of a stream; neighbours of one kind are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<E> {
    Head(String),
    Interim(String),
    Bytes(&'static str, String),
    End,
    Failed(E),
    /// What the reader has left, and what it says of the connection.
    Left(usize, String),
}

pub(super) trait Reader {
    type Error: Debug + Clone + PartialEq;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, Self::Error>;
    fn describe(&self, head: &[u8]) -> String;
    fn close(&mut self, unread: &[u8]) -> String;
}

fn describe(fields: Fields<'_>) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("|{}={}", name.escape_ascii(), value.escape_ascii()));
    lines.collect()
}

impl Reader for RequestReader {
    type Error = RequestError;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, RequestError> {
        RequestReader::next(self, input)
    }

    fn describe(&self, head: &[u8]) -> String {
        let head = self.head(head);
        format!(
            "{} {} {:?} {:?} {} {} {}",
            head.method().escape_ascii(),
            head.path_and_query().escape_ascii(),
            head.host().map(|host| &host.name),
            head.body(),
            head.persists(),
            head.is_upgrade(),
            describe(head.fields()),
        )
    }

    fn close(&mut self, unread: &[u8]) -> String {
        format!("idle {} body {}", self.is_idle(unread), self.is_in_body())
    }
}

impl Reader for ResponseReader {
    type Error = ResponseError;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, ResponseError> {
        ResponseReader::next(self, input)
    }

    fn describe(&self, head: &[u8]) -> String {
        let head = self.head(head);
        format!(
            "{} {} {:?} {}",
            head.status(),
            head.reason().escape_ascii(),
            head.framing(),
            describe(head.fields()),
        )
    }

    fn close(&mut self, unread: &[u8]) -> String {
        let reusable = self.is_reusable(unread);
        format!("reusable {reusable} {:?}", self.finish(unread))
    }
}

/// Reads `stream` in pieces of these sizes, then the rest.
pub(super) fn read<R: Reader>(
    reader: &mut R,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<R::Error>> {
    let mut items: Vec<Item<R::Error>> = Vec::new();
    let mut buffer = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes.into_iter();
    loop {
        loop {
            let event = match reader.next(&buffer) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    items.push(Item::Failed(error));
                    return items;
                }
            };
            let taken: Vec<u8> = buffer.drain(..event.taken()).collect();
            let (kind, text) = match event {
                Event::Head(_) => {
                    items.push(Item::Head(reader.describe(&taken)));
                    continue;
                }
                Event::Interim(_) => {
                    items.push(Item::Interim(reader.describe(&taken)));
                    continue;
                }
                Event::End => {
                    items.push(Item::End);
                    continue;
                }
                Event::Skipped(_) => ("skipped", taken.escape_ascii().to_string()),
                Event::Data(_) => ("data", taken.escape_ascii().to_string()),
                Event::Framing(_) => ("framing", taken.escape_ascii().to_string()),
                Event::Trailers(_) => ("trailers", taken.escape_ascii().to_string()),
            };
            match items.last_mut() {
                Some(Item::Bytes(before, joined)) if *before == kind => joined.push_str(&text),
                _ => items.push(Item::Bytes(kind, text)),
            }
        }
        if rest.is_empty() {
            let left = reader.close(&buffer);
            items.push(Item::Left(buffer.len(), left));
            return items;
        }
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        buffer.extend_from_slice(piece);
        rest = behind;
    }
}

pub(super) fn requests(
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<RequestError>> {
    read(&mut RequestReader::new(HeadLimits::REQUEST), stream, sizes)
}

pub(super) fn response(
    asked: Asked,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<ResponseError>> {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, asked);
    read(&mut reader, stream, sizes)
}

pub(super) fn each_byte(stream: &[u8]) -> Vec<usize> {
    vec![1; stream.len()]
}

#[test]
fn requests_that_fooled_a_parser_are_refused_and_none_is_passed() {
    for (stream, expected) in SMUGGLING {
        let text = stream.escape_ascii().to_string();
        if *expected == RequestError::UpgradeBody && !text.contains("Connection") {
            // An ordinary request with a body: without the option, Upgrade is of another hop.
            assert!(matches!(requests(stream, [])[0], Item::Head(_)), "{text}");
            continue;
        }
        for sizes in [Vec::new(), each_byte(stream)] {
            let mut items = requests(stream, sizes);
            // An empty line may have come before.
            items.retain(|item| !matches!(item, Item::Bytes("skipped", _)));
            assert_eq!(items, [Item::Failed(*expected)], "{text}");
        }
    }
}

/// Lines of a request head behind `GET / HTTP/1.1` and Host, and why they are refused.
const REFUSED_FIELDS: &[(&str, RequestError)] = &[
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: chunked, chunked",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: chunked,",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: ,chunked",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: chunked;q=1",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        RequestError::TransferEncoding,
    ),
    (
        "Transfer-Encoding: x\r\nContent-Length: 3",
        RequestError::TransferEncoding,
    ),
    (
        "transfer-encoding:chunked\r\nTRANSFER-ENCODING:x",
        RequestError::TransferEncoding,
    ),
    (
        "Content-Length: 1\r\ncontent-length: 2",
        RequestError::Length,
    ),
    ("Content-Length: 1,2", RequestError::Length),
    ("Content-Length: 1_0", RequestError::Length),
    ("Content-Length: 1.0", RequestError::Length),
    ("Content-Length: \u{b2}", RequestError::Length),
    ("Content-Length : 1", RequestError::Field),
    ("Content-Length\u{a0}: 1", RequestError::Field),
    ("Content Length: 1", RequestError::Field),
    ("\u{feff}Content-Length: 1", RequestError::Field),
    ("Content-Length: 1\r", RequestError::BareCarriageReturn),
    ("X: 1\n", RequestError::BareLineFeed),
    ("X: 1\nContent-Length: 1", RequestError::BareLineFeed),
    ("X: 1\rContent-Length: 1", RequestError::BareCarriageReturn),
    ("X: 1\r\n\tContent-Length: 1", RequestError::Fold),
    ("X: 1\r\n \r\nContent-Length: 1", RequestError::Fold),
    ("X: a\u{b}b", RequestError::ControlByte),
    ("X: a\u{1b}b", RequestError::ControlByte),
    ("X\u{1}: a", RequestError::ControlByte),
    ("X", RequestError::Field),
    ("\"X\": a", RequestError::Field),
    ("X(): a", RequestError::Field),
    ("X\\: a", RequestError::Field),
    ("host: a", RequestError::Host),
];

#[test]
fn fields_that_parsers_disagree_on_are_refused() {
    for (lines, expected) in REFUSED_FIELDS {
        let stream = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        let bytes = stream.as_bytes();
        assert_eq!(requests(bytes, []), [Item::Failed(*expected)], "{lines:?}");
        let bytewise = requests(bytes, each_byte(bytes));
        assert_eq!(bytewise, [Item::Failed(*expected)], "{lines:?}");
    }
}

#[test]
fn names_and_values_are_of_exactly_the_bytes_that_the_rfc_has() {
    for byte in 0..=u8::MAX {
        let name = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX",
            &[byte][..],
            b"X: a\r\n\r\n",
        ]
        .concat();
        let is_name = matches!(requests(&name, [])[0], Item::Head(_));
        // A colon ends the name.
        assert_eq!(is_name, is_token_byte(byte) || byte == b':', "{byte}");
        let value = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a",
            &[byte][..],
            b"a\r\n\r\n",
        ]
        .concat();
        let is_value = matches!(requests(&value, [])[0], Item::Head(_));
        assert_eq!(is_value, is_value_byte(byte), "{byte}");
        let reason = [b"HTTP/1.1 200 a", &[byte][..], b"a\r\n\r\n"].concat();
        let is_reason = matches!(response(Asked::Head, &reason, [])[0], Item::Head(_));
        assert_eq!(is_reason, is_value_byte(byte), "{byte}");
    }
}

#[test]
fn absolute_forms_are_of_http_and_websocket() {
    let path = |target: &str| {
        let stream = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut reader = RequestReader::new(HeadLimits::REQUEST);
        let event = reader.next(stream.as_bytes());
        event.map(|_| {
            let head = reader.head(stream.as_bytes());
            assert_eq!(head.target(), target.as_bytes());
            String::from_utf8_lossy(head.path_and_query()).into_owned()
        })
    };
    for scheme in ["http", "https", "ws", "wss", "HTTP", "Wss"] {
        assert_eq!(path(&format!("{scheme}://a/x?y")).as_deref(), Ok("/x?y"));
        assert_eq!(path(&format!("{scheme}://A?y://")).as_deref(), Ok("?y://"));
        assert_eq!(path(&format!("{scheme}://a")).as_deref(), Ok(""));
        assert_eq!(path(&format!("{scheme}://b/")), Err(RequestError::Host));
    }
    for odd in [
        "wsx://a/",
        "://a/",
        "http:/a",
        "http://a\\b/",
        "a",
        "?x",
        "/<",
        "/`",
        "/?\"",
        "/?>",
    ] {
        assert!(path(odd).is_err(), "{odd}");
    }
    assert_eq!(path("/x://y").as_deref(), Ok("/x://y"));
    assert_eq!(path("/{\"a\"}?[`]").as_deref(), Ok("/{\"a\"}?[`]"));
}

#[test]
fn an_upgrade_needs_its_option_and_a_version_that_has_upgrades() {
    let first = |version: &str, lines: &str| {
        let stream = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\nxyz");
        requests(stream.as_bytes(), []).swap_remove(0)
    };
    let is_upgrade = |item: Item<RequestError>| match item {
        Item::Head(text) => text.contains(" true |") || text.contains("true true"),
        _ => panic!("{item:?}"),
    };
    assert!(is_upgrade(first(
        "1.1",
        "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, WebSocket"
    )));
    let ordinary = [
        "Upgrade: websocket",
        "Upgrade: websocket\r\nConnection: close",
        "Upgrade: h2c\r\nConnection: Upgrade, close",
        "Connection: Upgrade, close",
    ];
    for lines in ordinary {
        let stream = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        let mut reader = RequestReader::new(HeadLimits::REQUEST);
        reader.next(stream.as_bytes()).unwrap();
        assert!(!reader.head(stream.as_bytes()).is_upgrade(), "{lines}");
        assert_eq!(reader.next(b""), Ok(Some(Event::End)));
    }
    let old = first("1.0", "Connection: Upgrade\r\nUpgrade: websocket");
    assert_eq!(old, Item::Failed(RequestError::UpgradeVersion));
}

#[test]
fn connections_persist_as_the_version_and_the_option_say() {
    let table = [
        ("1.1", "", true),
        ("1.1", "Connection: close", false),
        ("1.1", "Connection: x, CLOSE", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive", false),
        ("1.1", "Connection: x-close", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
        ("1.0", "Proxy-Connection: keep-alive", false),
    ];
    for (version, lines, persists) in table {
        let lines = if lines.is_empty() {
            String::new()
        } else {
            format!("{lines}\r\n")
        };
        let stream = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        let mut reader = RequestReader::new(HeadLimits::REQUEST);
        reader.next(stream.as_bytes()).unwrap();
        assert_eq!(
            reader.head(stream.as_bytes()).persists(),
            persists,
            "{lines}"
        );
        let stream = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
        let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Ordinary);
        read(&mut reader, stream.as_bytes(), []);
        assert_eq!(reader.is_reusable(b""), persists, "{lines}");
        assert!(!reader.is_reusable(b"\r"), "{lines}");
    }
}

#[test]
fn limits_are_those_of_the_caller() {
    let limits = HeadLimits {
        max_bytes: 256 * 1024,
        max_fields: MAX_FIELDS,
    };
    let fields = |count: usize| "x: y\r\n".repeat(count);
    for (count, expected) in [(999, true), (1000, false)] {
        let stream = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
        let mut reader = RequestReader::new(limits);
        assert_eq!(reader.next(stream.as_bytes()).is_ok(), expected);
        let mut reader = ResponseReader::new(limits, Asked::Ordinary);
        let stream = format!("HTTP/1.1 200 OK\r\nx:\r\n{}\r\n", fields(count));
        assert_eq!(reader.next(stream.as_bytes()).is_ok(), expected);
    }
    let few = HeadLimits {
        max_bytes: 64,
        max_fields: 1,
    };
    let mut reader = RequestReader::new(few);
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n";
    assert_eq!(reader.next(stream), Err(RequestError::TooManyHeaders));
    let mut reader = ResponseReader::new(few, Asked::Ordinary);
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(64));
    assert_eq!(
        reader.next(long.as_bytes()),
        Err(ResponseError::Head(HeadError::TooLarge))
    );
}
