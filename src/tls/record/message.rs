//! Control messages on an established connection: alerts (RFC 8446 section 6, RFC 5246 section
//! 7.2), key updates (RFC 8446 section 4.6.3), tickets, and refused renegotiations (RFC 5246
//! section 7.4.1.1). Answers are noted as pending, a few bits, and sealed when there is room; so
//! the answers to many requests become one.

use super::error::{CLOSE_NOTIFY, NO_RENEGOTIATION, RecordError, USER_CANCELED};
use super::frame::{KIND_ALERT, KIND_HANDSHAKE, Version};
use super::keys::{DirectionKeys, RustlsKeys};
use super::pending::{FATAL, PendingControl, WARNING};
use super::session::{MAX_CONTROL_BYTES, PeerStatus, TlsSession};
use super::suite::Keying;
use super::ticket::is_well_formed;

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Longest ClientHello, which is kept until it is complete and then refused. As of a first one.
const MAX_HELLO_BYTES: usize = 16 * 1024;
/// Longest ticket: rustls takes no longer handshake messages.
const MAX_TICKET_BYTES: usize = 0xffff;
/// Key updates and tickets without data between them. As rustls and BoringSSL allow.
pub(super) const MAX_IDLE_MESSAGES: u8 = 32;
/// Warning alerts of a connection. As rustls and BoringSSL allow.
pub(super) const MAX_WARNINGS: u8 = 4;

impl TlsSession {
    /// True when [`TlsSession::take_control`] has something to seal.
    pub fn has_control(&self) -> bool {
        self.pending != PendingControl::default()
    }

    /// Queues close_notify: no data can be sealed any more. Reading goes on. A second call does
    /// nothing.
    pub fn close(&mut self) {
        if self.may_seal() {
            self.pending = PendingControl::CLOSE;
        }
    }

    /// Queues a change of our keys; with `request`, also of the peer's. Does nothing in TLS 1.2.
    pub fn update_keys(&mut self, request: bool) {
        if self.suite.keying != Keying::Tls12 && self.may_seal() {
            let request = request || self.pending.key_update == Some(true);
            self.pending.key_update = Some(request);
        }
    }

    /// Seals the pending control records to the front of `out`, which has [`MAX_CONTROL_BYTES`],
    /// and returns their length: 0 when none is pending or there is less room.
    pub fn take_control(&mut self, out: &mut [u8]) -> usize {
        if !self.has_control() || out.len() < MAX_CONTROL_BYTES {
            return 0;
        }
        let owed = std::mem::take(&mut self.pending);
        let mut written = 0;
        if let Some(request) = owed.key_update {
            let message = [KEY_UPDATE, 0, 0, 1, u8::from(request)];
            written += self.seal_control(KIND_HANDSHAKE, &message, out, written);
            self.renew_write();
        }
        if owed.no_renegotiation {
            let alert = [WARNING, NO_RENEGOTIATION];
            written += self.seal_control(KIND_ALERT, &alert, out, written);
        }
        if let Some((level, description)) = owed.last {
            written += self.seal_control(KIND_ALERT, &[level, description], out, written);
            self.is_finished = true;
        }
        written
    }

    fn seal_control(&mut self, kind: u8, message: &[u8], out: &mut [u8], at: usize) -> usize {
        let room = out.get_mut(at..).unwrap_or_default();
        match self.write.seal(self.suite, kind, message, room) {
            Ok(Some(written)) => written,
            _ => {
                // The record cannot even carry an alert.
                self.status = PeerStatus::Failed(RecordError::Internal);
                self.is_finished = true;
                0
            }
        }
    }

    pub(super) fn renew_write(&mut self) {
        if self.try_renew_write().is_err() {
            self.status = PeerStatus::Failed(RecordError::Internal);
            self.is_finished = true;
        }
    }

    fn try_renew_write(&mut self) -> Result<(), RecordError> {
        if self.suite.keying == Keying::Tls13 {
            return self.write.renew(self.suite.cipher);
        }
        self.write = by_rustls(self.rustls.as_mut().and_then(|half| half.next_write()))?;
        Ok(())
    }

    fn renew_read(&mut self) -> Result<(), RecordError> {
        if self.suite.keying == Keying::Tls13 {
            return self.read.renew(self.suite.cipher);
        }
        self.read = by_rustls(self.rustls.as_mut().and_then(|half| half.next_read()))?;
        Ok(())
    }

    /// Handles a record that is not data.
    pub(super) fn receive(&mut self, kind: u8, content: &[u8]) -> Result<(), RecordError> {
        match kind {
            KIND_HANDSHAKE => self.receive_handshake(content),
            // A handshake message may not be split around anything else (RFC 8446 section 5.1).
            KIND_ALERT if self.handshake().is_empty() => self.receive_alert(content),
            _ => Err(RecordError::Unexpected),
        }
    }

    fn receive_alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        let &[level, description] = content else {
            return Err(RecordError::Malformed);
        };
        if description == CLOSE_NOTIFY {
            self.status = PeerStatus::Closed;
            return Ok(());
        }
        let is_warning = match (self.suite.version(), level) {
            // TLS 1.3 has no warnings but this, whatever the level says.
            (Version::Tls13, _) => description == USER_CANCELED,
            (Version::Tls12, WARNING) => true,
            (Version::Tls12, FATAL) => false,
            (Version::Tls12, _) => return Err(RecordError::Illegal),
        };
        if !is_warning {
            return Err(RecordError::Peer(description));
        }
        self.warnings += 1;
        if self.warnings > MAX_WARNINGS {
            return Err(RecordError::Flood);
        }
        Ok(())
    }

    /// Joins messages that are split over records, and handles each that is complete.
    fn receive_handshake(&mut self, content: &[u8]) -> Result<(), RecordError> {
        if content.is_empty() {
            return Err(RecordError::Unexpected);
        }
        let kept = self.incomplete.as_mut();
        let mut joined = kept.map_or_else(Vec::new, |kept| std::mem::take(&mut kept.message));
        joined.extend_from_slice(content);
        let mut rest = &joined[..];
        while let Some((&kind, _)) = rest.split_first() {
            self.allow(kind)?;
            let Some((&[_, a, b, c], body)) = rest.split_first_chunk() else {
                break;
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > max_length(kind) {
                return Err(RecordError::Malformed);
            }
            let Some((body, behind)) = body.split_at_checked(length) else {
                break;
            };
            self.receive_message(kind, body, behind.is_empty())?;
            rest = behind;
        }
        if !rest.is_empty() {
            self.incomplete().message = rest.to_vec();
        }
        Ok(())
    }

    /// Refuses messages that the other side may not send after the handshake. Our clients neither
    /// renegotiate nor offer late authentication, so only clients get tickets.
    pub(super) fn allow(&self, kind: u8) -> Result<(), RecordError> {
        match (self.suite.version(), self.is_server, kind) {
            (Version::Tls13, _, KEY_UPDATE)
            | (Version::Tls13, false, NEW_SESSION_TICKET)
            | (Version::Tls12, true, CLIENT_HELLO)
            | (Version::Tls12, false, HELLO_REQUEST) => Ok(()),
            _ => Err(RecordError::Unexpected),
        }
    }

    fn receive_message(&mut self, kind: u8, body: &[u8], is_last: bool) -> Result<(), RecordError> {
        self.idle_messages += 1;
        if self.idle_messages > MAX_IDLE_MESSAGES {
            return Err(RecordError::Flood);
        }
        match kind {
            KEY_UPDATE => self.receive_key_update(body, is_last),
            NEW_SESSION_TICKET => self.receive_ticket(body),
            _ => self.refuse_renegotiation(),
        }
    }

    /// Hands a ticket to rustls. A session that has idled has let go of it, and uses none.
    fn receive_ticket(&mut self, body: &[u8]) -> Result<(), RecordError> {
        let is_taken = match &mut self.rustls {
            Some(half) => half.ticket(body).is_ok(),
            None => is_well_formed(body),
        };
        is_taken.then_some(()).ok_or(RecordError::Malformed)
    }

    fn receive_key_update(&mut self, body: &[u8], is_last: bool) -> Result<(), RecordError> {
        let &[request] = body else {
            return Err(RecordError::Malformed);
        };
        // Messages behind it in the record would be under the old key (RFC 8446 section 5.1).
        if !is_last {
            return Err(RecordError::Unexpected);
        }
        match request {
            0 => {}
            1 => self.update_keys(false),
            _ => return Err(RecordError::Illegal),
        }
        self.renew_read()
    }

    /// Refuses a renegotiation: the first one with a warning, a second one fails the connection.
    fn refuse_renegotiation(&mut self) -> Result<(), RecordError> {
        if std::mem::replace(&mut self.is_renegotiation_refused, true) {
            return Err(RecordError::Unexpected);
        }
        self.pending.no_renegotiation = self.may_seal();
        Ok(())
    }
}

fn by_rustls(next: Option<RustlsKeys>) -> Result<DirectionKeys, RecordError> {
    next.and_then(|keys| DirectionKeys::new(&keys, None))
        .ok_or(RecordError::Internal)
}

/// Bytes of the body of such a message, at most.
pub(super) fn max_length(kind: u8) -> usize {
    match kind {
        KEY_UPDATE => 1,
        CLIENT_HELLO => MAX_HELLO_BYTES,
        NEW_SESSION_TICKET => MAX_TICKET_BYTES,
        _ => 0,
    }
}
