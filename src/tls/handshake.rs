//! A handshake without I/O: feeds rustls one record at a time and stops at the end of the
//! handshake; what the peer sent behind it (data, tickets) stays untouched. The sides differ in
//! [`server`] and [`client`].
//!
//! Bounds: all of the peer's handshake 64 KiB, a ClientHello as `wire::client_hello` has it (16
//! KiB), the input one record and one read beyond what is incomplete.

mod client;
mod server;

use std::io;

use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, HandshakeKind};

use super::identity::ClientIdentity;
use super::record::{TlsSession, TrafficSecrets};
use crate::wire::client_hello::ClientHelloError;

/// A peer's records up to its Finished: a chain of certificates is the largest part of them, if
/// there is one.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// Room for a read. A ClientHello with a post-quantum key share has about 1.8 KB.
const READ_BYTES: usize = 4 * 1024;
const HEADER_BYTES: usize = 5;
/// Longest record body that rustls takes.
const MAX_BODY_BYTES: usize = (1 << 14) + 2048;

pub(super) struct Handshake<E> {
    side: E,
    /// Told by the step that derives them.
    secrets: TrafficSecrets,
    /// Input that was read and is not consumed yet.
    input: Vec<u8>,
    /// Length of the front of the input that rustls has been fed.
    fed: usize,
    /// Bytes fed so far.
    total_fed: usize,
    /// To be sent.
    pub output: Vec<u8>,
}

/// A side of a handshake.
pub(super) trait HandshakeSide {
    /// rustls' data of this side.
    type Data;
    /// Whether the peer waits for the last flight of this side. Otherwise it goes out with the
    /// first data.
    const SENDS_LAST_FLIGHT: bool;

    fn state(&self) -> &CommonState;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Inspects the next input for rustls: a record, or other bytes.
    fn inspect(&mut self, bytes: &[u8], is_record: bool) -> Result<(), HandshakeError>;

    /// The session, the name that the client asked for, and the client's identity, as far as this
    /// side knows them.
    ///
    /// # Errors
    /// The configuration does not allow it.
    fn finish(
        self,
        secrets: TrafficSecrets,
    ) -> Result<(TlsSession, Option<String>, Option<ClientIdentity>), rustls::Error>;
}

/// Why the peer's bytes are refused.
pub(super) enum HandshakeError {
    /// Refused without an answer.
    Silent(&'static str),
    /// Refused with rustls' alert, if it agrees.
    Alert(ClientHelloError),
}

pub(super) enum HandshakeStep {
    /// Send the output, then read more.
    NeedInput,
    /// The peer has finished; the output is our last flight: a client's Finished, a server's
    /// tickets perhaps.
    Done,
}

/// A handshake that is over.
pub(super) struct CompletedHandshake {
    pub session: TlsSession,
    pub output: Vec<u8>,
    /// Ciphertext behind the handshake.
    pub residue: Vec<u8>,
    pub result: NegotiatedTls,
}

/// Facts that a handshake has settled.
pub(super) struct NegotiatedTls {
    pub server_name: Option<String>,
    pub alpn_protocol: Option<Vec<u8>>,
    /// The number in IANA's registry.
    pub cipher: u16,
    pub is_resumed: bool,
    pub identity: Option<ClientIdentity>,
}

/// The next step that rustls asks for.
enum TlsWants {
    /// Call it again.
    Call,
    Record,
}

impl<E: HandshakeSide> Handshake<E> {
    fn new(side: E) -> Self {
        Self {
            side,
            secrets: TrafficSecrets::default(),
            input: Vec::new(),
            fed: 0,
            total_fed: 0,
            output: Vec::new(),
        }
    }

    /// The buffer to read into, with room behind the rest.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        self.input.reserve(READ_BYTES);
        &mut self.input
    }

    /// Advances as far as the input reaches. On an error the output is the alert.
    pub(super) fn advance(&mut self) -> io::Result<HandshakeStep> {
        loop {
            let wants = match self.process() {
                Ok(wants) => wants,
                Err(error) => {
                    self.encode_alert();
                    return Err(invalid(error));
                }
            };
            // Asked before the next record is fed, which would be one of data.
            if !self.side.state().is_handshaking() && !self.side.state().wants_write() {
                return Ok(HandshakeStep::Done);
            }
            if matches!(wants, TlsWants::Record) && !self.feed_record()? {
                return Ok(HandshakeStep::NeedInput);
            }
        }
    }

    /// Whether an earlier session was resumed.
    pub(super) fn is_resumed(&self) -> bool {
        self.side.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn process(&mut self) -> Result<TlsWants, rustls::Error> {
        let fed = self.input.get_mut(..self.fed).unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.secrets.during(|| self.side.process(fed));
        let wants = match state? {
            ConnectionState::EncodeTlsData(data) => {
                encode(data, &mut self.output)?;
                TlsWants::Call
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                TlsWants::Call
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                TlsWants::Record
            }
            // Early data, and data or a close before the end of the handshake, are never accepted.
            _ => return Err(rustls::Error::HandshakeNotComplete),
        };
        self.input.drain(..discard.min(self.fed));
        self.fed = self.fed.saturating_sub(discard);
        Ok(wants)
    }

    /// Feeds rustls the next record. False: it is not complete.
    fn feed_record(&mut self) -> io::Result<bool> {
        let rest = self.input.get(self.fed..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
            return Ok(false);
        };
        let body = body_length(header);
        // Other bytes than a record are inspected, and fed, as they are.
        let length = body.map_or(rest.len(), |body| HEADER_BYTES + body);
        let Some(record) = rest.get(..length) else {
            return Ok(false);
        };
        if let Err(refusal) = self.side.inspect(record, body.is_some()) {
            return Err(self.refuse(length, refusal));
        }
        self.fed += length;
        self.total_fed += length;
        if self.total_fed > MAX_HANDSHAKE_BYTES {
            return Err(invalid("tls handshake exceeds 64 KiB"));
        }
        Ok(true)
    }

    fn refuse(&mut self, length: usize, refusal: HandshakeError) -> io::Error {
        let reason = match refusal {
            HandshakeError::Silent(reason) => return invalid(reason),
            HandshakeError::Alert(reason) => reason,
        };
        self.fed += length;
        match self.process() {
            Ok(_) => invalid(reason),
            Err(error) => {
                self.encode_alert();
                invalid(error)
            }
        }
    }

    /// Encodes the queued alert. After an error no input may be given: it would be processed again.
    fn encode_alert(&mut self) {
        while self.side.state().wants_write() {
            let UnbufferedStatus { state, .. } = self.side.process(&mut []);
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
    pub(super) fn finish(mut self) -> io::Result<CompletedHandshake> {
        let alpn_protocol = self.side.state().alpn_protocol().map(<[u8]>::to_vec);
        let suite = self.side.state().negotiated_cipher_suite();
        let cipher = suite.map_or(0, |suite| suite.suite().into());
        let is_resumed = self.is_resumed();
        let residue = self.input.split_off(self.fed);
        let finished = self.side.finish(self.secrets).map_err(io::Error::other)?;
        let (session, server_name, identity) = finished;
        Ok(CompletedHandshake {
            session,
            output: self.output,
            residue,
            result: NegotiatedTls {
                server_name,
                alpn_protocol,
                cipher,
                is_resumed,
                identity,
            },
        })
    }
}

/// Length of a record's body; `None`: not a record header (RFC 8446 section 5.1).
fn body_length(&[kind, major, _, high, low]: &[u8; HEADER_BYTES]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_record = (20..=23).contains(&kind) && major == 3 && length <= MAX_BODY_BYTES;
    is_record.then_some(length)
}

fn encode<T>(mut data: EncodeTlsData<'_, T>, output: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let end = output.len();
    // The first call returns the size.
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

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
