//! Requests that parsers were fooled by.

use super::{HeadError, LengthError, RequestError};

/// A stream that begins with a bad head, and what is wrong with it.
pub(super) const BAD_REQUESTS: &[(&str, RequestError)] = &[
    // Two lengths, or a length and an encoding.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
         Content-Length: 6\r\n\r\n0\r\n\r\nX",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        RequestError::Length(LengthError::Malformed),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        RequestError::Length(LengthError::TooLarge),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        RequestError::Length(LengthError::TooLarge),
    ),
    // Encodings that one parser reads as chunked and another does not.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        RequestError::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        RequestError::Head(HeadError::ControlByte),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
        RequestError::Head(HeadError::Fold),
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n",
        RequestError::Head(HeadError::Fold),
    ),
    (
        "POST / HTTP/1.1\r\n Host: a\r\n\r\n",
        RequestError::Head(HeadError::Fold),
    ),
    // Line ends.
    (
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::BareLineFeed),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        RequestError::Head(HeadError::BareLineFeed),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        RequestError::Head(HeadError::BareLineFeed),
    ),
    (
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::BareLineFeed),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        RequestError::Head(HeadError::BareCarriageReturn),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        RequestError::Head(HeadError::BareCarriageReturn),
    ),
    (
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::EmptyLine),
    ),
    // Bytes.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        RequestError::Head(HeadError::ControlByte),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        RequestError::Head(HeadError::ControlByte),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        RequestError::Head(HeadError::ControlByte),
    ),
    (
        "\x16\x03\x01\x02\x00\x01\x00",
        RequestError::Head(HeadError::ControlByte),
    ),
    // Field names.
    (
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: b\r\n\r\n",
        RequestError::Head(HeadError::Field),
    ),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", RequestError::Host),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        RequestError::Host,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        RequestError::Host,
    ),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", RequestError::Host),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", RequestError::Host),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", RequestError::Host),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", RequestError::Host),
    (
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Host,
    ),
    (
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Host,
    ),
    // Request lines.
    (
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        RequestError::Target,
    ),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
    (
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Target,
    ),
    ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
    (
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Target,
    ),
    (
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    (
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    (
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    (
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    (
        "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    (
        "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    ("GET /\r\n\r\n", RequestError::Head(HeadError::StartLine)),
    (
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::Version),
    ),
    (
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        RequestError::Head(HeadError::Version),
    ),
    (
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        RequestError::Head(HeadError::StartLine),
    ),
    // Upgrades.
    (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Content-Length: 1\r\n\r\nx",
        RequestError::UpgradeBody,
    ),
];
