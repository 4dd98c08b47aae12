//! The answer to one request: where its heads and body begin and end, as strict as requests are
//! read. A backend connection is used again only on the word of this reader.

use httparse::Status;

use super::body::{BodyFraming, BodyReader, TrailerSide};
use super::chunked::ChunkError;
use super::event::Event;
use super::fields::{
    ConnectionOptions, FieldTable, Fields, HttpVersion, Span, head_error, with_slots,
};
use super::length::parse_length;
use super::scan::{HeadError, HeadScanner};
use crate::base::head_limits::HeadLimits;

/// Most 1xx answers before the final one. Some servers send one every few seconds of long work.
pub const MAX_INTERIM_RESPONSES: u32 = 100;

/// Reason why bytes are no valid answer; always the backend's fault. All of them are a 502 while
/// nothing was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    #[error("connection was closed without an answer")]
    Silent,
    #[error("connection was closed within the answer")]
    Truncated,
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("status is below 100")]
    Status,
    #[error("content-length is not a number, or has different values")]
    Length,
    #[error("transfer-encoding is not exactly chunked, or in http/1.0")]
    TransferEncoding,
    #[error("more than {MAX_INTERIM_RESPONSES} interim answers")]
    Interim,
    #[error("protocol was switched without being asked to")]
    Upgrade,
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// Kind of request, which decides how its answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Ordinary,
    /// HEAD: the answer has no body.
    Head,
    /// 101 is a valid answer.
    Upgrade,
}

/// Reads the answer to one request, strictly. Pure: it keeps no bytes, the caller's buffer does.
#[derive(Debug)]
pub struct ResponseReader {
    limits: HeadLimits,
    asked: Asked,
    state: ResponseState,
    interims: u32,
    parsed: ParsedResponse,
}

#[derive(Debug)]
enum ResponseState {
    Head(HeadScanner),
    Body(BodyReader),
    Done,
    /// A 101 has passed.
    Upgraded,
    Failed(ResponseError),
}

/// Facts of a checked answer's head, and the places of its parts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ParsedResponse {
    status: u16,
    version: HttpVersion,
    reason: Span,
    fields: FieldTable,
    framing: ResponseFraming,
    connection: ConnectionOptions,
}

/// End of an answer's body, and the length that its fields give.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFraming {
    pub body: BodyFraming,
    /// The one value of `Content-Length`, where no transfer coding overrides it. Answers without
    /// body may have one.
    pub length: Option<u64>,
    /// The fields contradict each other or the status: what follows is not trusted.
    is_doubtful: bool,
}

impl ResponseReader {
    pub fn new(limits: HeadLimits, asked: Asked) -> ResponseReader {
        ResponseReader {
            limits,
            asked,
            state: ResponseState::Head(HeadScanner::OF_ANSWER),
            interims: 0,
            parsed: ParsedResponse::default(),
        }
    }

    /// Makes the reader one for the answer to the next request on the same connection. Bytes that
    /// came before that request was sent are no answer to it: such a connection is to be closed.
    pub fn restart(&mut self, asked: Asked) {
        self.asked = asked;
        self.state = ResponseState::Head(HeadScanner::OF_ANSWER);
        self.interims = 0;
    }

    /// Looks at the start of `input`, which begins with the first byte that no event has taken.
    /// `None`: more bytes are needed, or the answer is complete.
    ///
    /// # Errors
    /// The rule that is broken; each later call returns it, too.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Event>, ResponseError> {
        let found = match &mut self.state {
            ResponseState::Failed(error) => return Err(*error),
            ResponseState::Done | ResponseState::Upgraded => return Ok(None),
            ResponseState::Head(scanner) => match scanner.scan(input, self.limits.max_bytes) {
                Ok(None) => return Ok(None),
                Ok(Some(length)) => self.read_head(input, length),
                Err(error) => Err(error.into()),
            },
            ResponseState::Body(body) if body.is_done() => {
                self.state = ResponseState::Done;
                return Ok(Some(Event::End));
            }
            ResponseState::Body(_) if input.is_empty() => return Ok(None),
            ResponseState::Body(body) => match body.read(input) {
                Ok(piece) => Ok(Event::of_body(piece)),
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = found {
            self.state = ResponseState::Failed(error);
        }
        found.map(Some)
    }

    fn read_head(&mut self, input: &[u8], length: usize) -> Result<Event, ResponseError> {
        let head = input.get(..length).unwrap_or(input);
        let parsed = &mut self.parsed;
        parsed.parse(head, self.limits.max_fields, self.asked)?;
        match parsed.status {
            101 if self.asked == Asked::Upgrade => self.state = ResponseState::Upgraded,
            101 => return Err(ResponseError::Upgrade),
            100..=199 => {
                self.interims += 1;
                if self.interims > MAX_INTERIM_RESPONSES {
                    return Err(ResponseError::Interim);
                }
                self.state = ResponseState::Head(HeadScanner::OF_ANSWER);
                return Ok(Event::Interim(length));
            }
            _ => {
                let body = BodyReader::new(parsed.framing.body, TrailerSide::Backend);
                self.state = ResponseState::Body(body);
            }
        }
        Ok(Event::Head(length))
    }

    /// Takes the end of the stream: the end of a body that lasts until close. `unread` is what no
    /// event has taken.
    ///
    /// # Errors
    /// The answer is not complete, or has not even begun.
    pub fn finish(&mut self, unread: &[u8]) -> Result<(), ResponseError> {
        let error = match &self.state {
            ResponseState::Done | ResponseState::Upgraded => return Ok(()),
            ResponseState::Body(body) if body.is_done() => return Ok(()),
            ResponseState::Body(BodyReader::UntilClose) => {
                self.state = ResponseState::Done;
                return Ok(());
            }
            ResponseState::Failed(error) => *error,
            ResponseState::Head(_) if self.interims == 0 && unread.is_empty() => {
                ResponseError::Silent
            }
            ResponseState::Head(_) | ResponseState::Body(_) => ResponseError::Truncated,
        };
        self.state = ResponseState::Failed(error);
        Err(error)
    }

    /// The head of the latest [`Event::Head`] or [`Event::Interim`]; `head` are the bytes that it
    /// took.
    pub fn head<'a>(&'a self, head: &'a [u8]) -> ResponseHead<'a> {
        self.parsed.view(head)
    }

    /// True when another request may follow on the connection: the answer is complete, nothing is
    /// `unread` behind it, and neither the backend nor a doubt ends the connection. The request
    /// must have been sent to its end, which this reader does not see.
    pub fn is_reusable(&self, unread: &[u8]) -> bool {
        let parsed = &self.parsed;
        matches!(self.state, ResponseState::Done)
            && unread.is_empty()
            && parsed.framing.body != BodyFraming::UntilClose
            && !parsed.framing.is_doubtful
            && parsed.connection.persists(parsed.version)
    }
}

impl ParsedResponse {
    /// `head` is the one that this was parsed from.
    pub fn view<'a>(&'a self, head: &'a [u8]) -> ResponseHead<'a> {
        ResponseHead { head, parsed: self }
    }

    fn parse(&mut self, head: &[u8], max_fields: usize, asked: Asked) -> Result<(), ResponseError> {
        let line = with_slots(max_fields, |slots| {
            let mut response = httparse::Response::new(&mut []);
            let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                head,
                slots,
            );
            match parsed {
                Ok(Status::Complete(length)) if length == head.len() => {}
                Ok(_) => return Err(HeadError::StartLine),
                Err(error) => return Err(head_error(error)),
            }
            let (Some(status), Some(minor)) = (response.code, response.version) else {
                return Err(HeadError::StartLine);
            };
            self.fields.fill(head, response.headers);
            Ok((status, minor))
        });
        let (status, minor) = line?;
        if status < 100 {
            return Err(ResponseError::Status);
        }
        self.status = status;
        self.version = HttpVersion::of_minor(minor);
        self.reason = reason_of(head);
        let fields = self.fields.view(head);
        self.framing = ResponseFraming::of(fields, self.version, status, asked)?;
        // Lines that end by a line feed alone.
        self.framing.is_doubtful |= !head.ends_with(b"\r\n");
        self.connection = ConnectionOptions::of(fields);
        Ok(())
    }
}

/// Bytes of `HTTP/1.1 200`. httparse has checked the line.
const STATUS_LINE_START: usize = 12;

/// The reason as it was sent: httparse keeps none that has bytes above ASCII.
fn reason_of(head: &[u8]) -> Span {
    let rest = head.get(STATUS_LINE_START..).unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n');
    let end = end.unwrap_or(0);
    match rest.get(..end) {
        Some([b' ', reason @ ..]) => Span::of(head, reason),
        _ => Span::default(),
    }
}

impl ResponseFraming {
    /// RFC 9112 section 6.3, and no coding but chunked.
    fn of(
        fields: Fields<'_>,
        version: HttpVersion,
        status: u16,
        asked: Asked,
    ) -> Result<ResponseFraming, ResponseError> {
        let length = only_length(fields)?;
        let is_chunked = is_chunked(fields, version)?;
        let has_no_length = matches!(status, 100..=199 | 204);
        let body = if has_no_length || status == 304 || asked == Asked::Head {
            BodyFraming::None
        } else if is_chunked {
            BodyFraming::Chunked
        } else {
            length.map_or(BodyFraming::UntilClose, BodyFraming::Length)
        };
        Ok(ResponseFraming {
            body,
            // A transfer coding overrides it, and these have none.
            length: length.filter(|_| !is_chunked && !has_no_length),
            is_doubtful: is_chunked && (length.is_some() || has_no_length)
                || has_no_length && length.is_some_and(|length| length > 0),
        })
    }
}

/// The one value of all `Content-Length` fields and their elements.
fn only_length(fields: Fields<'_>) -> Result<Option<u64>, ResponseError> {
    let mut only = None;
    for element in fields.list("content-length") {
        let length = parse_length(element).map_err(|_| ResponseError::Length)?;
        if only.replace(length).is_some_and(|other| other != length) {
            return Err(ResponseError::Length);
        }
    }
    Ok(only)
}

/// True for exactly one `chunked`: nobody has asked for another coding.
fn is_chunked(fields: Fields<'_>, version: HttpVersion) -> Result<bool, ResponseError> {
    let mut codings = fields.values("transfer-encoding");
    let Some(coding) = codings.next() else {
        return Ok(false);
    };
    let is_known = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if is_known && version == HttpVersion::Http11 {
        return Ok(true);
    }
    Err(ResponseError::TransferEncoding)
}

/// A checked head of an answer, in the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    head: &'a [u8],
    parsed: &'a ParsedResponse,
}

impl<'a> ResponseHead<'a> {
    pub fn status(self) -> u16 {
        self.parsed.status
    }

    pub fn reason(self) -> &'a [u8] {
        self.parsed.reason.get(self.head)
    }

    pub fn version(self) -> HttpVersion {
        self.parsed.version
    }

    pub fn fields(self) -> Fields<'a> {
        self.parsed.fields.view(self.head)
    }

    pub fn framing(self) -> ResponseFraming {
        self.parsed.framing
    }

    pub fn connection(self) -> ConnectionOptions {
        self.parsed.connection
    }
}
