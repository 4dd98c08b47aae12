//! Reasons why a request is refused, and the status to answer with.

use super::chunked::ChunkError;
use super::length::LengthError;
use super::scan::HeadError;

/// Reason why a request is refused; always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("request target is not of a form that is served")]
    Target,
    #[error("host is missing, repeated, invalid or not that of the target")]
    Host,
    #[error(transparent)]
    Length(#[from] LengthError),
    #[error(
        "transfer-encoding is not exactly chunked, or stands beside content-length or in http/1.0"
    )]
    TransferEncoding,
    #[error("upgrade with a body")]
    UpgradeBody,
    #[error("websocket upgrade in http/1.0, which has no upgrades")]
    UpgradeVersion,
    /// The head has already passed.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl RequestError {
    /// The status to answer with: 400, 431 or 505.
    pub fn status(self) -> u16 {
        match self {
            RequestError::Head(HeadError::TooLarge | HeadError::TooManyFields) => 431,
            RequestError::Head(HeadError::Version) => 505,
            _ => 400,
        }
    }
}
