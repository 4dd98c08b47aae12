//! The boundaries of a chunked body (RFC 9112 section 7.1), byte by byte: sizes, bounded extensions, data, trailers.

use super::head::{MAX_HEADERS, MAX_LENGTH_BYTES};
use super::{Refusal, is_token_byte, is_value_byte};

/// Chunk extensions of one body together. Nobody is known to use them but for flooding a parser; below hyper's own limit.
pub const MAX_EXTENSION_BYTES: usize = 8 * 1024;

/// The trailer section of one body, below hyper's own limit.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// Hex digits of a chunk size; leading zeros count.
const MAX_SIZE_DIGITS: u8 = 16;

/// Follows one chunked body to its end.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
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

impl Chunked {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes of `input` belong to the body and hold, and why the one after them does not, if so.
    pub(super) fn follow(&mut self, input: &[u8]) -> (usize, Option<Refusal>) {
        let mut taken = 0;
        while let Some(&byte) = input.get(taken) {
            match self.state {
                State::Done => break,
                State::Data => taken += self.skip_data(input.len() - taken),
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
            self.state = State::DataCarriageReturn;
        }
        count
    }

    fn next(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLineFeed),
            (State::Size, b';') if self.digits > 0 => self.extension(),
            (State::Size, _) => self.digit(byte),
            (State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\t' | b' '..=b'~') => self.extension(),
            (State::SizeLineFeed, b'\n') => Ok(self.after_size()),
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            (
                State::Extension
                | State::SizeLineFeed
                | State::DataCarriageReturn
                | State::DataLineFeed,
                _,
            ) => Err(Refusal::Chunk),
            _ => self.trailer(byte),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::Chunk)?;
        if self.digits == MAX_SIZE_DIGITS {
            return Err(Refusal::Chunk);
        }
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        match self.size <= MAX_LENGTH_BYTES {
            true => Ok(State::Size),
            false => Err(Refusal::Chunk),
        }
    }

    fn extension(&mut self) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        match self.extension_bytes <= MAX_EXTENSION_BYTES {
            true => Ok(State::Extension),
            false => Err(Refusal::Extensions),
        }
    }

    fn after_size(&mut self) -> State {
        self.digits = 0;
        match self.size {
            0 => State::TrailerStart,
            _ => State::Data,
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(Refusal::Trailer);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerStart, _) if is_token_byte(byte) && self.trailers < MAX_HEADERS => {
                self.trailers += 1;
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_value_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(Refusal::Trailer),
        }
    }
}
