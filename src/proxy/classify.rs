//! What a connection of a `tcp` listener says about itself before it is routed: nothing, the names in a ClientHello
//! that is passed through, or the names of a TLS handshake that ends here.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::rules::Facts;
use super::{Arrival, Client, handshakes};
use crate::net::Stream;
use crate::observe::{End, How, Phase, Side};
use crate::wire::client_hello::{ClientHello, MAX_HELLO_BYTES, Progress, Reader};

/// A classified connection.
pub(super) struct Classified {
    pub client: Client,
    /// Read from the client and meant for the backend.
    pub read: Vec<u8>,
    pub hello: ClientHello,
}

impl Classified {
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            sni: self.hello.sni.as_deref(),
            alpn: &self.hello.alpn,
            ..Facts::default()
        }
    }
}

/// A connection about which nothing needs to be known.
pub(super) fn plain(stream: Stream) -> Classified {
    Classified {
        client: Client::Plain(stream),
        read: Vec::new(),
        hello: ClientHello::default(),
    }
}

/// Reads the ClientHello and keeps its bytes for the backend. What cannot be parsed is closed, never routed.
pub(super) async fn peek_hello(mut stream: Stream, deadline: Instant) -> Result<Classified, End> {
    let mut read = Vec::with_capacity(1024);
    let mut reader = Reader::new();
    loop {
        let before = read.len();
        let reading = stream.read_buf(&mut read);
        match timeout_at(deadline, reading).await {
            Err(_) => return Err(end(Side::Evenkeel, How::Timeout)),
            Ok(Err(error)) => return Err(client_end(&error)),
            Ok(Ok(0)) => return Err(end(Side::Client, How::Fin)),
            Ok(Ok(_)) => {}
        }
        match reader.feed(&read[before..]) {
            Progress::Hello(hello) => {
                return Ok(Classified {
                    client: Client::Plain(stream),
                    read,
                    hello,
                });
            }
            Progress::Invalid(reason) => {
                tracing::debug!(%reason, "client hello refused");
                return Err(end(Side::Client, How::Invalid));
            }
            // The reader refuses what is too long; this only keeps the promise local.
            Progress::NeedMore if read.len() > 2 * MAX_HELLO_BYTES => {
                return Err(end(Side::Client, How::Invalid));
            }
            Progress::NeedMore => {}
        }
    }
}

/// Ends TLS here. An unknown name is refused by the configuration's resolver.
pub(super) async fn terminate(
    stream: Stream,
    config: &Arc<ServerConfig>,
    arrival: &Arrival,
) -> Result<Classified, End> {
    let accepting = async {
        let mut stream = handshakes::accept(stream, config, arrival).await?;
        // A TLS 1.2 client waits for the last flight, which is not to wait for a backend.
        stream.flush().await.map_err(|error| client_end(&error))?;
        Ok(stream)
    };
    match timeout_at(arrival.deadline, accepting).await {
        Err(_) => Err(end(Side::Evenkeel, How::Timeout)),
        Ok(Err(end)) => Err(end),
        Ok(Ok(stream)) => {
            let sni = stream.server_name().map(str::to_owned);
            Ok(Classified {
                client: Client::Tls(Box::new(stream)),
                read: Vec::new(),
                hello: ClientHello {
                    sni,
                    alpn: Vec::new(),
                },
            })
        }
    }
}

fn end(side: Side, how: How) -> End {
    End::new(side, Phase::Tls, how)
}

pub(super) fn client_end(error: &io::Error) -> End {
    end(
        Side::Client,
        match error.kind() {
            io::ErrorKind::InvalidData => How::Invalid,
            io::ErrorKind::UnexpectedEof => How::Fin,
            _ => How::Rst,
        },
    )
}
