use bytes::BytesMut;
use proptest::prelude::*;

use super::chunking::any_response;
use super::*;
use crate::wire::http::status::MAX_PRECEDING_BYTES;

const MAX_HEAD_BYTES: usize = 1024;

/// The status of an answer that comes in pieces and then ends.
fn status<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<u16, ResponseError> {
    let mut reader = StatusReader::new(MAX_HEAD_BYTES);
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Some(status) = reader.read(&mut input)? {
            return Ok(status);
        }
    }
    Err(reader.truncated(&input))
}

fn whole(answer: &[u8]) -> Result<u16, ResponseError> {
    status([answer])
}

fn bytewise(answer: &[u8]) -> Result<u16, ResponseError> {
    status(answer.chunks(1))
}

/// Scripts that answer checks write their lines by `echo -e "...\\r\\n"`, among others.
#[test]
fn a_status_is_read_where_the_data_path_would_refuse_the_answer() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\n", 200),
        ("HTTP/1.1 200 OK\r\n\r\n\nup\r\n", 200),
        ("HTTP/1.1 503 Down\nContent-Type: text/plain\r\n\n", 503),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", 200),
        ("\n\n\r\nHTTP/1.0 200\n\n", 200),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            200,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            200,
        ),
        ("HTTP/1.1 204 No\r\nContent-Length: none\r\n\r\n", 204),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            200,
        ),
        (
            "HTTP/1.1 100 Go\r\n\n\r\nHTTP/1.1 103 Hints\n\nHTTP/1.1 404\r\n\r\n",
            404,
        ),
        ("HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n", 101),
        ("HTTP/1.1 999 \u{e9}\r\n\r\n", 999),
    ] {
        assert_eq!(whole(answer.as_bytes()), Ok(expected), "{answer:?}");
        assert_eq!(bytewise(answer.as_bytes()), Ok(expected), "{answer:?}");
    }
}

#[test]
fn bytes_that_are_no_answer_have_no_status() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "x".repeat(MAX_HEAD_BYTES)
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x:\r\n".repeat(101));
    let preceding = "\r\n".repeat(MAX_PRECEDING_BYTES / 2 + 1);
    let head = |error| Err(ResponseError::Head(error));
    for (answer, expected) in [
        ("", Err(ResponseError::Silent)),
        ("\r\n", Err(ResponseError::Truncated)),
        ("HTTP/1.1 200 OK\r\nX: y\r\n", Err(ResponseError::Truncated)),
        ("HTTP/1.1 100 Go\r\n\r\n", Err(ResponseError::Truncated)),
        ("SSH-2.0-OpenSSH_9.2\r\n", head(HeadError::Version)),
        (
            "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
            head(HeadError::Field),
        ),
        ("HTTP/1.1 099 Low\r\n\r\n", Err(ResponseError::Status)),
        (&long, head(HeadError::TooLarge)),
        (&many, head(HeadError::TooManyFields)),
        (&preceding, head(HeadError::TooLarge)),
    ] {
        assert_eq!(whole(answer.as_bytes()), expected, "{answer:.40?}");
        assert_eq!(bytewise(answer.as_bytes()), expected, "{answer:.40?}");
    }
}

proptest! {
    #[test]
    fn a_status_does_not_depend_on_chunking(
        stream in any_response(), size in 1usize..40,
    ) {
        let whole = whole(&stream).ok();
        prop_assert_eq!(whole, bytewise(&stream).ok());
        prop_assert_eq!(whole, status(stream.chunks(size)).ok());
    }

    #[test]
    fn every_answer_of_the_data_path_has_its_status(stream in any_response()) {
        let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Upgrade);
        let mut rest = &stream[..];
        while let Ok(Some(event)) = reader.next(rest) {
            if let Event::Head(length) = event {
                let expected = reader.head(&rest[..length]).status();
                prop_assert_eq!(whole(&stream), Ok(expected));
                break;
            }
            rest = &rest[event.taken()..];
        }
    }
}
