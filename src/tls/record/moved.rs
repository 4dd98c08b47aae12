//! A session in a form that can be written down, so that another process can go on with it.
//!
//! Sequence numbers must never be used twice: once a session is exported, either that session or
//! the imported one may seal and open, never both.

use std::fmt;

use aws_lc_rs::aead::NONCE_LEN;
use zeroize::Zeroizing;

use super::frame::{MAX_RECORD_BYTES, Version, total_length};
use super::incomplete::Incomplete;
use super::keys::DirectionKeys;
use super::message::{MAX_IDLE_MESSAGES, MAX_WARNINGS, max_length};
use super::pending::PendingControl;
use super::schedule::{MAX_SECRET_BYTES, Secret};
use super::session::{MAX_EMPTY_RECORDS, PeerStatus, TlsSession};
use super::suite::{Keying, MAX_SEQUENCE, RecordCipher, Suite};
use crate::config::TlsVersion;

/// Type and length of a handshake message.
const MESSAGE_HEADER_BYTES: usize = 4;

/// All that a session is. `Debug` shows no secret and no byte of the peer's.
///
/// Not in it: ciphertext that was sealed and not sent yet, which goes before anything that the
/// imported session seals; and tickets that a backend may still send, which are not used.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsKeys {
    pub version: TlsVersion,
    pub cipher: RecordCipher,
    /// This side accepted the connection.
    pub is_server: bool,
    pub read: DirectionSecret,
    pub write: DirectionSecret,
    /// Ciphertext of a record that has not come whole, or not found room; at most
    /// [`MAX_RECORD_BYTES`].
    pub partial_record: Vec<u8>,
    /// The front of a handshake message.
    pub partial_message: Vec<u8>,
    /// The peer has sent close_notify.
    pub is_peer_closed: bool,
    /// Our close_notify was sealed: nothing else can be.
    pub is_finished: bool,
    pub pending: PendingControl,
    pub counts: MessageCounts,
}

/// Secret of one direction. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectionSecret {
    /// TLS 1.3: the traffic secret, 32 or 48 bytes. TLS 1.2: the key, 16 or 32 bytes, and the IV,
    /// 12 bytes, behind it.
    pub secret: Zeroizing<Vec<u8>>,
    /// Number of the next record.
    pub sequence: u64,
}

/// Counts of what a peer may not send without end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Records without content in a row.
    pub empty_records: u8,
    /// Handshake messages since the last data.
    pub idle_messages: u8,
    /// Warning alerts of the connection.
    pub warnings: u8,
    pub is_renegotiation_refused: bool,
}

/// The field that no session could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("secret is {length} bytes long, not {wanted}")]
    Secret { length: usize, wanted: usize },
    #[error("sequence number {0} is beyond the last")]
    Sequence(u64),
    #[error("partial record is none")]
    Record,
    #[error("partial handshake message is none")]
    Message,
    #[error("counts exceed what a peer may send")]
    Counts,
    #[error("pending control record is none that the session could owe")]
    Pending,
}

impl TlsSession {
    /// Whether [`TlsSession::export`] gives something. Not if the peer has failed: what is left is
    /// an alert and a reset. And not if the handshake did not tell its secrets.
    pub fn is_movable(&self) -> bool {
        self.suite.keying != Keying::Tls13ByRustls && !matches!(self.status, PeerStatus::Failed(_))
    }

    /// The session as another process needs it; `None`: it is not movable. From here on only one
    /// of the two may be used.
    pub fn export(&self) -> Option<TlsKeys> {
        if !self.is_movable() {
            return None;
        }
        Some(TlsKeys {
            version: self.version(),
            cipher: self.suite.cipher,
            is_server: self.is_server,
            read: self.export_direction(&self.read)?,
            write: self.export_direction(&self.write)?,
            partial_record: self.partial().to_vec(),
            partial_message: self.handshake().to_vec(),
            is_peer_closed: self.status == PeerStatus::Closed,
            is_finished: self.is_finished,
            pending: self.pending,
            counts: MessageCounts {
                empty_records: self.empty_records,
                idle_messages: self.idle_messages,
                warnings: self.warnings,
                is_renegotiation_refused: self.is_renegotiation_refused,
            },
        })
    }

    fn export_direction(&self, keys: &DirectionKeys) -> Option<DirectionSecret> {
        let length = secret_bytes(self.suite);
        Some(DirectionSecret {
            secret: Zeroizing::new(keys.secret().get(..length)?.to_vec()),
            sequence: keys.sequence(),
        })
    }

    /// Goes on with an exported session.
    ///
    /// # Errors
    /// A field has a value that no session could have.
    pub fn import(keys: TlsKeys) -> Result<Self, ImportError> {
        let suite = Suite {
            cipher: keys.cipher,
            keying: match keys.version {
                TlsVersion::Tls12 => Keying::Tls12,
                TlsVersion::Tls13 => Keying::Tls13,
            },
        };
        let read = import_direction(suite, &keys.read)?;
        let write = import_direction(suite, &keys.write)?;
        let mut session = Self {
            status: if keys.is_peer_closed {
                PeerStatus::Closed
            } else {
                PeerStatus::Open
            },
            pending: keys.pending,
            is_finished: keys.is_finished,
            empty_records: keys.counts.empty_records,
            idle_messages: keys.counts.idle_messages,
            warnings: keys.counts.warnings,
            is_renegotiation_refused: keys.counts.is_renegotiation_refused,
            ..Self::between(suite, keys.is_server, read, write)
        };
        session.check_counts()?;
        session.check_pending()?;
        session.check_record(&keys.partial_record)?;
        session.check_message(&keys.partial_message)?;
        let incomplete = Incomplete {
            record: keys.partial_record,
            message: keys.partial_message,
        };
        if incomplete.length() > 0 {
            session.incomplete = Some(Box::new(incomplete));
        }
        Ok(session)
    }

    fn check_counts(&self) -> Result<(), ImportError> {
        let is_allowed = self.empty_records <= MAX_EMPTY_RECORDS
            && self.idle_messages <= MAX_IDLE_MESSAGES
            && self.warnings <= MAX_WARNINGS;
        is_allowed.then_some(()).ok_or(ImportError::Counts)
    }

    /// A session that has failed is not exported, so that a fatal alert is never pending.
    fn check_pending(&self) -> Result<(), ImportError> {
        let pending = self.pending;
        let is_allowed = match pending.last {
            // Behind close_notify there is nothing, and nothing goes before it.
            Some(_) => pending == PendingControl::CLOSE && !self.is_finished,
            None if self.is_finished => pending == PendingControl::default(),
            None => match self.suite.version() {
                Version::Tls12 => {
                    pending.key_update.is_none()
                        && (self.is_renegotiation_refused || !pending.no_renegotiation)
                }
                Version::Tls13 => !pending.no_renegotiation,
            },
        };
        is_allowed.then_some(()).ok_or(ImportError::Pending)
    }

    fn check_record(&self, record: &[u8]) -> Result<(), ImportError> {
        let total = total_length(record, self.suite.version());
        let total = total.map_err(|_| ImportError::Record)?;
        let longest = total.unwrap_or(MAX_RECORD_BYTES);
        (record.len() <= longest)
            .then_some(())
            .ok_or(ImportError::Record)
    }

    fn check_message(&self, message: &[u8]) -> Result<(), ImportError> {
        let Some(&kind) = message.first() else {
            return Ok(());
        };
        let is_front =
            self.allow(kind).is_ok() && message.len() < MESSAGE_HEADER_BYTES + max_length(kind);
        is_front.then_some(()).ok_or(ImportError::Message)
    }
}

fn import_direction(suite: Suite, from: &DirectionSecret) -> Result<DirectionKeys, ImportError> {
    let (length, wanted) = (from.secret.len(), secret_bytes(suite));
    if length != wanted {
        return Err(ImportError::Secret { length, wanted });
    }
    if from.sequence > MAX_SEQUENCE {
        return Err(ImportError::Sequence(from.sequence));
    }
    let mut secret = Secret::new([0; MAX_SECRET_BYTES]);
    let bytes = from.secret.iter();
    secret
        .iter_mut()
        .zip(bytes)
        .for_each(|(into, from)| *into = *from);
    Ok(DirectionKeys::resume(secret, from.sequence))
}

/// Bytes of a direction's secret; see [`DirectionSecret::secret`].
fn secret_bytes(suite: Suite) -> usize {
    match suite.keying {
        Keying::Tls13 => suite.cipher.secret_bytes(),
        Keying::Tls12 | Keying::Tls13ByRustls => suite.cipher.key_bytes() + NONCE_LEN,
    }
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DirectionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectionSecret").finish_non_exhaustive()
    }
}
