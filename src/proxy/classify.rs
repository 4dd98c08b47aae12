//! What a connection of a `tcp` listener says about itself before it is routed: nothing, the names in a ClientHello
//! that is passed through, or the names of a TLS handshake that ends here.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::handshakes::AcceptedTls;
use super::rules::RouteInput;
use super::{ClientConnection, MaybeTlsStream, client_certificate, handshakes};
use crate::net::Stream;
use crate::observe::{Cause, ConnectionRecord, HandshakeFacts, Phase, Side, Termination};
use crate::tls::{ClientIdentity, TlsAcceptor};
use crate::wire::client_hello::{
    ClientHello, ClientHelloError, ClientHelloReader, HelloProgress, MAX_HELLO_BYTES,
};

/// The alert for a ClientHello above the bound, as OpenSSL and BoringSSL have it.
const ILLEGAL_PARAMETER: u8 = 47;
/// Bytes of a refused ClientHello that are read and dropped; its extensions are at most 64 KiB.
const MAX_DISCARDED_BYTES: u64 = 128 * 1024;
/// How long the client of a refused ClientHello may take to stop sending.
const MAX_DISCARD_TIME: Duration = Duration::from_secs(1);

/// A classified connection.
pub(super) struct Identified {
    pub client: MaybeTlsStream,
    /// Read from the client and meant for the backend.
    pub read: Vec<u8>,
    pub hello: ClientHello,
    /// Where TLS ended here.
    pub shaken: Option<HandshakeInfo>,
}

/// What a TLS handshake has shown beside the names.
pub(super) struct HandshakeInfo {
    pub tls: HandshakeFacts,
    /// For its turn: no part of the client's time.
    pub waited: Duration,
    pub identity: Option<ClientIdentity>,
}

impl Identified {
    /// Writes to the record what is known by now.
    pub fn note(&self, record: &mut ConnectionRecord) {
        if let Some(sni) = self
            .hello
            .sni
            .as_ref()
            .or(self.hello.malformed_name.as_ref())
        {
            record.set_sni(sni);
        }
        let Some(shaken) = &self.shaken else { return };
        record.shaken(&shaken.tls);
        if let Some(identity) = &shaken.identity {
            client_certificate::note(record, identity);
        }
    }

    pub fn facts(&self) -> RouteInput<'_> {
        RouteInput {
            sni: self.hello.sni.as_deref(),
            alpn: &self.hello.alpn,
            ..RouteInput::default()
        }
    }
}

/// A connection about which nothing needs to be known.
pub(super) fn plain(stream: Stream) -> Identified {
    Identified {
        client: MaybeTlsStream::Plain(stream),
        read: Vec::new(),
        hello: ClientHello::default(),
        shaken: None,
    }
}

/// Reads the ClientHello and keeps its bytes for the backend. What cannot be parsed is closed, never routed.
pub(super) async fn peek_hello(
    mut stream: Stream,
    deadline: Instant,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    let mut read = Vec::with_capacity(1024);
    let mut reader = ClientHelloReader::new();
    loop {
        let before = read.len();
        let reading = stream.read_buf(&mut read);
        match timeout_at(deadline, reading).await {
            Err(_) => return Err(end(Side::Evenkeel, Cause::Timeout)),
            Ok(Err(error)) => return Err(client_end(&error)),
            Ok(Ok(0)) => return Err(end(Side::Client, Cause::Fin)),
            Ok(Ok(_)) => record.heard(),
        }
        match reader.feed(&read[before..]) {
            HelloProgress::Hello(hello) => {
                return Ok(Identified {
                    client: MaybeTlsStream::Plain(stream),
                    read,
                    hello,
                    shaken: None,
                });
            }
            HelloProgress::Invalid(ClientHelloError::TooLarge) => {
                return Err(refuse_too_large(stream).await);
            }
            HelloProgress::Invalid(reason) => {
                tracing::debug!(%reason, "client hello refused");
                return Err(end(Side::Client, Cause::Invalid));
            }
            // The reader refuses what is too long; this only keeps the promise local.
            HelloProgress::NeedMore if read.len() > 2 * MAX_HELLO_BYTES => {
                return Err(end(Side::Client, Cause::Invalid));
            }
            HelloProgress::NeedMore => {}
        }
    }
}

/// Refuses a ClientHello above the bound, by an alert. The rest of it is taken in: unread, it would
/// make the close a RST that overtakes the alert.
pub(super) async fn refuse_too_large(mut stream: Stream) -> Termination {
    tracing::debug!(reason = %ClientHelloError::TooLarge, "client hello refused");
    let telling = async {
        send_alert(&mut stream, ILLEGAL_PARAMETER).await;
        let _ = stream.shutdown().await;
        let mut rest = stream.take(MAX_DISCARDED_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = timeout(MAX_DISCARD_TIME, telling).await;
    end(Side::Client, Cause::Invalid)
}

/// Sends a record with a fatal alert. A client that is gone does not hear it.
pub(super) async fn send_alert(stream: &mut Stream, alert: u8) {
    let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await;
}

/// Ends TLS here. The record gets the name of a client that is refused for it.
pub(super) async fn terminate(
    stream: Stream,
    terminator: &TlsAcceptor,
    arrival: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    let accepted = handshakes::accept(stream, terminator, arrival, record).await?;
    let AcceptedTls { mut stream, waited } = accepted;
    let sni = stream.server_name().map(str::to_owned);
    let alpn = stream.alpn_protocol().map(<[u8]>::to_vec);
    let name = |alpn: &Vec<u8>| String::from_utf8_lossy(alpn).into_owned();
    let shaken = HandshakeInfo {
        tls: HandshakeFacts {
            version: stream.tls_version(),
            cipher: stream.cipher(),
            resumed: stream.resumed(),
            alpn: alpn.as_ref().map(name),
        },
        identity: stream.take_identity(),
        waited,
    };
    Ok(Identified {
        client: MaybeTlsStream::Tls(Box::new(stream)),
        read: Vec::new(),
        hello: ClientHello {
            sni,
            alpn: alpn.into_iter().collect(),
            malformed_name: None,
        },
        shaken: Some(shaken),
    })
}

fn end(side: Side, how: Cause) -> Termination {
    Termination::new(side, Phase::Tls, how)
}

pub(super) fn client_end(error: &io::Error) -> Termination {
    end(
        Side::Client,
        match error.kind() {
            io::ErrorKind::InvalidData => Cause::Invalid,
            io::ErrorKind::UnexpectedEof => Cause::Fin,
            _ => Cause::Rst,
        },
    )
}
