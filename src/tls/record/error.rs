//! Faults of a peer on an established connection, and the alerts that answer them (RFC 8446 section
//! 6.2).

/// Why a connection failed. No plaintext is ever given for the record that failed, nor for any
/// after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record fails its authentication")]
    BadRecord,
    #[error("record exceeds its length limit")]
    TooLong,
    #[error("message not allowed on an established connection")]
    Unexpected,
    #[error("malformed message")]
    Malformed,
    #[error("field with an illegal value")]
    Illegal,
    /// Empty records, warnings, key updates or renegotiations without end: they cost time and carry
    /// nothing.
    #[error("too many messages without data")]
    Flood,
    /// The peer gave up, with this alert description.
    #[error("peer sent alert {0}")]
    Peer(u8),
    /// A local fault: the key schedule or the cipher refused.
    #[error("keys cannot be used")]
    Internal,
}

pub(super) const CLOSE_NOTIFY: u8 = 0;
pub(super) const NO_RENEGOTIATION: u8 = 100;
pub(super) const USER_CANCELED: u8 = 90;

impl RecordError {
    /// The description of the fatal alert to send; `None`: an alert is not answered.
    pub fn alert(self) -> Option<u8> {
        Some(match self {
            Self::BadRecord => 20,
            Self::TooLong => 22,
            Self::Unexpected | Self::Flood => 10,
            Self::Malformed => 50,
            Self::Illegal => 47,
            Self::Internal => 80,
            Self::Peer(_) => return None,
        })
    }
}
