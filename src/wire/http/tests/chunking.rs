use proptest::prelude::*;

use super::*;

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

pub(super) fn any_response() -> impl Strategy<Value = Vec<u8>> {
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

    #[test]
    fn random_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        requests(&stream, []);
        requests(&[CHUNKED_REQUEST.as_bytes(), &stream].concat(), []);
        response(Asked::Ordinary, &stream, []);
        response(Asked::Ordinary, &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &stream[..]].concat(), []);
    }
}
