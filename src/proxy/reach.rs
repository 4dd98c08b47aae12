//! From a picked backend to a leg: connect, then a PROXY header and TLS where the pool has them. Nothing of the client is sent here, so that
//! whatever fails may be tried again elsewhere.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::SetupLeg;
use crate::base::units::format_duration;
use crate::config;
use crate::net::{ConnectError, Endpoint, Stream, connect, is_local_shortage};
use crate::pool::Backend;
use crate::tls::Towards;

/// Connects to `backend` at `endpoint`, sends it a PROXY `header`, and makes the handshake, all within the pool's `connect_timeout`.
///
/// # Errors
/// See [`ConnectError`].
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub(super) async fn reach(
    backend: &Backend,
    endpoint: Option<Endpoint>,
    tls: Option<&Towards>,
    pool: &config::Pool,
    header: Option<Vec<u8>>,
) -> Result<SetupLeg, ConnectError> {
    let timeout = pool.connect_timeout;
    let deadline = Instant::now() + timeout;
    let Some(endpoint) = endpoint else {
        // Lost its address between pick and connect.
        return Err(ConnectError::unresolved());
    };
    let mut stream = connect(&endpoint, &pool.dial, timeout).await?;
    if let Some(header) = header {
        // It goes before any other byte, those of TLS included. A fresh socket has room for it.
        stream.write_all(&header).await?;
    }
    let Some(tls) = tls else {
        return Ok(SetupLeg::Plain(stream));
    };
    let host = backend.host();
    let shaking = encrypt(stream, tls, &host);
    timeout_at(deadline, shaking).await.unwrap_or_else(|_| {
        let why = format!("no answer within {}", format_duration(timeout));
        let error = io::Error::new(io::ErrorKind::TimedOut, why);
        Err(ConnectError::Tls(error))
    })
}

async fn encrypt(stream: Stream, tls: &Towards, host: &str) -> Result<SetupLeg, ConnectError> {
    match tls.connect(stream, host).await {
        Ok(stream) => Ok(SetupLeg::Tls(Box::new(stream))),
        Err(error) if is_local_shortage(&error) => Err(ConnectError::Local(error)),
        Err(error) => Err(ConnectError::Tls(error)),
    }
}
