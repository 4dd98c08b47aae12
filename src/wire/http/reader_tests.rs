use std::fmt::Debug;

use proptest::prelude::*;

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

fn requests(stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<Item<RequestError>> {
    read(&mut RequestReader::new(HeadLimits::REQUEST), stream, sizes)
}

fn response(
    asked: Asked,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<ResponseError>> {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, asked);
    read(&mut reader, stream, sizes)
}

fn each_byte(stream: &[u8]) -> Vec<usize> {
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

/// Answers that a reader may be fooled by, and what is wrong with them.
const BAD_RESPONSES: &[(&str, ResponseError)] = &[
    // Lengths.
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5, 6\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: ,5\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5;\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 204 OK\r\nContent-Length: 1, 2\r\n\r\n",
        ResponseError::Length,
    ),
    (
        "HTTP/1.1 304 OK\r\nContent-Length: 1, 2\r\n\r\n",
        ResponseError::Length,
    ),
    // Codings.
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: x\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;a=b\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.1 204 OK\r\nTransfer-Encoding: x\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    (
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
    // Names and values.
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
        ResponseError::Head(HeadError::Field),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length\t: 5\r\n\r\n",
        ResponseError::Head(HeadError::Field),
    ),
    (
        "HTTP/1.1 200 OK\r\n: 5\r\n\r\n",
        ResponseError::Head(HeadError::Field),
    ),
    (
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        ResponseError::Head(HeadError::Field),
    ),
    (
        "HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n",
        ResponseError::Head(HeadError::Field),
    ),
    (
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        ResponseError::Head(HeadError::ControlByte),
    ),
    (
        "HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n",
        ResponseError::Head(HeadError::ControlByte),
    ),
    (
        "HTTP/1.1 200 OK\r\nX: a\u{7f}\r\n\r\n",
        ResponseError::Head(HeadError::ControlByte),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
        ResponseError::Head(HeadError::ControlByte),
    ),
    // Line ends.
    (
        "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
        ResponseError::Head(HeadError::BareLineFeed),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
        ResponseError::Head(HeadError::BareLineFeed),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n",
        ResponseError::Head(HeadError::BareLineFeed),
    ),
    (
        "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\n",
        ResponseError::Head(HeadError::BareCarriageReturn),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\r\n\r\n",
        ResponseError::Head(HeadError::BareCarriageReturn),
    ),
    (
        "HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 5\r\n\r\n",
        ResponseError::Head(HeadError::Fold),
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\t5\r\n\r\n",
        ResponseError::Head(HeadError::Fold),
    ),
    (
        "HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
        ResponseError::Head(HeadError::Fold),
    ),
    (
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::EmptyLine),
    ),
    (
        "\nHTTP/1.1 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::BareLineFeed),
    ),
    // Status lines.
    ("HTTP/1.1 099 OK\r\n\r\n", ResponseError::Status),
    ("HTTP/1.1 000 OK\r\n\r\n", ResponseError::Status),
    (
        "HTTP/1.1 20 OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        "HTTP/1.1 2000 OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        "HTTP/1.1 200OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        "HTTP/1.1  200 OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        "HTTP/1.1 2x0 OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        "HTTP/1.1 +20 OK\r\n\r\n",
        ResponseError::Head(HeadError::StartLine),
    ),
    (
        " HTTP/1.1 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "HTTP/1.2 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "HTTP/2.0 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "http/1.1 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "HTTP/1.1\t200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "ICY 200 OK\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        ResponseError::Head(HeadError::Version),
    ),
    (
        "\u{16}\u{3}\u{1}",
        ResponseError::Head(HeadError::ControlByte),
    ),
    // Interim answers.
    (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ResponseError::Upgrade,
    ),
    (
        "HTTP/1.1 100 Continue\r\nTransfer-Encoding: x\r\n\r\n",
        ResponseError::TransferEncoding,
    ),
];

#[test]
fn answers_that_fool_a_parser_are_refused_and_none_is_passed() {
    for (stream, expected) in BAD_RESPONSES {
        let bytes = stream.as_bytes();
        for sizes in [Vec::new(), each_byte(bytes)] {
            let items = response(Asked::Ordinary, bytes, sizes);
            assert_eq!(items, [Item::Failed(*expected)], "{stream:?}");
        }
    }
}

/// A chunked body, and what is wrong with it.
const BAD_CHUNKS: &[(&str, ChunkError)] = &[
    ("0x5\r\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("+5\r\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    (" 5\r\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("5 \r\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("5\t;a\r\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("5\nhello\n0\n\n", ChunkError::Chunk),
    ("5\rhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("\r\n5\r\nhello", ChunkError::Chunk),
    ("5\r\nhello0\r\n\r\n", ChunkError::Chunk),
    ("5\r\nhello\n0\r\n\r\n", ChunkError::Chunk),
    ("5\r\nhello\r0\r\n\r\n", ChunkError::Chunk),
    ("10000000000000000\r\n", ChunkError::Chunk),
    ("8000000000000000\r\n", ChunkError::Chunk),
    ("-1\r\n", ChunkError::Chunk),
    ("5;a\nb\r\nhello", ChunkError::Chunk),
    ("5;\0\r\nhello", ChunkError::Chunk),
    ("0\r\n\n", ChunkError::Trailer),
    ("0\n\r\n", ChunkError::Chunk),
    ("0\r\n a: b\r\n\r\n", ChunkError::Trailer),
    ("0\r\na : b\r\n\r\n", ChunkError::Trailer),
    ("0\r\na: b\n\r\n", ChunkError::Trailer),
    ("0\r\na: b\r\n c\r\n\r\n", ChunkError::Trailer),
    ("0\r\nGET / HTTP/1.1\r\n\r\n", ChunkError::Trailer),
    ("0\r\nTransfer-Encoding: x\r\n\r\n", ChunkError::TrailerName),
    (
        "0\r\na: b\r\ncontent_length: 5\r\n\r\n",
        ChunkError::TrailerName,
    ),
    ("0\r\nConnection: close\r\n\r\n", ChunkError::TrailerName),
];

/// Trailers that only a client could deceive with.
const CLIENTS_TRAILERS: &[&str] = &[
    "Host: b",
    "X-Forwarded-For: 10.0.0.1",
    "x_forwarded_for-and-a-long-name-behind-it: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "X-Client-Cert-Subject: CN=root",
    "Authorization: Basic x",
    "Cookie: a=b",
];

#[test]
fn chunks_that_parsers_disagree_on_are_refused_on_both_sides() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = |body: &str| {
        let client = [request, body].concat();
        let backend = [answer, body].concat();
        let client = requests(client.as_bytes(), []).pop().unwrap();
        let backend = response(Asked::Ordinary, backend.as_bytes(), [])
            .pop()
            .unwrap();
        (client, backend)
    };
    for (body, expected) in BAD_CHUNKS {
        let expected = (
            Item::Failed((*expected).into()),
            Item::Failed(ResponseError::Chunk(*expected)),
        );
        assert_eq!(refused(body), expected, "{body:?}");
        let stream = [answer, body].concat();
        let bytewise = response(
            Asked::Ordinary,
            stream.as_bytes(),
            each_byte(stream.as_bytes()),
        );
        assert_eq!(
            bytewise,
            response(Asked::Ordinary, stream.as_bytes(), []),
            "{body:?}"
        );
    }
    for trailer in CLIENTS_TRAILERS {
        let (client, backend) = refused(&format!("0\r\n{trailer}\r\n\r\n"));
        assert_eq!(client, Item::Failed(RequestError::TrailerName), "{trailer}");
        assert_eq!(
            backend,
            Item::Left(0, "reusable true Ok(())".to_owned()),
            "{trailer}"
        );
    }
    let long = format!("5;{}\r\nhello", "a".repeat(MAX_EXTENSION_BYTES));
    assert_eq!(
        refused(&long).1,
        Item::Failed(ResponseError::Chunk(ChunkError::Extensions))
    );
    let long = format!("0\r\na: {}", "b".repeat(MAX_TRAILER_BYTES));
    assert_eq!(
        refused(&long).1,
        Item::Failed(ResponseError::Chunk(ChunkError::Trailer))
    );
}

/// Kind of request, its answer, the body that is read, bytes that are left behind it, and whether
/// the connection may be used again.
type BodyCase = (Asked, &'static str, &'static str, usize, bool);

const BODIES: &[BodyCase] = &[
    (
        Asked::Ordinary,
        "200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "hello",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        "hello",
        1,
        false,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "hello",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nContent-Length: 5\r\ncontent-length: 05 , 5\r\n\r\nhello",
        "hello",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nContent-Length: 0\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200\r\nContent-Length: 0\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200 \r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "",
        19,
        false,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        "x",
        0,
        false,
    ),
    (Asked::Ordinary, "200 OK\r\n\r\nhello", "hello", 0, false),
    (Asked::Ordinary, "999 OK\r\n\r\nhello", "hello", 0, false),
    (
        Asked::Ordinary,
        "200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "hello",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "x",
        0,
        false,
    ),
    (Asked::Ordinary, "204 No\r\n\r\n", "", 0, true),
    (
        Asked::Ordinary,
        "204 No\r\nContent-Length: 0\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "204 No\r\nContent-Length: 3\r\n\r\n",
        "",
        0,
        false,
    ),
    (
        Asked::Ordinary,
        "204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        5,
        false,
    ),
    (
        Asked::Ordinary,
        "304 Not\r\nContent-Length: 5\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "304 Not\r\nTransfer-Encoding: chunked\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Ordinary,
        "205 R\r\nContent-Length: 0\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Head,
        "200 OK\r\nContent-Length: 5\r\n\r\n",
        "",
        0,
        true,
    ),
    (
        Asked::Head,
        "200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "",
        5,
        false,
    ),
    (
        Asked::Head,
        "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "",
        0,
        true,
    ),
    (Asked::Head, "200 OK\r\n\r\n", "", 0, true),
];

#[test]
fn bodies_end_where_the_rfc_has_it() {
    for (asked, answer, body, left, reusable) in BODIES.iter().copied() {
        let stream = format!("HTTP/1.1 {answer}");
        let items = response(asked, stream.as_bytes(), []);
        let data: String = items
            .iter()
            .filter_map(|item| match item {
                Item::Bytes("data", text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(data, body, "{answer:?}");
        let last = Item::Left(left, format!("reusable {reusable} Ok(())"));
        assert_eq!(items.last(), Some(&last), "{answer:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_told_from_none() {
    let end = |stream: &str| {
        let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Ordinary);
        match read(&mut reader, stream.as_bytes(), []).pop() {
            Some(Item::Left(_, text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end(""), "reusable false Err(Silent)");
    let broken = [
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for stream in broken {
        assert_eq!(end(stream), "reusable false Err(Truncated)", "{stream:?}");
    }
    assert_eq!(end("HTTP/1.1 200 OK\r\n\r\nhello"), "reusable false Ok(())");
}

#[test]
fn interim_answers_come_before_the_final_one_and_not_without_end() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let final_one = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let most = [&interim.repeat(MAX_INTERIM_RESPONSES as usize), final_one].concat();
    let items = response(Asked::Ordinary, most.as_bytes(), []);
    let interims = items.iter().filter(|item| matches!(item, Item::Interim(_)));
    assert_eq!(interims.count(), MAX_INTERIM_RESPONSES as usize);
    assert_eq!(
        items.last(),
        Some(&Item::Left(0, "reusable true Ok(())".to_owned()))
    );
    let more = [interim, &most].concat();
    let items = response(Asked::Ordinary, more.as_bytes(), []);
    assert_eq!(items.last(), Some(&Item::Failed(ResponseError::Interim)));
}

#[test]
fn nothing_behind_a_switch_is_read() {
    let stream =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\u{1}\n";
    let items = response(Asked::Upgrade, stream.as_bytes(), []);
    assert!(
        matches!(items[..2], [Item::Interim(_), Item::Head(_)]),
        "{items:?}"
    );
    assert_eq!(
        items[2..],
        [Item::Left(2, "reusable false Ok(())".to_owned())]
    );
    let refused = response(
        Asked::Upgrade,
        b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
        [],
    );
    assert_eq!(
        refused.last(),
        Some(&Item::Left(0, "reusable true Ok(())".to_owned()))
    );
}

#[test]
fn one_reader_reads_the_answers_of_a_kept_connection() {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Head);
    read(
        &mut reader,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        [],
    );
    assert!(reader.is_reusable(b""));
    reader.restart(Asked::Ordinary);
    assert!(!reader.is_reusable(b""));
    let items = read(
        &mut reader,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        [],
    );
    assert_eq!(items[1], Item::Bytes("data", "hello".to_owned()));
}

fn any_body() -> impl Strategy<Value = (String, String)> {
    let chunks = prop::collection::vec("[ -~\r\n]{1,30}", 0..4).prop_map(|chunks| {
        let chunks: String = chunks
            .iter()
            .map(|chunk| format!("{:x};e\r\n{chunk}\r\n", chunk.len()))
            .collect();
        let body = format!("{chunks}0\r\nT: v\r\n\r\n");
        ("Transfer-Encoding: chunked\r\n".to_owned(), body)
    });
    prop_oneof![
        Just((String::new(), String::new())),
        "[a-z]{0,40}".prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        chunks,
    ]
}

fn any_fields() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "X: y\r\n",
        "Connection: close\r\n",
        "Connection: upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "x:\r\n",
        "Y: \t\u{e9} \r\n",
    ]);
    prop::collection::vec(line, 0..4).prop_map(|lines| lines.concat())
}

fn mutated(stream: String, mutation: Option<(prop::sample::Index, u8)>) -> Vec<u8> {
    let mut bytes = stream.into_bytes();
    if let Some((index, byte)) = mutation {
        let index = index.index(bytes.len());
        bytes[index] = byte;
    }
    bytes
}

fn any_mutation() -> impl Strategy<Value = Option<(prop::sample::Index, u8)>> {
    let byte = prop_oneof![
        any::<u8>(),
        Just(b'\n'),
        Just(b'\r'),
        Just(b' '),
        Just(b',')
    ];
    prop::option::of((any::<prop::sample::Index>(), byte))
}

fn any_requests() -> impl Strategy<Value = Vec<u8>> {
    let request = (any_body(), any_fields(), prop::bool::ANY).prop_map(
        |((framing, body), fields, is_late)| {
            let line = if is_late {
                "\r\nPOST /a?b HTTP/1.1\r\n"
            } else {
                "GET http://a HTTP/1.1\r\n"
            };
            format!("{line}Host: a\r\n{fields}{framing}\r\n{body}")
        },
    );
    let stream = prop::collection::vec(request, 1..4).prop_map(|requests| requests.concat());
    (stream, any_mutation()).prop_map(|(stream, mutation)| mutated(stream, mutation))
}

fn any_response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![
        "200 OK",
        "204 No",
        "304 Not",
        "101 Up",
        "500",
        "426 \u{e9}",
    ]);
    let interims = prop::collection::vec(any_fields(), 0..3);
    let stream = (interims, status, any_body(), any_fields(), 0..3usize).prop_map(
        |(interims, status, (framing, body), fields, more)| {
            let interims: String = interims
                .iter()
                .map(|fields| format!("HTTP/1.1 103 Hints\r\n{fields}\r\n"))
                .collect();
            let more = "x".repeat(more);
            format!("{interims}HTTP/1.1 {status}\r\n{fields}{framing}\r\n{body}{more}")
        },
    );
    (stream, any_mutation()).prop_map(|(stream, mutation)| mutated(stream, mutation))
}

proptest! {
    #[test]
    fn requests_do_not_depend_on_chunking(
        stream in any_requests(), sizes in prop::collection::vec(1usize..40, 0..60),
    ) {
        let whole = requests(&stream, []);
        prop_assert_eq!(&whole, &requests(&stream, each_byte(&stream)));
        prop_assert_eq!(&whole, &requests(&stream, sizes));
    }

    #[test]
    fn answers_do_not_depend_on_chunking(
        stream in any_response(), sizes in prop::collection::vec(1usize..40, 0..60),
        asked in prop::sample::select(vec![Asked::Ordinary, Asked::Head, Asked::Upgrade]),
    ) {
        let whole = response(asked, &stream, []);
        prop_assert_eq!(&whole, &response(asked, &stream, each_byte(&stream)));
        prop_assert_eq!(&whole, &response(asked, &stream, sizes));
    }

    /// The gate that hyper reads behind and this reader refuse the same, but for two rules.
    #[test]
    fn both_request_readers_agree(stream in any_requests()) {
        let mut gate = RequestValidator::new();
        gate.feed(&stream, &mut Vec::new());
        let refused = match gate.phase() {
            StreamPhase::Refused(refused) => Some(refused),
            _ => None,
        };
        let items = requests(&stream, []);
        let found = match items.last() {
            Some(Item::Failed(error)) => Some(*error),
            _ => None,
        };
        let is_other_upgrade = String::from_utf8_lossy(&stream).to_ascii_lowercase().contains("upgrade:");
        if !is_other_upgrade && found != Some(RequestError::TrailerName) {
            prop_assert_eq!(refused, found);
        }
    }

    #[test]
    fn random_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        requests(&stream, []);
        response(Asked::Ordinary, &stream, []);
        response(Asked::Ordinary, &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &stream[..]].concat(), []);
    }
}
