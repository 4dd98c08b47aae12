//! Bounds of records (RFC 8446 section 5.2, RFC 5246 section 6.2).
//!
//! A header is checked as soon as it is known, so that other bytes are refused before a body is
//! waited for.

use super::error::RecordError;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 5;
/// Plaintext of one record at most, both versions.
pub(super) const MAX_FRAGMENT_BYTES: usize = 1 << 14;
/// Bytes that encryption may add to the plaintext, header aside: RFC 8446 section 5.2 and RFC 5246
/// section 6.2.3.
const MAX_EXPANSION_TLS13: usize = 256;
const MAX_EXPANSION_TLS12: usize = 2048;

/// The longest record there is, with its header.
pub const MAX_RECORD_BYTES: usize = HEADER_BYTES + MAX_FRAGMENT_BYTES + MAX_EXPANSION_TLS12;

pub(super) const KIND_ALERT: u8 = 21;
pub(super) const KIND_HANDSHAKE: u8 = 22;
pub(super) const KIND_DATA: u8 = 23;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// A complete record.
#[derive(Clone, Copy)]
pub(super) struct TlsRecord<'a> {
    pub header: [u8; HEADER_BYTES],
    pub body: &'a [u8],
}

impl<'a> TlsRecord<'a> {
    /// The record at the front of `bytes` and what stands behind it; `None` while it is not
    /// complete.
    pub(super) fn split(
        bytes: &'a [u8],
        version: Version,
    ) -> Result<Option<(Self, &'a [u8])>, RecordError> {
        let Some(length) = total_length(bytes, version)? else {
            return Ok(None);
        };
        let Some((record, rest)) = bytes.split_at_checked(length) else {
            return Ok(None);
        };
        let Some((&header, body)) = record.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some((Self { header, body }, rest)))
    }
}

/// Bytes of the record that `bytes` begins with, its header included; `None` while the header is
/// not complete.
pub(super) fn total_length(bytes: &[u8], version: Version) -> Result<Option<usize>, RecordError> {
    if let Some(&kind) = bytes.first()
        && !allowed(kind, version)
    {
        return Err(RecordError::Unexpected);
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > max_body(version) {
        return Err(RecordError::TooLong);
    }
    Ok(Some(HEADER_BYTES + length))
}

/// After the handshake TLS 1.3 knows one outer type. TLS 1.2 names the true one; its
/// ChangeCipherSpec has no place left.
fn allowed(kind: u8, version: Version) -> bool {
    match version {
        Version::Tls12 => matches!(kind, KIND_ALERT | KIND_HANDSHAKE | KIND_DATA),
        Version::Tls13 => kind == KIND_DATA,
    }
}

const fn max_body(version: Version) -> usize {
    match version {
        Version::Tls12 => MAX_FRAGMENT_BYTES + MAX_EXPANSION_TLS12,
        Version::Tls13 => MAX_FRAGMENT_BYTES + MAX_EXPANSION_TLS13,
    }
}
