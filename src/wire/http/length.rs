//! `Content-Length` (RFC 9110 section 8.6): digits, and nothing else.

/// Largest `Content-Length` or chunk: fits signed 64-bit arithmetic of every peer.
pub const MAX_LENGTH_BYTES: u64 = i64::MAX as u64;

/// Reason why a body has no length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    #[error("content-length is repeated or not a number")]
    Malformed,
    #[error("body exceeds {MAX_LENGTH_BYTES} bytes")]
    TooLarge,
}

/// Reads one value, or one element of a list of them.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, LengthError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(LengthError::Malformed);
    }
    let length = str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok());
    length
        .filter(|&length| length <= MAX_LENGTH_BYTES)
        .ok_or(LengthError::TooLarge)
}
