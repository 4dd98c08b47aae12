//! The status of an answer whose fields and body nobody reads, as a health check asks for it.
//!
//! Lenient where [`super::ResponseReader`] is strict: lines may end in either way and in both,
//! empty lines may come first, and fields are not looked at. Scripts that answer checks are written
//! by hand, and no byte of the answer goes to anybody else.

use bytes::{Buf, BytesMut};
use httparse::Status;

use super::fields::{head_error, with_slots};
use super::response::ResponseError;
use super::scan::HeadError;

/// Most fields of a head.
const MAX_FIELDS: usize = 100;

/// Most bytes before the final head: of 1xx answers and of empty lines. Far more than any server
/// sends, and soon read.
pub(crate) const MAX_PRECEDING_BYTES: usize = 256 << 10;

/// Reads the status of the final answer.
#[derive(Debug)]
pub(crate) struct StatusReader {
    max_head_bytes: usize,
    /// Bytes of 1xx answers and of empty lines that were taken.
    preceding: usize,
    /// Bytes of the input that were looked at.
    seen: usize,
    /// Length of the input when it was parsed last.
    parsed: usize,
}

impl StatusReader {
    /// `max_head_bytes` is the most that one head may have.
    pub(crate) fn new(max_head_bytes: usize) -> StatusReader {
        StatusReader {
            max_head_bytes,
            preceding: 0,
            seen: 0,
            parsed: 0,
        }
    }

    /// Looks at what came, and takes 1xx answers and empty lines off. `None`: more bytes are
    /// needed. A 101 is a status like any other.
    ///
    /// # Errors
    /// Bytes are no head of an answer, or too many.
    pub(crate) fn read(&mut self, input: &mut BytesMut) -> Result<Option<u16>, ResponseError> {
        loop {
            self.take_empty_lines(input);
            if self.preceding > MAX_PRECEDING_BYTES {
                return Err(HeadError::TooLarge.into());
            }
            let window = input.get(..self.max_head_bytes).unwrap_or(input);
            let parsed = if self.is_worth_parsing(window) {
                self.parsed = window.len();
                parse(window)?
            } else {
                None
            };
            match parsed {
                None if window.len() < self.max_head_bytes => return Ok(None),
                None => return Err(HeadError::TooLarge.into()),
                Some((100 | 102..=199, length)) => self.take(input, length),
                Some((status, _)) => return Ok(Some(status)),
            }
        }
    }

    /// The fault of an answer that ended before its status was known. `unread` is what is left.
    pub(crate) fn truncated(&self, unread: &[u8]) -> ResponseError {
        if self.preceding == 0 && unread.is_empty() {
            return ResponseError::Silent;
        }
        match parse(unread) {
            Ok(_) => ResponseError::Truncated,
            Err(error) => error,
        }
    }

    /// Whether a parse can say something new: a line has ended, of which a head has few, or the
    /// bytes have doubled. So bytes that drip are not parsed again for each of them.
    fn is_worth_parsing(&mut self, window: &[u8]) -> bool {
        let fresh = window.get(self.seen..).unwrap_or_default();
        self.seen = window.len();
        fresh.contains(&b'\n') || !fresh.is_empty() && window.len() >= 2 * self.parsed
    }

    /// A carriage return waits for its line feed.
    fn take_empty_lines(&mut self, input: &mut BytesMut) {
        loop {
            let length = match &input[..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => return,
            };
            self.take(input, length);
        }
    }

    fn take(&mut self, input: &mut BytesMut, length: usize) {
        input.advance(length);
        self.preceding += length;
        (self.seen, self.parsed) = (0, 0);
    }
}

/// The status and the length of a head; `None`: it is not complete.
fn parse(input: &[u8]) -> Result<Option<(u16, usize)>, ResponseError> {
    let parsed = with_slots(MAX_FIELDS, |slots| {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, input, slots);
        match parsed {
            Ok(Status::Complete(length)) => Ok(response.code.map(|status| (status, length))),
            Ok(Status::Partial) => Ok(None),
            Err(error) => Err(head_error(error)),
        }
    })?;
    match parsed {
        Some((..100, _)) => Err(ResponseError::Status),
        parsed => Ok(parsed),
    }
}
