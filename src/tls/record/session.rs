//! The session: opens and seals records, and counts what a peer may not send without end.

use super::error::RecordError;
use super::frame::{HEADER_BYTES, KIND_DATA, MAX_FRAGMENT_BYTES, TlsRecord, Version, total_length};
use super::incomplete::Incomplete;
use super::keys::DirectionKeys;
use super::pending::PendingControl;
use super::rustls_half::RustlsHalf;
use super::suite::{Keying, MAX_OVERHEAD_BYTES, MAX_SEQUENCE, Suite};
use crate::config::TlsVersion;

/// Room for the control records due at one time: a key update or a warning, and an alert.
pub const MAX_CONTROL_BYTES: usize = 3 * (MAX_OVERHEAD_BYTES + 8);

/// Records without content in a row. As rustls and BoringSSL allow.
pub(super) const MAX_EMPTY_RECORDS: u8 = 32;

/// An established connection.
pub struct TlsSession {
    pub(super) read: DirectionKeys,
    pub(super) write: DirectionKeys,
    /// Kept for its tickets by a client until it idles, and for its key schedule where the secrets
    /// are not known.
    pub(super) rustls: Option<Box<RustlsHalf>>,
    /// Parts of a record and of a handshake message; no memory while it idles.
    pub(super) incomplete: Option<Box<Incomplete>>,
    pub(super) suite: Suite,
    pub(super) is_server: bool,
    /// Base-2 logarithm of the records that one key may seal.
    pub(super) key_limit: u8,
    pub(super) status: PeerStatus,
    pub(super) pending: PendingControl,
    /// Nothing may be sealed any more: close_notify or a fatal alert was the last.
    pub(super) is_finished: bool,
    pub(super) empty_records: u8,
    /// Messages of the handshake protocol since the last data.
    pub(super) idle_messages: u8,
    pub(super) warnings: u8,
    pub(super) is_renegotiation_refused: bool,
}

/// An idle session, expanded keys aside.
const _: () = assert!(size_of::<TlsSession>() <= 160, "a TLS session has grown");

/// State of the peer's direction. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerStatus {
    Open,
    /// The peer sent close_notify: there is no more to read, and what follows is ignored.
    Closed,
    Failed(RecordError),
}

/// Result of [`TlsSession::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedRecords {
    /// Bytes of the input that were consumed: all of them, if there was room.
    pub consumed: usize,
    /// Bytes of plaintext at the front of the output; to be sent on even if the status is an end.
    pub filled: usize,
    pub status: PeerStatus,
}

/// Result of [`TlsSession::seal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedRecords {
    /// Bytes of the plaintext that are sealed: all of them, if there was room.
    pub taken: usize,
    /// Bytes of ciphertext at the front of the output.
    pub written: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// close_notify or a fatal alert was sent, or is about to be.
    #[error("connection is closed for writing")]
    Closed,
    /// The key has sealed as many records as it safely can, and TLS 1.2 has no other. Only
    /// close_notify is left.
    #[error("encryption key is used up")]
    Exhausted,
}

impl TlsSession {
    pub fn status(&self) -> PeerStatus {
        self.status
    }

    pub fn version(&self) -> TlsVersion {
        match self.suite.version() {
            Version::Tls12 => TlsVersion::Tls12,
            Version::Tls13 => TlsVersion::Tls13,
        }
    }

    /// Bytes kept inside: an incomplete record (at most 18 KiB) and an incomplete handshake message
    /// (16 KiB, from a server 64 KiB).
    pub fn buffered(&self) -> usize {
        self.incomplete
            .as_ref()
            .map_or(0, |incomplete| incomplete.length())
    }

    /// Bytes of an incomplete record, at most [`super::MAX_RECORD_BYTES`].
    pub fn partial_bytes(&self) -> usize {
        self.partial().len()
    }

    pub(super) fn partial(&self) -> &[u8] {
        self.incomplete
            .as_ref()
            .map_or(&[], |incomplete| &incomplete.record)
    }

    /// Bytes of an incomplete handshake message.
    pub(super) fn handshake(&self) -> &[u8] {
        self.incomplete
            .as_ref()
            .map_or(&[], |incomplete| &incomplete.message)
    }

    pub(super) fn incomplete(&mut self) -> &mut Incomplete {
        self.incomplete.get_or_insert_default()
    }

    /// Bytes to come of the record that is next: of its header, then of the rest.
    pub fn missing_bytes(&self) -> usize {
        let partial = self.partial();
        let length = total_length(partial, self.suite.version());
        let length = length.ok().flatten().unwrap_or(HEADER_BYTES);
        length.saturating_sub(partial.len()).max(1)
    }

    /// Drops what a connection that idles can do without: the expanded keys, which can be made
    /// again, and rustls, to which a client gives tickets. Later tickets are not used.
    pub fn drop_keys(&mut self) {
        self.read.drop_key();
        self.write.drop_key();
        if self.suite.keying != Keying::Tls13ByRustls {
            self.rustls = None;
        }
        if self.buffered() == 0 {
            self.incomplete = None;
        }
    }

    /// Opens the records in `input`, which follows the last input in the stream, to the front of
    /// `plain`.
    ///
    /// With room for `input` and [`TlsSession::buffered`] all is consumed; with less, call again
    /// with the rest.
    pub fn open(&mut self, input: &[u8], plain: &mut [u8]) -> OpenedRecords {
        let mut rest = input;
        let mut filled = 0;
        while self.status == PeerStatus::Open {
            match self.open_next(&mut rest, plain.get_mut(filled..).unwrap_or_default()) {
                Ok(Some(length)) => filled += length,
                Ok(None) => break,
                Err(fault) => self.fail(fault),
            }
        }
        if self.status != PeerStatus::Open {
            // Input behind a close is ignored (RFC 8446 section 6.1).
            rest = &[];
            self.incomplete = None;
        }
        OpenedRecords {
            consumed: input.len() - rest.len(),
            filled,
            status: self.status,
        }
    }

    /// Opens one record and returns its length in data, 0 for a control message. `None`: none is
    /// complete, or there is no room for it.
    fn open_next(
        &mut self,
        rest: &mut &[u8],
        plain: &mut [u8],
    ) -> Result<Option<usize>, RecordError> {
        if !self.partial().is_empty() {
            return self.open_partial(rest, plain);
        }
        let Some((record, behind)) = TlsRecord::split(rest, self.suite.version())? else {
            self.keep(rest)?;
            *rest = &[];
            return Ok(None);
        };
        if self.suite.room_for(&record) > plain.len() {
            return Ok(None);
        }
        *rest = behind;
        self.open_record(&record, plain).map(Some)
    }

    /// Opens the record whose beginning was kept.
    fn open_partial(
        &mut self,
        rest: &mut &[u8],
        plain: &mut [u8],
    ) -> Result<Option<usize>, RecordError> {
        let version = self.suite.version();
        // First the header, which tells the length, then the rest.
        loop {
            let wanted = total_length(self.partial(), version)?;
            let missing = wanted.unwrap_or(HEADER_BYTES) - self.partial().len();
            let (now, behind) = rest.split_at(missing.min(rest.len()));
            self.keep(now)?;
            *rest = behind;
            if now.len() < missing {
                return Ok(None);
            }
            if wanted.is_some() {
                break;
            }
        }
        let whole = std::mem::take(&mut self.incomplete().record);
        let Some((record, _)) = TlsRecord::split(&whole, version)? else {
            return Ok(None);
        };
        if self.suite.room_for(&record) > plain.len() {
            self.incomplete().record = whole;
            return Ok(None);
        }
        self.open_record(&record, plain).map(Some)
    }

    /// Keeps bytes of an incomplete record.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let version = self.suite.version();
        self.incomplete().keep(bytes, version)
    }

    fn open_record(
        &mut self,
        record: &TlsRecord<'_>,
        plain: &mut [u8],
    ) -> Result<usize, RecordError> {
        let content = self.read.open(self.suite, record, plain)?;
        if content.kind == KIND_DATA && self.handshake().is_empty() {
            self.count_data(content.length)?;
            return Ok(content.length);
        }
        let message = plain.get(..content.length).ok_or(RecordError::Internal)?;
        self.receive(content.kind, message)?;
        Ok(0)
    }

    fn count_data(&mut self, length: usize) -> Result<(), RecordError> {
        if length > 0 {
            self.empty_records = 0;
            self.idle_messages = 0;
            return Ok(());
        }
        self.empty_records += 1;
        if self.empty_records > MAX_EMPTY_RECORDS {
            return Err(RecordError::Flood);
        }
        Ok(())
    }

    /// Room to seal `length` bytes of plaintext and the control records before them.
    pub const fn sealed_bound(length: usize) -> usize {
        // A key update, once in 2^24 records, may stand between any two of them.
        length + length.div_ceil(MAX_FRAGMENT_BYTES) * MAX_OVERHEAD_BYTES + 2 * MAX_CONTROL_BYTES
    }

    /// Seals `plain` to the front of `out`, behind pending control records, in records of 16 KiB
    /// and a last one.
    ///
    /// With room for [`TlsSession::sealed_bound`] all is taken; with less, call again with the
    /// rest.
    ///
    /// # Errors
    /// Nothing was sealed; see [`SealError`].
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<SealedRecords, SealError> {
        if !self.may_seal() {
            return Err(SealError::Closed);
        }
        if self.is_exhausted() && self.suite.keying == Keying::Tls12 {
            return Err(SealError::Exhausted);
        }
        let mut sealed = SealedRecords {
            taken: 0,
            written: self.take_control(out),
        };
        while let Some(left) = plain.get(sealed.taken..).filter(|left| !left.is_empty()) {
            if self.is_exhausted() {
                self.update_keys(false);
            }
            let room = out.get_mut(sealed.written..).unwrap_or_default();
            sealed.written += self.take_control(room);
            // No room for the key update, no key left, or a failure.
            if self.has_control() || self.is_exhausted() || !self.may_seal() {
                break;
            }
            let room = out.get_mut(sealed.written..).unwrap_or_default();
            let Some((taken, written)) = self.seal_fragment(left, room, sealed.taken == 0) else {
                break;
            };
            sealed.taken += taken;
            sealed.written += written;
        }
        Ok(sealed)
    }

    /// Seals the first fragment of `plain`, cut to the room if it `may_cut`. `None`: no room, or a
    /// failure.
    fn seal_fragment(
        &mut self,
        plain: &[u8],
        out: &mut [u8],
        may_cut: bool,
    ) -> Option<(usize, usize)> {
        let whole = plain.len().min(MAX_FRAGMENT_BYTES);
        let fits = whole.min(out.len().saturating_sub(self.suite.overhead()));
        if fits == 0 || (fits < whole && !may_cut) {
            return None;
        }
        match self
            .write
            .seal(self.suite, KIND_DATA, plain.get(..fits)?, out)
        {
            Ok(written) => written.map(|written| (fits, written)),
            Err(fault) => {
                self.fail(fault);
                None
            }
        }
    }

    pub(super) fn may_seal(&self) -> bool {
        !self.is_finished
            && !self.pending.is_last()
            && !matches!(self.status, PeerStatus::Failed(_))
    }

    /// True when the next record is the last that the key may seal. It is left to a key update or
    /// an alert.
    fn is_exhausted(&self) -> bool {
        self.write.sequence().saturating_add(1) >= self.max_records()
    }

    /// Records that one key may seal.
    fn max_records(&self) -> u64 {
        let limit = 1u64.checked_shl(self.key_limit.into());
        limit.unwrap_or(u64::MAX).min(MAX_SEQUENCE)
    }

    fn fail(&mut self, fault: RecordError) {
        self.status = PeerStatus::Failed(fault);
        match fault.alert() {
            Some(description) if !self.is_finished => self.pending.fatal(description),
            _ => self.pending = PendingControl::default(),
        }
        if fault.alert().is_none() {
            self.is_finished = true;
        }
    }
}
