//! The boundaries of a chunked body (RFC 9112 section 7.1), byte by byte: sizes, bounded
//! extensions, data, trailers.

use super::head::{MAX_HEADERS, MAX_LENGTH_BYTES};
use super::{RequestError, is_token_byte, is_value_byte};

/// Most bytes of chunk extensions in one body. Their only known use is to flood a parser; below
/// hyper's own limit.
pub const MAX_EXTENSION_BYTES: usize = 8 * 1024;

/// Longest trailer section of one body, below hyper's own limit.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// Hex digits of a chunk size; leading zeros count.
const MAX_SIZE_DIGITS: u8 = 16;

/// Follows one chunked body to its end.
#[derive(Debug, Default)]
pub(super) struct ChunkedBody {
    state: ChunkState,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkedBody {
    pub(super) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Returns how many bytes of `input` belong to the body and are valid, and the error of the
    /// next one, if any.
    pub(super) fn follow(&mut self, input: &[u8]) -> (usize, Option<RequestError>) {
        let mut taken = 0;
        while let Some(&byte) = input.get(taken) {
            match self.state {
                ChunkState::Done => break,
                ChunkState::Data => taken += self.skip_data(input.len() - taken),
                _ => match self.next(byte) {
                    Ok(state) => {
                        self.state = state;
                        taken += 1;
                    }
                    Err(refusal) => return (taken, Some(refusal)),
                },
            }
        }
        (taken, None)
    }

    fn skip_data(&mut self, available: usize) -> usize {
        let count = usize::try_from(self.size).map_or(available, |size| size.min(available));
        self.size -= count as u64;
        if self.size == 0 {
            self.state = ChunkState::DataCarriageReturn;
        }
        count
    }

    fn next(&mut self, byte: u8) -> Result<ChunkState, RequestError> {
        match (self.state, byte) {
            (ChunkState::Size, b'\r') if self.digits > 0 => Ok(ChunkState::SizeLineFeed),
            (ChunkState::Size, b';') if self.digits > 0 => self.extension(),
            (ChunkState::Size, _) => self.digit(byte),
            (ChunkState::Extension, b'\r') => Ok(ChunkState::SizeLineFeed),
            (ChunkState::Extension, b'\t' | b' '..=b'~') => self.extension(),
            (ChunkState::SizeLineFeed, b'\n') => Ok(self.after_size()),
            (ChunkState::DataCarriageReturn, b'\r') => Ok(ChunkState::DataLineFeed),
            (ChunkState::DataLineFeed, b'\n') => Ok(ChunkState::Size),
            (ChunkState::LastLineFeed, b'\n') => Ok(ChunkState::Done),
            (
                ChunkState::Extension
                | ChunkState::SizeLineFeed
                | ChunkState::DataCarriageReturn
                | ChunkState::DataLineFeed,
                _,
            ) => Err(RequestError::Chunk),
            _ => self.trailer(byte),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<ChunkState, RequestError> {
        let digit = char::from(byte).to_digit(16).ok_or(RequestError::Chunk)?;
        if self.digits == MAX_SIZE_DIGITS {
            return Err(RequestError::Chunk);
        }
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        let fits = self.size <= MAX_LENGTH_BYTES;
        fits.then_some(ChunkState::Size).ok_or(RequestError::Chunk)
    }

    fn extension(&mut self) -> Result<ChunkState, RequestError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(RequestError::Extensions);
        }
        Ok(ChunkState::Extension)
    }

    fn after_size(&mut self) -> ChunkState {
        self.digits = 0;
        match self.size {
            0 => ChunkState::TrailerStart,
            _ => ChunkState::Data,
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<ChunkState, RequestError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(RequestError::Trailer);
        }
        match (self.state, byte) {
            (ChunkState::TrailerStart, b'\r') => Ok(ChunkState::LastLineFeed),
            (ChunkState::TrailerStart, _) if is_token_byte(byte) && self.trailers < MAX_HEADERS => {
                self.trailers += 1;
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerName, _) if is_token_byte(byte) => Ok(ChunkState::TrailerName),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLineFeed),
            (ChunkState::TrailerValue, _) if is_value_byte(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerLineFeed, b'\n') => Ok(ChunkState::TrailerStart),
            _ => Err(RequestError::Trailer),
        }
    }
}
