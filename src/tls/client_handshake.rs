//! A client's handshake without I/O: feeds rustls one record at a time and stops at the end of the handshake, with what the
//! server sent behind it (tickets, data) untouched.
//!
//! Bound: all of the server's handshake 64 KiB, the input one record and one read beyond what is incomplete.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls_pki_types::ServerName;

use super::handshake::{
    Done, HEADER_BYTES, MAX_HANDSHAKE_BYTES, READ_BYTES, Step, Wants, body_length, encode, invalid,
};
use super::record::Session;

pub(super) struct ClientHandshake {
    connection: UnbufferedClientConnection,
    /// What was read and is not done with.
    input: Vec<u8>,
    /// Front of the input that rustls has been shown.
    shown: usize,
    /// Everything shown so far.
    total: usize,
    /// To be sent.
    pub output: Vec<u8>,
}

impl ClientHandshake {
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        Ok(Self {
            connection,
            input: Vec::new(),
            shown: 0,
            total: 0,
            output: Vec::new(),
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
            // Data, or an end, before the end of the handshake.
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
        let Some(length) = body_length(header) else {
            // rustls would say what is wrong with the bytes; this says what is wrong with the node.
            return Err(invalid("the answer is not TLS"));
        };
        if rest.len() < HEADER_BYTES + length {
            return Ok(false);
        }
        self.shown += HEADER_BYTES + length;
        self.total += HEADER_BYTES + length;
        if self.total > MAX_HANDSHAKE_BYTES {
            return Err(invalid("tls handshake exceeds 64 KiB"));
        }
        Ok(true)
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
        let residue = self.input.split_off(self.shown);
        Ok(Done {
            session: Session::client(self.connection).map_err(io::Error::other)?,
            output: self.output,
            residue,
            server_name: None,
            alpn_protocol,
        })
    }
}
