//! Answers and chunked bodies that parsers were fooled by.

use super::{ChunkError, HeadError, ResponseError};

/// Answers that a reader may be fooled by, and what is wrong with them.
pub(super) const BAD_RESPONSES: &[(&str, ResponseError)] = &[
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
        "HTTP/1.1 200 OK\nContent-Length: 5\n\r\n",
        ResponseError::Head(HeadError::BareLineFeed),
    ),
    (
        "HTTP/1.1 200 OK\nX: a\r\nContent-Length: 5\n\n",
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

/// A chunked body, and what is wrong with it.
pub(super) const BAD_CHUNKS: &[(&str, ChunkError)] = &[
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
    ("5\nhello\r\n0\r\n\r\n", ChunkError::Chunk),
    ("\r\nhello", ChunkError::Chunk),
    (";a\r\nhello", ChunkError::Chunk),
    ("5\r\nhello!\r\n", ChunkError::Chunk),
    ("ffffffffffffffff\r\n", ChunkError::Chunk),
    ("10000000000000005\r\n", ChunkError::Chunk),
    ("00000000000000005\r\n", ChunkError::Chunk),
    ("5;a\u{1}\r\nhello", ChunkError::Chunk),
    ("0\r\n x: y\r\n\r\n", ChunkError::Trailer),
    ("0\r\nx : y\r\n\r\n", ChunkError::Trailer),
    ("0\r\n: y\r\n\r\n", ChunkError::Trailer),
    ("0\r\nx: a\nb\r\n\r\n", ChunkError::Trailer),
    ("0\r\nx: a\0\r\n\r\n", ChunkError::Trailer),
    ("0\r\nTransfer-Encoding: x\r\n\r\n", ChunkError::TrailerName),
    (
        "0\r\na: b\r\ncontent_length: 5\r\n\r\n",
        ChunkError::TrailerName,
    ),
    ("0\r\nConnection: close\r\n\r\n", ChunkError::TrailerName),
];

/// Trailers that only a client could deceive with.
pub(super) const CLIENTS_TRAILERS: &[&str] = &[
    "Host: b",
    "X-Forwarded-For: 10.0.0.1",
    "x_forwarded_for-and-a-long-name-behind-it: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "X-Client-Cert-Subject: CN=root",
    "Authorization: Basic x",
    "Cookie: a=b",
];
