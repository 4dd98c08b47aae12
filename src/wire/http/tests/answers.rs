use super::bad_answers::{BAD_CHUNKS, BAD_RESPONSES, CLIENTS_TRAILERS};
use super::*;

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

const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The ends of a request and of an answer with this chunked body.
fn last_items(body: &str) -> (Item<RequestError>, Item<ResponseError>) {
    let client = [CHUNKED_REQUEST, body].concat();
    let backend = [ANSWER, body].concat();
    let client = requests(client.as_bytes(), []).pop().unwrap();
    let backend = response(Asked::Ordinary, backend.as_bytes(), []).pop();
    (client, backend.unwrap())
}

fn failed(error: ChunkError) -> (Item<RequestError>, Item<ResponseError>) {
    (Item::Failed(error.into()), Item::Failed(error.into()))
}

#[test]
fn chunks_that_parsers_disagree_on_are_refused_on_both_sides() {
    for (body, expected) in BAD_CHUNKS {
        assert_eq!(last_items(body), failed(*expected), "{body:?}");
        let stream = [ANSWER, body].concat();
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
        let (client, backend) = last_items(&format!("0\r\n{trailer}\r\n\r\n"));
        assert_eq!(
            client,
            Item::Failed(RequestError::Chunk(ChunkError::TrailerName)),
            "{trailer}"
        );
        assert_eq!(
            backend,
            Item::Left(0, "reusable true Ok(())".to_owned()),
            "{trailer}"
        );
    }
}

#[test]
fn extensions_and_trailers_have_their_limits_on_both_sides() {
    let table = [
        (
            format!("5;{}\r\nhello", "a".repeat(MAX_EXTENSION_BYTES)),
            ChunkError::Extensions,
        ),
        (
            "1;ab\r\nx\r\n".repeat(MAX_EXTENSION_BYTES / 3 + 1),
            ChunkError::Extensions,
        ),
        (
            format!("0\r\na: {}", "b".repeat(MAX_TRAILER_BYTES)),
            ChunkError::Trailer,
        ),
        (
            format!("0\r\n{}", "x:\r\n".repeat(101)),
            ChunkError::Trailer,
        ),
    ];
    for (body, expected) in table {
        assert_eq!(last_items(&body), failed(expected));
    }
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
        assert_eq!(data_of(&items), body, "{answer:?}");
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
