//! Bytes that wait for the rest of what they belong to.

use super::error::RecordError;
use super::frame::{Version, total_length};

/// An incomplete record and an incomplete handshake message; no memory otherwise.
#[derive(Default)]
pub(super) struct Incomplete {
    /// At most [`super::MAX_RECORD_BYTES`].
    pub record: Vec<u8>,
    /// At most what `message` allows for its kind.
    pub message: Vec<u8>,
}

impl Incomplete {
    pub(super) fn length(&self) -> usize {
        self.record.len() + self.message.len()
    }

    /// Keeps bytes of an incomplete record, in memory for just that record.
    pub(super) fn keep(&mut self, bytes: &[u8], version: Version) -> Result<(), RecordError> {
        let length = self.record.len() + bytes.len();
        self.record.reserve_exact(bytes.len());
        self.record.extend_from_slice(bytes);
        if let Some(total) = total_length(&self.record, version)? {
            self.record.reserve_exact(total.saturating_sub(length));
        }
        Ok(())
    }
}
