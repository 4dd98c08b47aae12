//! Strict HTTP/1 validation (RFC 9110, RFC 9112): follows a client's byte stream from head to body
//! to head and passes only checked bytes.
//!
//! Runs before a lenient parser: two parsers that disagree on the end of a request allow request
//! smuggling. Doubtful input is refused, with a status for the client. After the head of a
//! WebSocket upgrade nothing passes any more: the rest belongs to the tunnel.

mod body;
mod chunked;
mod edits;
mod event;
mod fields;
mod head;
mod head_writer;
mod host;
mod request;
mod response;
mod scan;
#[cfg(test)]
pub(crate) mod testing;
mod write;

pub use body::BodyFraming;
pub use chunked::{ChunkError, MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES};
pub use edits::Edits;
pub use event::Event;
pub use fields::{ConnectionOptions, FieldLookup, Fields, HttpVersion};
pub use head::{MAX_HEADERS, MAX_LENGTH_BYTES};
pub use head_writer::HeadWriter;
pub(crate) use head_writer::title_case;
pub use host::{Host, parse_host};
pub use request::{ParsedRequest, RequestHead, RequestReader};
pub use response::{
    Asked, MAX_INTERIM_RESPONSES, ParsedResponse, ResponseError, ResponseFraming, ResponseHead,
    ResponseReader,
};
pub use scan::HeadError;
pub use write::{
    BodyTransfer, CHUNK_END, ClientHop, ForwardedResponse, LAST_CHUNK, NextHop, chunk_start,
    write_interim, write_request, write_response,
};

pub use crate::base::head_limits::{HeadLimits, MAX_FIELDS};
use chunked::ChunkedBody;
use head::{BodyLength, RequestFraming};

/// Longest request head, from request line to empty line.
pub const MAX_HEAD_BYTES: usize = HeadLimits::REQUEST.max_bytes;

/// Phase of the client's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPhase {
    /// Between two requests: no byte of the next head has come.
    Idle,
    Head,
    Body,
    /// A head that asks for a WebSocket has passed; nothing follows it.
    Upgrade,
    /// Nothing passes any more.
    Refused(RequestError),
}

/// Why a stream is refused; always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("line feed without carriage return")]
    BareLineFeed,
    #[error("carriage return without line feed")]
    BareCarriageReturn,
    #[error("control byte")]
    ControlByte,
    #[error("folded header line")]
    Fold,
    #[error("empty line in place of a request line")]
    EmptyLine,
    #[error("head exceeds {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    #[error("more than {MAX_HEADERS} header fields")]
    TooManyHeaders,
    #[error("malformed request line, or one of another protocol")]
    RequestLine,
    #[error("http version is neither 1.0 nor 1.1")]
    Version,
    #[error("request target is not of a form that is served")]
    Target,
    #[error("malformed header field")]
    Field,
    #[error("host is missing, repeated, invalid or not that of the target")]
    Host,
    #[error("content-length is repeated or not a number")]
    Length,
    #[error("body exceeds {MAX_LENGTH_BYTES} bytes")]
    LengthTooLarge,
    #[error(
        "transfer-encoding is not exactly chunked, or stands beside content-length or in http/1.0"
    )]
    TransferEncoding,
    #[error("upgrade with a body")]
    UpgradeBody,
    #[error("malformed chunk")]
    Chunk,
    #[error("chunk extensions exceed {MAX_EXTENSION_BYTES} bytes")]
    Extensions,
    #[error("malformed trailer")]
    Trailer,
    #[error("trailer of a name that only a head may have")]
    TrailerName,
    #[error("websocket upgrade in http/1.0, which has no upgrades")]
    UpgradeVersion,
}

impl From<HeadError> for RequestError {
    fn from(error: HeadError) -> RequestError {
        match error {
            HeadError::BareLineFeed => RequestError::BareLineFeed,
            HeadError::BareCarriageReturn => RequestError::BareCarriageReturn,
            HeadError::ControlByte => RequestError::ControlByte,
            HeadError::Fold => RequestError::Fold,
            HeadError::EmptyLine => RequestError::EmptyLine,
            HeadError::TooLarge => RequestError::HeadTooLarge,
            HeadError::TooManyFields => RequestError::TooManyHeaders,
            HeadError::StartLine => RequestError::RequestLine,
            HeadError::Version => RequestError::Version,
            HeadError::Field => RequestError::Field,
        }
    }
}

impl From<ChunkError> for RequestError {
    fn from(error: ChunkError) -> RequestError {
        match error {
            ChunkError::Chunk => RequestError::Chunk,
            ChunkError::Extensions => RequestError::Extensions,
            ChunkError::Trailer => RequestError::Trailer,
            ChunkError::TrailerName => RequestError::TrailerName,
        }
    }
}

impl RequestError {
    /// The status to answer with: 400, 431 or 505.
    pub fn status(self) -> u16 {
        match self {
            RequestError::HeadTooLarge | RequestError::TooManyHeaders => 431,
            RequestError::Version => 505,
            _ => 400,
        }
    }

    /// True when the head of the refused request has already passed.
    pub fn in_body(self) -> bool {
        matches!(
            self,
            RequestError::Chunk
                | RequestError::Extensions
                | RequestError::Trailer
                | RequestError::TrailerName
        )
    }
}

/// Validator of one client's stream. Pure: bytes in, passed bytes and a phase out.
#[derive(Debug)]
pub struct RequestValidator {
    state: ValidatorState,
    heads: u64,
}

#[derive(Debug)]
enum ValidatorState {
    Head(HeadCollector),
    Length(u64),
    Chunked(ChunkedBody),
    Upgrade,
    Refused(RequestError),
}

impl Default for RequestValidator {
    fn default() -> RequestValidator {
        RequestValidator {
            state: ValidatorState::Head(HeadCollector::default()),
            heads: 0,
        }
    }
}

impl RequestValidator {
    pub fn new() -> RequestValidator {
        RequestValidator::default()
    }

    pub fn phase(&self) -> StreamPhase {
        match &self.state {
            ValidatorState::Head(collector) if collector.head.is_empty() => StreamPhase::Idle,
            ValidatorState::Head(_) => StreamPhase::Head,
            ValidatorState::Length(_) | ValidatorState::Chunked(_) => StreamPhase::Body,
            ValidatorState::Upgrade => StreamPhase::Upgrade,
            ValidatorState::Refused(refusal) => StreamPhase::Refused(*refusal),
        }
    }

    /// Heads passed so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes from `input`, appends checked bytes to `passed`, and returns how many bytes it took:
    /// all of them, but for those behind an upgrade head or a refusal. A head passes as a whole or
    /// not at all.
    pub fn feed(&mut self, input: &[u8], passed: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.step(rest, passed) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(refusal) => {
                    self.state = ValidatorState::Refused(refusal);
                    break;
                }
            }
        }
        taken
    }

    fn step(&mut self, input: &[u8], passed: &mut Vec<u8>) -> Result<usize, RequestError> {
        match &mut self.state {
            ValidatorState::Head(collector) => {
                let (taken, complete) = collector.collect(input)?;
                if complete {
                    let head = head::check(&collector.head)?;
                    passed.append(&mut collector.head);
                    self.heads += 1;
                    self.state = after(&head);
                }
                Ok(taken)
            }
            ValidatorState::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                passed.extend(input.iter().take(taken));
                *left -= taken as u64;
                if *left == 0 {
                    self.state = ValidatorState::Head(HeadCollector::default());
                }
                Ok(taken)
            }
            ValidatorState::Chunked(chunked) => {
                let (taken, refused) = chunked.follow(input);
                passed.extend(input.iter().take(taken));
                if chunked.is_done() {
                    self.state = ValidatorState::Head(HeadCollector::default());
                }
                refused.map_or(Ok(taken), |error| Err(error.into()))
            }
            ValidatorState::Upgrade | ValidatorState::Refused(_) => Ok(0),
        }
    }
}

fn after(head: &RequestFraming) -> ValidatorState {
    match head.body {
        _ if head.upgrade => ValidatorState::Upgrade,
        BodyLength::Known(0) => ValidatorState::Head(HeadCollector::default()),
        BodyLength::Known(length) => ValidatorState::Length(length),
        BodyLength::Chunked => ValidatorState::Chunked(ChunkedBody::default()),
    }
}

/// The bytes of a head so far, each checked on arrival, so that the result does not depend on
/// chunking.
#[derive(Debug, Default)]
struct HeadCollector {
    head: Vec<u8>,
    /// An empty line before a request line was accepted, once (RFC 9112 section 2.2; old clients
    /// send one after a body).
    skipped_empty_line: bool,
}

impl HeadCollector {
    /// Takes bytes up to the end of the head; returns how many, and whether the head is complete.
    fn collect(&mut self, input: &[u8]) -> Result<(usize, bool), RequestError> {
        for (index, &byte) in input.iter().enumerate() {
            self.push(byte)?;
            if self.head == b"\r\n" {
                self.skip_empty_line()?;
            }
            if self.head.ends_with(b"\r\n\r\n") {
                return Ok((index + 1, true));
            }
        }
        Ok((input.len(), false))
    }

    fn push(&mut self, byte: u8) -> Result<(), RequestError> {
        let after_carriage_return = self.head.last() == Some(&b'\r');
        match byte {
            b'\n' if !after_carriage_return => return Err(RequestError::BareLineFeed),
            b'\n' => {}
            _ if after_carriage_return => return Err(RequestError::BareCarriageReturn),
            b' ' | b'\t' if self.head.ends_with(b"\n") => return Err(RequestError::Fold),
            b'\r' | b'\t' => {}
            _ if byte.is_ascii_control() => return Err(RequestError::ControlByte),
            _ => {}
        }
        if self.head.len() == MAX_HEAD_BYTES {
            return Err(RequestError::HeadTooLarge);
        }
        self.head.push(byte);
        Ok(())
    }

    fn skip_empty_line(&mut self) -> Result<(), RequestError> {
        if self.skipped_empty_line {
            return Err(RequestError::EmptyLine);
        }
        self.skipped_empty_line = true;
        self.head.clear();
        Ok(())
    }
}

/// A byte of a token (RFC 9110 section 5.6.2): methods, field names, list items.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a field value (RFC 9110 section 5.5): visible, space, tab, or above ASCII.
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod chunking_tests;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod response_tests;
#[cfg(test)]
mod write_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the whole of `input` in pieces of the given sizes (the last one repeats).
    fn run(input: &[u8], sizes: &[usize]) -> (Vec<u8>, StreamPhase, usize) {
        let mut gate = RequestValidator::new();
        let mut passed = Vec::new();
        let mut taken = 0;
        let mut rest = input;
        let mut sizes = sizes.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            let (piece, behind) = rest.split_at(size);
            taken += gate.feed(piece, &mut passed);
            rest = behind;
        }
        (passed, gate.phase(), taken)
    }

    fn phase(input: &[u8]) -> StreamPhase {
        run(input, &[]).1
    }

    fn refusal(input: &[u8]) -> Option<RequestError> {
        match phase(input) {
            StreamPhase::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Everything a peer's parser was once fooled by, and what the gate says to it.
    pub(super) const SMUGGLING: &[(&[u8], RequestError)] = &[
        // Two lengths, or a length and an encoding.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", RequestError::Length),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", RequestError::LengthTooLarge),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", RequestError::LengthTooLarge),
        // Encodings that one parser reads as chunked and another does not.
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::TransferEncoding),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", RequestError::ControlByte),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", RequestError::Field),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", RequestError::Field),
        (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", RequestError::Fold),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n", RequestError::Fold),
        (b"POST / HTTP/1.1\r\n Host: a\r\n\r\n", RequestError::Fold),
        // Line ends.
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", RequestError::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", RequestError::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", RequestError::BareLineFeed),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", RequestError::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", RequestError::BareCarriageReturn),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::EmptyLine),
        // Bytes.
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", RequestError::ControlByte),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", RequestError::ControlByte),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", RequestError::ControlByte),
        (b"\x16\x03\x01\x02\x00\x01\x00", RequestError::ControlByte),
        // Field names.
        (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", RequestError::Field),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", RequestError::Field),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", RequestError::Field),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: b\r\n\r\n", RequestError::Field),
        // Host.
        (b"GET / HTTP/1.1\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", RequestError::Host),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", RequestError::Host),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Host),
        (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Host),
        // Request lines.
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", RequestError::Target),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::Target),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestError::RequestLine),
        (b"GET /\r\n\r\n", RequestError::RequestLine),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", RequestError::Version),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", RequestError::Version),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", RequestError::RequestLine),
        // Upgrades.
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\nx", RequestError::UpgradeBody),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\nTransfer-Encoding: chunked\r\n\r\n", RequestError::UpgradeBody),
    ];

    #[test]
    fn refuses_the_smuggling_corpus_and_passes_nothing_of_it() {
        for (input, expected) in SMUGGLING {
            let (passed, phase, _) = run(input, &[]);
            assert_eq!(
                phase,
                StreamPhase::Refused(*expected),
                "{}",
                input.escape_ascii()
            );
            assert!(passed.is_empty(), "{}", input.escape_ascii());
        }
    }

    const CHUNKED_HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn refuses_chunks_that_parsers_disagree_on() {
        let table = [
            ("0x5\r\nhello\r\n0\r\n\r\n", RequestError::Chunk),
            ("+5\r\nhello\r\n0\r\n\r\n", RequestError::Chunk),
            (" 5\r\nhello\r\n0\r\n\r\n", RequestError::Chunk),
            ("5 \r\nhello\r\n0\r\n\r\n", RequestError::Chunk),
            ("5\nhello\r\n0\r\n\r\n", RequestError::Chunk),
            ("5\rhello\r\n0\r\n\r\n", RequestError::Chunk),
            ("\r\nhello", RequestError::Chunk),
            (";a\r\nhello", RequestError::Chunk),
            ("5\r\nhello0\r\n\r\n", RequestError::Chunk),
            ("5\r\nhello\n0\r\n\r\n", RequestError::Chunk),
            ("5\r\nhello!\r\n", RequestError::Chunk),
            ("ffffffffffffffff\r\n", RequestError::Chunk),
            ("8000000000000000\r\n", RequestError::Chunk),
            ("10000000000000005\r\n", RequestError::Chunk),
            ("00000000000000005\r\n", RequestError::Chunk),
            ("5;a\nb\r\nhello", RequestError::Chunk),
            ("5;a\u{1}\r\nhello", RequestError::Chunk),
            ("0\r\n\n", RequestError::Trailer),
            ("0\r\n x: y\r\n\r\n", RequestError::Trailer),
            ("0\r\nx : y\r\n\r\n", RequestError::Trailer),
            ("0\r\n: y\r\n\r\n", RequestError::Trailer),
            ("0\r\nx: a\nb\r\n\r\n", RequestError::Trailer),
            ("0\r\nx: a\0\r\n\r\n", RequestError::Trailer),
        ];
        for (body, expected) in table {
            let input = [CHUNKED_HEAD, body].concat();
            let (passed, phase, _) = run(input.as_bytes(), &[]);
            assert_eq!(phase, StreamPhase::Refused(expected), "{body:?}");
            assert!(expected.in_body() && passed.len() < input.len(), "{body:?}");
        }
    }

    #[test]
    fn bounds_extensions_and_trailers() {
        let extensions = [CHUNKED_HEAD, "1;", &"x".repeat(MAX_EXTENSION_BYTES)].concat();
        assert_eq!(
            refusal(extensions.as_bytes()),
            Some(RequestError::Extensions)
        );
        let spread = [
            CHUNKED_HEAD,
            &"1;ab\r\nx\r\n".repeat(MAX_EXTENSION_BYTES / 3 + 1),
        ]
        .concat();
        assert_eq!(refusal(spread.as_bytes()), Some(RequestError::Extensions));
        let trailers = [CHUNKED_HEAD, "0\r\nx: ", &"y".repeat(MAX_TRAILER_BYTES)].concat();
        assert_eq!(refusal(trailers.as_bytes()), Some(RequestError::Trailer));
        let many = [CHUNKED_HEAD, "0\r\n", &"x:\r\n".repeat(MAX_HEADERS + 1)].concat();
        assert_eq!(refusal(many.as_bytes()), Some(RequestError::Trailer));
    }

    #[test]
    fn passes_ordinary_requests_to_their_last_byte() {
        let streams = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
            "GET https://a?y HTTP/1.1\r\nhOsT:\ta \r\nX:\r\nUpgrade: h2c\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;n=\"v\"\r\nhello\r\n00\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        ];
        for stream in streams {
            let (passed, phase, taken) = run(stream.as_bytes(), &[]);
            assert_eq!(
                (passed.escape_ascii().to_string(), phase),
                (
                    stream.as_bytes().escape_ascii().to_string(),
                    StreamPhase::Idle
                )
            );
            assert_eq!(taken, stream.len());
        }
    }

    #[test]
    fn forgives_one_empty_line_before_a_request_line_and_drops_it() {
        let (passed, phase, taken) = run(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[]);
        assert_eq!(
            (&passed[..3], phase, taken),
            (&b"GET"[..], StreamPhase::Idle, 29)
        );
    }

    #[test]
    fn bounds_the_head() {
        let fields = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"x: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(
            refusal([&fields, "\r\n"].concat().as_bytes()),
            Some(RequestError::TooManyHeaders)
        );
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let head = |length: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "y".repeat(length - frame)
            )
        };
        assert_eq!(phase(head(MAX_HEAD_BYTES).as_bytes()), StreamPhase::Idle);
        assert_eq!(
            refusal(head(MAX_HEAD_BYTES + 1).as_bytes()),
            Some(RequestError::HeadTooLarge)
        );
        assert_eq!(RequestError::HeadTooLarge.status(), 431);
    }

    #[test]
    fn passes_nothing_behind_an_upgrade_head() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, WebSocket\r\nContent-Length: 0\r\n\r\n";
        let input = [&head[..], b"\x81\x00GET / HTTP/1.1\r\n"].concat();
        let (passed, phase, taken) = run(&input, &[]);
        assert_eq!(
            (passed.as_slice(), phase, taken),
            (&head[..], StreamPhase::Upgrade, head.len())
        );
    }

    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let request = prop_oneof![
            Just("GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n".to_owned()),
            "[a-z]{0,40}".prop_map(|body| format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )),
            prop::collection::vec("[ -~\r\n]{1,30}", 0..4).prop_map(|chunks| {
                let chunks: String = chunks
                    .iter()
                    .map(|chunk| format!("{:x};e\r\n{chunk}\r\n", chunk.len()))
                    .collect();
                format!("{CHUNKED_HEAD}{chunks}0\r\nT: v\r\n\r\n")
            }),
            Just("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x01\x02".to_owned()),
        ];
        let mutation = prop::option::of((
            any::<prop::sample::Index>(),
            prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r'), Just(b' ')],
        ));
        (prop::collection::vec(request, 1..5), mutation).prop_map(|(requests, mutation)| {
            let mut bytes = requests.concat().into_bytes();
            if let Some((index, byte)) = mutation {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn verdict_and_passed_bytes_do_not_hang_on_the_chunking(
            stream in any_stream(), sizes in prop::collection::vec(1usize..20, 0..80),
        ) {
            let whole = run(&stream, &[]);
            let single: Vec<usize> = vec![1; stream.len()];
            let bytewise = run(&stream, &single);
            let pieces = run(&stream, &sizes);
            prop_assert_eq!((&whole.0, whole.1), (&bytewise.0, bytewise.1));
            prop_assert_eq!((&whole.0, whole.1), (&pieces.0, pieces.1));
        }

        #[test]
        fn random_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
            run(&stream, &[]);
            run(&[CHUNKED_HEAD.as_bytes(), &stream].concat(), &[]);
        }
    }
}
