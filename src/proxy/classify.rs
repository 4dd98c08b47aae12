//! What a connection of a `tcp` listener says about itself before it is routed: nothing, the names in a ClientHello
//! that is passed through, or the names of a TLS handshake that ends here.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::handshakes::Accepted;
use super::rules::Facts;
use super::{Arrival, SetupLeg, client_certificate, handshakes};
use crate::net::Stream;
use crate::observe::{End, How, Phase, Record, Side};
use crate::tls::{ClientIdentity, Terminator};
use crate::wire::client_hello::{ClientHello, MAX_HELLO_BYTES, Progress, Reader};

/// A classified connection.
pub(super) struct Classified {
    pub client: SetupLeg,
    /// Read from the client and meant for the backend.
    pub read: Vec<u8>,
    pub hello: ClientHello,
    /// Where TLS ended here.
    pub shaken: Option<Shaken>,
}

/// What a TLS handshake has shown beside the names.
pub(super) struct Shaken {
    pub resumed: bool,
    /// For its turn: no part of the client's time.
    pub waited: Duration,
    pub identity: Option<ClientIdentity>,
}

impl Classified {
    /// Writes to the record what is known by now.
    pub fn note(&self, record: &mut Record) {
        if let Some(sni) = &self.hello.sni {
            record.set_sni(sni);
        }
        let Some(shaken) = &self.shaken else { return };
        record.shaken(shaken.resumed);
        if let Some(identity) = &shaken.identity {
            client_certificate::note(record, identity);
        }
    }

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
        client: SetupLeg::Plain(stream),
        read: Vec::new(),
        hello: ClientHello::default(),
        shaken: None,
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
                    client: SetupLeg::Plain(stream),
                    read,
                    hello,
                    shaken: None,
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
    terminator: &Terminator,
    arrival: &Arrival,
) -> Result<Classified, End> {
    let accepted = handshakes::accept(stream, terminator, arrival).await?;
    let Accepted { mut stream, waited } = accepted;
    let sni = stream.server_name().map(str::to_owned);
    let alpn = stream.alpn_protocol().map(<[u8]>::to_vec);
    let shaken = Shaken {
        resumed: stream.resumed(),
        identity: stream.take_identity(),
        waited,
    };
    Ok(Classified {
        client: SetupLeg::Tls(Box::new(stream)),
        read: Vec::new(),
        hello: ClientHello {
            sni,
            alpn: alpn.into_iter().collect(),
        },
        shaken: Some(shaken),
    })
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
