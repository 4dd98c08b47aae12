//! A live session as plain data, and its bytes on the way to another process.
//!
//! The only place that knows those bytes. They are CBOR (RFC 8949): every structure is a map from
//! numbers to values. A number is never used again. Absent is the same as the default, and unknown
//! numbers are skipped, so that a later version may add what an earlier one can do without. What it
//! cannot do without stands in `needs`: a reader that does not know one of these numbers declines
//! the session. A truncated state is refused at whatever byte it ends.
//!
//! Pure: no sockets, no clock. Points in time are ages. Nothing here prints, as a session has
//! secrets.

mod frames;
mod rate;
mod record;
mod resume;
mod session;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::ops::RangeInclusive;

use minicbor::{Decoder, Encoder};

pub use self::frames::{
    MovedClose, MovedEdits, MovedFilter, MovedFrames, MovedLimits, MovedOutput, MovedPing,
    MovedPings, MovedPosition,
};
pub use self::rate::MovedRate;
pub use self::record::{MovedPeer, MovedRecord};
pub use self::resume::{MovedGap, MovedMigrator, MovedResume, MovedResumeSettings, MovedTakeover};
pub use self::session::{
    MovedDirection, MovedLeg, MovedSession, MovedSide, MovedSource, MovedTimeouts,
};
pub use self::tls::{MovedCipher, MovedSecret, MovedTls, MovedVersion};

/// Formats that are written and read here.
pub const FORMATS: RangeInclusive<u16> = 1..=1;

/// Numbers of [`MovedSession`] that a reader of this version knows.
const KNOWN: RangeInclusive<u32> = 0..=10;

/// Longest state that is read: a session holds 64 KiB for its peers, in a gap up to 16 MiB of its
/// client, and a few incomplete records.
pub const MAX_STATE_BYTES: usize = 18 << 20;

/// Reason for which a state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Truncated, or not of this format.
    #[error("state of a session cannot be read: {0}")]
    Malformed(String),
    /// The writer cannot do without a field that is not known here.
    #[error("state of a session needs field {0}, which is not known here")]
    Needs(u32),
    #[error("state of a session has {0} bytes too many")]
    Trailing(usize),
    #[error("state of a session is longer than {MAX_STATE_BYTES} bytes")]
    TooLong,
}

impl From<minicbor::decode::Error> for StateError {
    fn from(error: minicbor::decode::Error) -> StateError {
        StateError::Malformed(error.to_string())
    }
}

/// Writes a session in format 1, behind what is in `out`.
pub fn encode(session: &MovedSession, out: &mut Vec<u8>) {
    encode_needing(&[], session, out);
}

/// As [`encode`], for a reader that must know all of these fields.
fn encode_needing(needs: &[u32], session: &MovedSession, out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(out);
    let written = encoder
        .array(2)
        .and_then(|encoder| encoder.encode(needs))
        .and_then(|encoder| encoder.encode(session));
    // Memory takes everything.
    debug_assert!(written.is_ok());
}

/// Reads a session in format 1: all of `bytes`.
///
/// # Errors
/// The bytes are no such state, or need more than is known here.
pub fn decode(bytes: &[u8]) -> Result<MovedSession, StateError> {
    if bytes.len() > MAX_STATE_BYTES {
        return Err(StateError::TooLong);
    }
    let mut decoder = Decoder::new(bytes);
    if decoder.array()? != Some(2) {
        return Err(StateError::Malformed("not two parts".into()));
    }
    for needed in decoder.array_iter::<u32>()? {
        let needed = needed?;
        if !KNOWN.contains(&needed) {
            return Err(StateError::Needs(needed));
        }
    }
    let session = decoder.decode()?;
    match bytes.len().saturating_sub(decoder.position()) {
        0 => Ok(session),
        more => Err(StateError::Trailing(more)),
    }
}

/// Whether a value stands for itself where it is absent.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Prints the name alone: a session has keys and the bytes of its peers.
macro_rules! opaque {
    ($($name:ident),+ $(,)?) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+ };
}

opaque!(
    MovedSession,
    MovedRecord,
    MovedLeg,
    MovedDirection,
    MovedFrames,
    MovedFilter,
    MovedEdits
);
opaque!(
    MovedResume,
    MovedMigrator,
    MovedGap,
    MovedPings,
    MovedLimits,
    MovedTls,
    MovedSecret
);

/// Bytes that may be absent; empty ones are not.
mod optional_bytes {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        value: &Option<Vec<u8>>,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match value {
            Some(bytes) => encoder.bytes(bytes)?,
            None => encoder.null()?,
        };
        Ok(())
    }

    pub(super) fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Option<Vec<u8>>, Error> {
        Ok(Some(decoder.bytes()?.to_vec()))
    }
}
