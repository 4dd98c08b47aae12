//! A server's handshake without I/O: feeds rustls one record at a time and stops at the end of the handshake, with what the
//! client sent behind it untouched.
//!
//! Bounds: the ClientHello as `wire::client_hello` has it (16 KiB), all of the client's handshake 64 KiB, the input one record
//! and one read beyond what is incomplete.

use std::io;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use super::identity::ClientIdentity;
use super::record::Session;
use crate::wire::client_hello::{ClientHello, Progress, Reader};

/// A peer's records up to its Finished: a chain of certificates is the largest part of them, if there is one.
pub(super) const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// Room for a read. A ClientHello with a post-quantum key share has about 1.8 KB.
pub(super) const READ_BYTES: usize = 4 * 1024;
pub(super) const HEADER_BYTES: usize = 5;
/// Longest record body that rustls takes.
const MAX_BODY_BYTES: usize = (1 << 14) + 2048;

pub(super) struct Handshake {
    connection: UnbufferedServerConnection,
    /// What was read and is not done with.
    input: Vec<u8>,
    /// Front of the input that rustls has been shown.
    shown: usize,
    /// Everything shown so far.
    total: usize,
    /// To be sent.
    pub output: Vec<u8>,
    reader: Reader,
    hello: Option<ClientHello>,
}

pub(super) enum Step {
    /// Send the output, then read more.
    NeedInput,
    /// The client has finished; the output is the server's last flight, tickets perhaps.
    Done,
}

/// A handshake that is over.
pub(super) struct Done {
    pub session: Session,
    pub output: Vec<u8>,
    /// Ciphertext behind the handshake.
    pub residue: Vec<u8>,
    pub server_name: Option<String>,
    pub alpn_protocol: Option<Vec<u8>>,
    pub resumed: bool,
    pub identity: Option<ClientIdentity>,
}

/// What rustls wants next.
pub(super) enum Wants {
    /// To be called again.
    Call,
    Record,
}

impl Handshake {
    pub fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            input: Vec::new(),
            shown: 0,
            total: 0,
            output: Vec::new(),
            reader: Reader::new(),
            hello: None,
        })
    }

    /// Where what was read is put, behind the rest; it has room.
    pub fn input(&mut self) -> &mut Vec<u8> {
        self.input.reserve(READ_BYTES);
        &mut self.input
    }

    /// Goes as far as the input reaches. On an error the output is the alert.
    pub fn advance(&mut self) -> io::Result<Step> {
        loop {
            let wants = match self.call() {
                Ok(wants) => wants,
                Err(error) => {
                    self.encode_alert();
                    return Err(invalid(error));
                }
            };
            // Asked before another record is shown, which would be one of data.
            if !self.connection.is_handshaking() && !self.connection.wants_write() {
                return Ok(Step::Done);
            }
            if matches!(wants, Wants::Record) && !self.show_record()? {
                return Ok(Step::NeedInput);
            }
        }
    }

    /// Whether a ticket of the client was taken.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn call(&mut self) -> Result<Wants, rustls::Error> {
        let shown = self.input.get_mut(..self.shown).unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.connection.process_tls_records(shown);
        let wants = match state? {
            ConnectionState::EncodeTlsData(data) => {
                encode(data, &mut self.output)?;
                Wants::Call
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Wants::Call
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Wants::Record,
            // Neither early data nor data before the end of the handshake is ever accepted.
            _ => return Err(rustls::Error::HandshakeNotComplete),
        };
        self.input.drain(..discard.min(self.shown));
        self.shown = self.shown.saturating_sub(discard);
        Ok(wants)
    }

    /// Shows rustls the next record. False: it is not complete.
    fn show_record(&mut self) -> io::Result<bool> {
        let rest = self.input.get(self.shown..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
            return Ok(false);
        };
        // What is no record is shown as it is, for rustls to refuse.
        let length = body_length(header).map_or(rest.len(), |length| HEADER_BYTES + length);
        let Some(record) = rest.get(..length) else {
            return Ok(false);
        };
        if self.hello.is_none() {
            match self.reader.feed(record) {
                Progress::NeedMore => {}
                Progress::Hello(hello) => self.hello = Some(hello),
                Progress::Invalid(reason) => return Err(self.refuse(length, reason)),
            }
        }
        self.shown += length;
        self.total += length;
        if self.total > MAX_HANDSHAKE_BYTES {
            return Err(invalid("tls handshake exceeds 64 KiB"));
        }
        Ok(true)
    }

    /// What `wire` does not take for a ClientHello is refused, by rustls' alert if it sees it the same way.
    fn refuse(
        &mut self,
        length: usize,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> io::Error {
        self.shown += length;
        match self.call() {
            Ok(_) => invalid(reason),
            Err(error) => {
                self.encode_alert();
                invalid(error)
            }
        }
    }

    /// After an error only what is queued may be asked for: more input would be processed again.
    fn encode_alert(&mut self) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else {
                return;
            };
            if encode(data, &mut self.output).is_err() {
                return;
            }
        }
    }

    /// # Errors
    /// The configuration does not allow it.
    pub fn finish(mut self) -> io::Result<Done> {
        let alpn_protocol = self.connection.alpn_protocol().map(<[u8]>::to_vec);
        let resumed = self.is_resumed();
        // Of a resumed session the one that was verified when it began; the ticket has it.
        let shown = self.connection.peer_certificates();
        let identity = shown.and_then(<[_]>::first).map(ClientIdentity::of);
        let residue = self.input.split_off(self.shown);
        Ok(Done {
            session: Session::server(self.connection).map_err(io::Error::other)?,
            output: self.output,
            residue,
            server_name: self.hello.and_then(|hello| hello.sni),
            alpn_protocol,
            resumed,
            identity,
        })
    }
}

/// `None`: not the header of a record (RFC 8446 section 5.1).
pub(super) fn body_length(&[kind, major, _, high, low]: &[u8; HEADER_BYTES]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_record = (20..=23).contains(&kind) && major == 3 && length <= MAX_BODY_BYTES;
    is_record.then_some(length)
}

pub(super) fn encode<T>(
    mut data: EncodeTlsData<'_, T>,
    output: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let end = output.len();
    // The first call tells the size.
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else {
        return Ok(());
    };
    output.resize(end + size.required_size, 0);
    let room = output.get_mut(end..).unwrap_or_default();
    let encoded = data.encode(room);
    encoded
        .map(|_| ())
        .map_err(|error| rustls::Error::General(error.to_string()))
}

pub(super) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
