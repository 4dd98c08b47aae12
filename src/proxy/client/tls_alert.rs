//! Answers of our own to clients whose handshake does not begin: TLS alerts, and a word in HTTP to
//! those that speak no TLS at all.

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

/// Beginnings of a request. No TLS record begins so.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
];
const PLAIN_HTTP: &str = "400 Bad Request: this port speaks TLS; use https:// or wss://\n";

/// Sends a record with a fatal alert. Whether the client gets it is not known.
pub(super) async fn send(stream: &mut Stream, alert: u8) {
    let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await;
}

/// Refuses a ClientHello above the bound, by an alert.
pub(super) async fn refuse_too_large(stream: Stream, id: u64) -> Termination {
    tracing::debug!(id, reason = %ClientHelloError::TooLarge, "client hello refused");
    refuse(stream, &[21, 3, 3, 0, 2, 2, ILLEGAL_PARAMETER]).await
}

/// Whether what a client has sent in place of a ClientHello is a request in HTTP.
pub(super) fn is_plain_http(read: &[u8]) -> bool {
    METHODS.iter().any(|method| read.starts_with(method))
}

/// Tells a client that speaks HTTP without TLS what is wrong, in its own language.
pub(super) async fn refuse_plain_http(stream: Stream, id: u64) -> Termination {
    tracing::debug!(id, reason = "http without tls", "client hello refused");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        PLAIN_HTTP.len()
    );
    refuse(stream, (head + PLAIN_HTTP).as_bytes()).await
}

/// Sends a last word. What the client has sent is read: unread, it would make the close a RST that
/// overtakes the word.
async fn refuse(mut stream: Stream, word: &[u8]) -> Termination {
    let refusing = async {
        let _ = stream.write_all(word).await;
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
