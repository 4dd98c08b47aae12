//! A message's body from its first byte to its last, in any chunking.

use super::chunked::{ChunkError, ChunkedBody, ChunkedPart};
use super::fields::{is_framing_as_read, is_special_as_read};

/// Rule by which a message's body ends (RFC 9112 section 6.3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body, whatever the fields say.
    #[default]
    None,
    Length(u64),
    Chunked,
    /// Valid for answers only.
    UntilClose,
}

/// Reads one body.
#[derive(Debug)]
pub(super) enum BodyReader {
    Length(u64),
    Chunked(ChunkedReader),
    UntilClose,
}

/// Follows a chunked body and checks its trailers' names.
#[derive(Debug)]
pub(super) struct ChunkedReader {
    chunked: ChunkedBody,
    names: TrailerNames,
    failed: Option<ChunkError>,
}

impl BodyReader {
    pub(super) fn new(framing: BodyFraming, side: TrailerSide) -> BodyReader {
        match framing {
            BodyFraming::None => BodyReader::Length(0),
            BodyFraming::Length(length) => BodyReader::Length(length),
            BodyFraming::UntilClose => BodyReader::UntilClose,
            BodyFraming::Chunked => BodyReader::Chunked(ChunkedReader {
                chunked: ChunkedBody::default(),
                names: TrailerNames::new(side),
                failed: None,
            }),
        }
    }

    /// True when the last byte has been read. A body until close never is.
    pub(super) fn is_done(&self) -> bool {
        match self {
            BodyReader::Length(left) => *left == 0,
            BodyReader::Chunked(reader) => reader.failed.is_none() && reader.chunked.is_done(),
            BodyReader::UntilClose => false,
        }
    }

    /// Reads bytes of one kind from the start of `input`, which is not empty, before the end.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(ChunkedPart, usize), ChunkError> {
        match self {
            BodyReader::UntilClose => Ok((ChunkedPart::Data, input.len())),
            BodyReader::Length(left) => {
                let count =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                Ok((ChunkedPart::Data, count))
            }
            BodyReader::Chunked(reader) => reader.read(input),
        }
    }
}

impl ChunkedReader {
    /// Returns valid bytes before an error, and the error in the next call: the result does not
    /// depend on chunking.
    fn read(&mut self, input: &[u8]) -> Result<(ChunkedPart, usize), ChunkError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (part, mut count, mut error) = self.chunked.follow(input);
        if part == ChunkedPart::Trailers
            && let Some(refused) = self
                .names
                .find_refused(input.get(..count).unwrap_or_default())
        {
            count = refused;
            error = Some(ChunkError::TrailerName);
        }
        self.failed = error;
        match error {
            Some(error) if count == 0 => Err(error),
            _ => Ok((part, count)),
        }
    }
}

/// The sender of trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrailerSide {
    Client,
    Backend,
}

/// Longest name that decides anything.
const MAX_NAME: usize = 24;

/// Finds trailers that may not be: receivers that merge trailers with the head would be framed,
/// routed or deceived by them (RFC 9110 section 6.5.1). Reads a valid trailer section.
#[derive(Debug)]
struct TrailerNames {
    side: TrailerSide,
    name: [u8; MAX_NAME],
    /// Length of the name, which may be longer than what is kept. `None` in a value.
    length: Option<usize>,
}

impl TrailerNames {
    fn new(side: TrailerSide) -> TrailerNames {
        TrailerNames {
            side,
            name: [0; MAX_NAME],
            length: Some(0),
        }
    }

    /// The place of the colon behind a name that is refused.
    fn find_refused(&mut self, section: &[u8]) -> Option<usize> {
        for (at, &byte) in section.iter().enumerate() {
            match (self.length, byte) {
                (_, b'\n') => self.length = Some(0),
                (None, _) => {}
                (Some(length), b':') => {
                    if self.is_refused(length) {
                        return Some(at);
                    }
                    self.length = None;
                }
                (Some(length), _) => {
                    if let Some(place) = self.name.get_mut(length) {
                        *place = byte;
                    }
                    self.length = Some(length + 1);
                }
            }
        }
        None
    }

    /// Names longer than what is kept can only belong to a family.
    fn is_refused(&self, length: usize) -> bool {
        let name = self.name.get(..length).unwrap_or(&self.name);
        match self.side {
            TrailerSide::Client => is_special_as_read(name),
            TrailerSide::Backend => is_framing_as_read(name),
        }
    }
}
