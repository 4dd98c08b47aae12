//! TLS alerts of our own, for clients whose handshake does not begin.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::net::Stream;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::wire::client_hello::ClientHelloError;

/// The alert for a ClientHello above the bound, as OpenSSL and BoringSSL have it.
const ILLEGAL_PARAMETER: u8 = 47;
/// Bytes of a refused ClientHello that are read and dropped; its extensions are at most 64 KiB.
const MAX_DISCARDED_BYTES: u64 = 128 * 1024;
/// Time in which the client of a refused ClientHello has to stop sending.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(1);

/// Sends a record with a fatal alert. Whether the client gets it is not known.
pub(super) async fn send(stream: &mut Stream, alert: u8) {
    let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await;
}

/// Refuses a ClientHello above the bound, by an alert. The rest of it is read: unread, it would
/// make the close a RST that overtakes the alert.
pub(super) async fn refuse_too_large(mut stream: Stream) -> Termination {
    tracing::debug!(reason = %ClientHelloError::TooLarge, "client hello refused");
    let refusing = async {
        send(&mut stream, ILLEGAL_PARAMETER).await;
        let _ = stream.shutdown().await;
        let mut rest = stream.take(MAX_DISCARDED_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = timeout(MAX_DISCARD_TIME, refusing).await;
    Termination::new(Side::Client, Phase::Tls, Cause::Invalid)
}

/// The end of a connection whose client failed with `error` before or in its handshake.
pub(super) fn client_failed(error: &io::Error) -> Termination {
    let cause = match error.kind() {
        io::ErrorKind::InvalidData => Cause::Invalid,
        io::ErrorKind::UnexpectedEof => Cause::Fin,
        _ => Cause::Rst,
    };
    Termination::new(Side::Client, Phase::Tls, cause)
}
