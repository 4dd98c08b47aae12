//! The names by which a connection is routed: none, those in a ClientHello that is passed through,
//! or those of a TLS handshake that ends here.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::maybe_tls::MaybeTlsStream;
use super::tls_handshake::{AcceptedTls, HELLO_BYTES, read_hello};
use super::{ClientConnection, tls_alert, tls_handshake};
use crate::config::ListenerTls;
use crate::net::Stream;
use crate::observe::{Cause, ConnectionRecord, HandshakeFacts, Phase, Side, Termination};
use crate::proxy::route::RouteInput;
use crate::tls::{ClientIdentity, TlsAcceptor};
use crate::wire::client_hello::{ClientHello, ClientHelloError};

/// An identified client, ready to be routed or to send its first request.
pub(in crate::proxy) struct Identified {
    pub stream: MaybeTlsStream,
    /// Bytes read from the client and meant for the backend.
    pub read: Vec<u8>,
    pub hello: ClientHello,
    /// Present where TLS ended here.
    pub handshake: Option<HandshakeInfo>,
}

/// Results of a TLS handshake beside the names.
pub(in crate::proxy) struct HandshakeInfo {
    pub tls: HandshakeFacts,
    /// Time that the client waited for a permit: no part of its own time.
    pub waited: Duration,
    /// From the client's hello, with that wait.
    pub took: Duration,
    pub identity: Option<ClientIdentity>,
}

/// Identifies a client by its listener's `tls`, unless the connection has to make room meanwhile.
/// The record gets what is known.
pub(in crate::proxy) async fn identify(
    client: &ClientConnection,
    stream: Stream,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    if client.listener.config.tls.is_some() {
        record.enter(Phase::Tls);
    }
    let identified = {
        let identifying = std::pin::pin!(async {
            match (&client.listener.config.tls, &client.listener.tls) {
                (Some(ListenerTls::Passthrough), _) => {
                    peek_hello(stream, client.deadline, record).await
                }
                (_, Some(acceptor)) => terminate(stream, acceptor, client, record).await,
                _ => Ok(Identified::plain(stream)),
            }
        });
        client.unless_evicted(Phase::Tls, identifying).await?
    };
    identified.note(record);
    Ok(identified)
}

impl Identified {
    /// A client of which nothing needs to be known.
    fn plain(stream: Stream) -> Identified {
        Identified {
            stream: MaybeTlsStream::Plain(stream),
            read: Vec::new(),
            hello: ClientHello::default(),
            handshake: None,
        }
    }

    /// Writes to the record what is known by now.
    fn note(&self, record: &mut ConnectionRecord) {
        if let Some(sni) = self
            .hello
            .sni
            .as_ref()
            .or(self.hello.malformed_name.as_ref())
        {
            record.set_sni(sni);
        }
        let Some(handshake) = &self.handshake else {
            return;
        };
        record.shaken(&handshake.tls, handshake.took);
        if let Some(identity) = &handshake.identity {
            note_certificate(record, identity);
        }
    }

    pub(crate) fn route_input(&self) -> RouteInput<'_> {
        RouteInput {
            sni: self.hello.sni.as_deref(),
            alpn: &self.hello.alpn,
            ..RouteInput::default()
        }
    }
}

/// Writes the names of a client's certificate to the record, cut at what that keeps.
pub(in crate::proxy) fn note_certificate(record: &mut ConnectionRecord, identity: &ClientIdentity) {
    let ClientIdentity {
        subject,
        alternative_names,
    } = identity;
    record.set_client_certificate(subject.as_deref(), alternative_names.as_deref());
}

/// Reads the ClientHello and keeps its bytes for the backend. A hello that cannot be parsed is
/// closed, never routed.
async fn peek_hello(
    mut stream: Stream,
    deadline: Instant,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    let mut read = Vec::with_capacity(HELLO_BYTES);
    let hello = timeout_at(deadline, read_hello(&mut stream, &mut read)).await;
    if !read.is_empty() {
        record.heard();
    }
    match hello {
        Ok(Ok(Ok((_, hello)))) => Ok(Identified {
            read,
            hello,
            ..Identified::plain(stream)
        }),
        Ok(Ok(Err(ClientHelloError::TooLarge))) => {
            Err(tls_alert::refuse_too_large(stream, record.id).await)
        }
        Ok(Ok(Err(reason))) => {
            tracing::debug!(id = record.id, %reason, "client hello refused");
            Err(end(Side::Client, Cause::Invalid))
        }
        Ok(Err(error)) => Err(tls_alert::client_failed(&error)),
        Err(_) => Err(end(Side::Evenkeel, Cause::Timeout)),
    }
}

/// Ends TLS here. The record gets the name of a client that is refused for it.
async fn terminate(
    stream: Stream,
    acceptor: &TlsAcceptor,
    client: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    let accepted = tls_handshake::accept(stream, acceptor, client, record).await?;
    let AcceptedTls {
        mut stream,
        waited,
        took,
    } = accepted;
    let sni = stream.server_name().map(str::to_owned);
    let alpn = stream.alpn_protocol().map(<[u8]>::to_vec);
    let name = |alpn: &Vec<u8>| String::from_utf8_lossy(alpn).into_owned();
    let handshake = HandshakeInfo {
        tls: HandshakeFacts {
            version: stream.tls_version(),
            cipher: stream.cipher(),
            resumed: stream.resumed(),
            alpn: alpn.as_ref().map(name),
        },
        identity: stream.take_identity(),
        waited,
        took,
    };
    Ok(Identified {
        stream: MaybeTlsStream::Tls(Box::new(stream)),
        read: Vec::new(),
        hello: ClientHello {
            sni,
            alpn: alpn.into_iter().collect(),
            malformed_name: None,
        },
        handshake: Some(handshake),
    })
}

fn end(side: Side, cause: Cause) -> Termination {
    Termination::new(side, Phase::Tls, cause)
}
