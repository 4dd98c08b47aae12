use super::bad_requests::BAD_REQUESTS;
use super::*;

#[test]
fn requests_that_fooled_a_parser_are_refused_and_none_is_passed() {
    for (stream, expected) in BAD_REQUESTS {
        for sizes in [Vec::new(), each_byte(stream.as_bytes())] {
            let mut items = requests(stream.as_bytes(), sizes);
            // An empty line may have come before.
            items.retain(|item| !matches!(item, Item::Bytes("skipped", _)));
            assert_eq!(items, [Item::Failed(*expected)], "{stream:?}");
        }
    }
}

#[test]
fn the_status_says_whether_a_smaller_head_or_another_version_would_do() {
    for (error, status) in [
        (RequestError::Head(HeadError::TooLarge), 431),
        (RequestError::Head(HeadError::TooManyFields), 431),
        (RequestError::Head(HeadError::Version), 505),
        (RequestError::Head(HeadError::Fold), 400),
        (RequestError::Host, 400),
        (RequestError::Length(LengthError::TooLarge), 400),
        (RequestError::Chunk(ChunkError::Trailer), 400),
    ] {
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn ordinary_requests_are_read_to_their_last_byte() {
    let table = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, ""),
        ("GET / HTTP/1.0\r\n\r\n", 1, ""),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1, ""),
        (
            "GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
            1,
            "",
        ),
        (
            "GET https://a?y HTTP/1.1\r\nhOsT:\ta \r\nX:\r\nUpgrade: h2c\r\n\r\n",
            1,
            "",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
             GET / HTTP/1.1\r\nHost: b\r\n\r\n",
            2,
            "hello",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
             5;n=\"v\"\r\nhello\r\n00\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
            2,
            "hello",
        ),
        // Without its option, Upgrade is of another hop.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            1,
            "hello",
        ),
    ];
    for (stream, count, data) in table {
        let items = requests(stream.as_bytes(), []);
        let is_head = |item: &&Item<_>| matches!(item, Item::Head(_));
        assert_eq!(items.iter().filter(is_head).count(), count, "{stream:?}");
        assert_eq!(data_of(&items), data, "{stream:?}");
        let last = Item::Left(0, "idle true body false".to_owned());
        assert_eq!(items.last(), Some(&last), "{stream:?}");
    }
}

#[test]
fn one_empty_line_before_a_request_line_is_forgiven_and_not_passed_on() {
    let items = requests(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", []);
    assert_eq!(items[0], Item::Bytes("skipped", "\\r\\n".to_owned()));
    assert!(matches!(&items[1], Item::Head(text) if text.starts_with("GET /")));
    let last = Item::Left(0, "idle true body false".to_owned());
    assert_eq!(items[2..], [Item::End, last]);
}

#[test]
fn nothing_behind_an_upgrade_head_is_read() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
        Upgrade: h2c, WebSocket\r\nContent-Length: 0\r\n\r\n";
    let tunnel = b"\x81\x00GET / HTTP/1.1\r\n";
    let items = requests(&[head.as_bytes(), tunnel].concat(), []);
    assert!(matches!(items[0], Item::Head(_)), "{items:?}");
    let left = Item::Left(tunnel.len(), "idle false body false".to_owned());
    assert_eq!(items[1..], [left]);
}

#[test]
fn a_head_has_its_limits() {
    let first = |stream: String| requests(stream.as_bytes(), []).swap_remove(0);
    let HeadLimits {
        max_bytes,
        max_fields,
    } = HeadLimits::REQUEST;
    let fields = "x: y\r\n".repeat(max_fields);
    let many = first(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(many, Item::Failed(HeadError::TooManyFields.into()));
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |length: usize| {
        let value = "y".repeat(length - frame);
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    assert!(matches!(first(head(max_bytes)), Item::Head(_)));
    let large = first(head(max_bytes + 1));
    assert_eq!(large, Item::Failed(HeadError::TooLarge.into()));
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
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "Content-Length: 1,2",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "Content-Length: 1_0",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "Content-Length: 1.0",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "Content-Length: \u{b2}",
        RequestError::Length(LengthError::Malformed),
    ),
    ("Content-Length : 1", RequestError::Head(HeadError::Field)),
    (
        "Content-Length\u{a0}: 1",
        RequestError::Head(HeadError::Field),
    ),
    ("Content Length: 1", RequestError::Head(HeadError::Field)),
    (
        "\u{feff}Content-Length: 1",
        RequestError::Head(HeadError::Field),
    ),
    (
        "Content-Length: 1\r",
        RequestError::Head(HeadError::BareCarriageReturn),
    ),
    ("X: 1\n", RequestError::Head(HeadError::BareLineFeed)),
    (
        "X: 1\nContent-Length: 1",
        RequestError::Head(HeadError::BareLineFeed),
    ),
    (
        "X: 1\rContent-Length: 1",
        RequestError::Head(HeadError::BareCarriageReturn),
    ),
    (
        "X: 1\r\n\tContent-Length: 1",
        RequestError::Head(HeadError::Fold),
    ),
    (
        "X: 1\r\n \r\nContent-Length: 1",
        RequestError::Head(HeadError::Fold),
    ),
    ("X: a\u{b}b", RequestError::Head(HeadError::ControlByte)),
    ("X: a\u{1b}b", RequestError::Head(HeadError::ControlByte)),
    ("X\u{1}: a", RequestError::Head(HeadError::ControlByte)),
    ("X", RequestError::Head(HeadError::Field)),
    ("\"X\": a", RequestError::Head(HeadError::Field)),
    ("X(): a", RequestError::Head(HeadError::Field)),
    ("X\\: a", RequestError::Head(HeadError::Field)),
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
    assert_eq!(
        reader.next(stream),
        Err(RequestError::Head(HeadError::TooManyFields))
    );
    let mut reader = ResponseReader::new(few, Asked::Ordinary);
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(64));
    assert_eq!(
        reader.next(long.as_bytes()),
        Err(ResponseError::Head(HeadError::TooLarge))
    );
}
