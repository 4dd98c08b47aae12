//! The server side of a handshake. `wire` reads the ClientHello, too, and refuses other bytes.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{CommonState, ServerConfig};

use super::{Handshake, HandshakeError, HandshakeSide};
use crate::tls::identity::ClientIdentity;
use crate::tls::record::{TlsSession, TrafficSecrets};
use crate::wire::client_hello::{ClientHello, ClientHelloReader, HelloProgress};

pub(in crate::tls) struct ServerSide {
    connection: UnbufferedServerConnection,
    reader: ClientHelloReader,
    hello: Option<ClientHello>,
}

impl Handshake<ServerSide> {
    pub(crate) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self::new(ServerSide {
            connection: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            reader: ClientHelloReader::new(),
            hello: None,
        }))
    }
}

impl HandshakeSide for ServerSide {
    type Data = ServerConnectionData;
    const SENDS_LAST_FLIGHT: bool = false;

    fn state(&self) -> &CommonState {
        &self.connection
    }

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.connection.process_tls_records(records)
    }

    /// Refuses what is not a ClientHello; behind it rustls refuses what is not a record.
    fn inspect(&mut self, bytes: &[u8], _is_record: bool) -> Result<(), HandshakeError> {
        if self.hello.is_some() {
            return Ok(());
        }
        match self.reader.feed(bytes) {
            HelloProgress::NeedMore => {}
            HelloProgress::Hello(hello) => self.hello = Some(hello),
            HelloProgress::Invalid(reason) => return Err(HandshakeError::Alert(reason)),
        }
        Ok(())
    }

    fn finish(
        self,
        secrets: TrafficSecrets,
    ) -> Result<(TlsSession, Option<String>, Option<ClientIdentity>), rustls::Error> {
        // In a resumed session, the certificate that was verified when it began; the ticket has it.
        let certificates = self.connection.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).map(ClientIdentity::of);
        let server_name = self.hello.and_then(|hello| hello.sni);
        Ok((
            TlsSession::server(self.connection, secrets)?,
            server_name,
            identity,
        ))
    }
}
