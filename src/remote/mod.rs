//! Services beside the data path: connections to their servers, their secrets, Redis, and files
//! that outlast a service that is away.
//!
//! Registries and the store of a cluster share them. Nothing here retries: the caller does, with a
//! wait between.

mod connection;
mod kept_file;
mod redis;
mod secret;

pub(crate) use connection::{RemoteServers, RemoteStream};
pub(crate) use kept_file::keep_file;
pub(crate) use redis::RedisConnection;
pub(crate) use secret::read_secret;

/// Why a service gave no answer. The message never holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// The file of the secret cannot be used.
    #[error("{0}")]
    Denied(String),
    /// An answer that cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}")]
    TooLarge(&'static str),
}
