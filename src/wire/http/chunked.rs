//! The boundaries of a chunked body (RFC 9112 section 7.1), byte by byte: sizes, bounded
//! extensions, data, trailers.

use super::length::MAX_LENGTH_BYTES;
use super::syntax::{is_token_byte, is_value_byte};

/// Most bytes of chunk extensions in one body. Their only known use is to flood a parser; below
/// what strict backends take (hyper: 16 KiB).
pub const MAX_EXTENSION_BYTES: usize = 8 * 1024;

/// Longest trailer section of one body, below what strict backends take (hyper: 16 KiB).
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// Most trailers of one body.
const MAX_TRAILERS: usize = 100;

/// Hex digits of a chunk size; leading zeros count.
const MAX_SIZE_DIGITS: u8 = 16;

/// Reason why bytes are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("malformed chunk")]
    Chunk,
    #[error("chunk extensions exceed {MAX_EXTENSION_BYTES} bytes")]
    Extensions,
    #[error("malformed trailer")]
    Trailer,
    #[error("trailer of a name that only a head may have")]
    TrailerName,
}

/// Kind of bytes in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkedPart {
    Data,
    /// Sizes, extensions, and line ends of chunks.
    Framing,
    /// From behind the last chunk's size to the end.
    Trailers,
}

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

impl ChunkState {
    fn part(self) -> ChunkedPart {
        match self {
            ChunkState::Data => ChunkedPart::Data,
            ChunkState::TrailerStart
            | ChunkState::TrailerName
            | ChunkState::TrailerValue
            | ChunkState::TrailerLineFeed
            | ChunkState::LastLineFeed
            | ChunkState::Done => ChunkedPart::Trailers,
            _ => ChunkedPart::Framing,
        }
    }
}

impl ChunkedBody {
    pub(super) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Returns how many bytes at the start of `input` are valid and of one part, and the error of
    /// the next one, if any.
    pub(super) fn follow(&mut self, input: &[u8]) -> (ChunkedPart, usize, Option<ChunkError>) {
        let part = self.state.part();
        let mut taken = 0;
        while let Some(&byte) = input.get(taken)
            && self.state.part() == part
        {
            match self.state {
                ChunkState::Done => break,
                ChunkState::Data => taken += self.skip_data(input.len() - taken),
                _ => match self.next(byte) {
                    Ok(state) => {
                        self.state = state;
                        taken += 1;
                    }
                    Err(error) => return (part, taken, Some(error)),
                },
            }
        }
        (part, taken, None)
    }

    fn skip_data(&mut self, available: usize) -> usize {
        let count = usize::try_from(self.size).map_or(available, |size| size.min(available));
        self.size -= count as u64;
        if self.size == 0 {
            self.state = ChunkState::DataCarriageReturn;
        }
        count
    }

    fn next(&mut self, byte: u8) -> Result<ChunkState, ChunkError> {
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
            ) => Err(ChunkError::Chunk),
            _ => self.trailer(byte),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<ChunkState, ChunkError> {
        let digit = char::from(byte).to_digit(16).ok_or(ChunkError::Chunk)?;
        if self.digits == MAX_SIZE_DIGITS {
            return Err(ChunkError::Chunk);
        }
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        let fits = self.size <= MAX_LENGTH_BYTES;
        fits.then_some(ChunkState::Size).ok_or(ChunkError::Chunk)
    }

    fn extension(&mut self) -> Result<ChunkState, ChunkError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(ChunkError::Extensions);
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

    fn trailer(&mut self, byte: u8) -> Result<ChunkState, ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(ChunkError::Trailer);
        }
        match (self.state, byte) {
            (ChunkState::TrailerStart, b'\r') => Ok(ChunkState::LastLineFeed),
            (ChunkState::TrailerStart, _)
                if is_token_byte(byte) && self.trailers < MAX_TRAILERS =>
            {
                self.trailers += 1;
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerName, _) if is_token_byte(byte) => Ok(ChunkState::TrailerName),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLineFeed),
            (ChunkState::TrailerValue, _) if is_value_byte(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerLineFeed, b'\n') => Ok(ChunkState::TrailerStart),
            _ => Err(ChunkError::Trailer),
        }
    }
}
