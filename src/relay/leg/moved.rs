//! A leg on its way to another relay.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zeroize::Zeroizing;

use super::Leg;
use super::flags::Flags;
use super::socket::Socket;
use crate::config::TlsVersion;
use crate::observe::Cause;
use crate::relay::handoff::Tls;
use crate::relay::moved::StayReason;
use crate::tls::record::{
    DirectionSecret, MessageCounts, PendingControl, RecordCipher, TlsKeys, TlsSession,
};
use crate::wire::moved::{MovedCipher, MovedLeg, MovedSecret, MovedTls, MovedVersion};

impl Leg {
    /// The socket, unless the leg is absent.
    pub(in crate::relay) fn own_socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.socket {
            Socket::Own(socket) => Some(socket.as_fd()),
            Socket::Nowhere => None,
        }
    }

    /// Whether it cannot move.
    pub(in crate::relay) fn stays(&self) -> Option<StayReason> {
        let is_movable = |tls: &Tls| tls.session.is_movable();
        let moves = self.tls.as_deref().is_none_or(is_movable);
        (!moves).then_some(StayReason::Keys)
    }

    /// The whole state but the socket.
    ///
    /// # Errors
    /// Keys that cannot be exported.
    pub(in crate::relay) fn export(&self) -> Result<MovedLeg, StayReason> {
        let tls = match self.tls.as_deref() {
            Some(tls) => Some(Box::new(export_tls(tls).ok_or(StayReason::Keys)?)),
            None => None,
        };
        Ok(MovedLeg {
            flags: self.flags.bits(),
            fault: self.fault.map(|cause| cause.word().to_owned()),
            tls,
        })
    }

    /// A leg that goes on here. Events that it had are kept; the epoll adds those that came since.
    /// `None`: a value means nothing here.
    pub(in crate::relay) fn import(moved: &MovedLeg, socket: OwnedFd) -> Option<Leg> {
        let mut flags = Flags::of_bits(moved.flags);
        flags.set(Flags::CONNECTING, false);
        let fault = match moved.fault.as_deref() {
            Some(word) => Some(Cause::of_word(word)?),
            None => None,
        };
        let tls = match moved.tls.as_deref() {
            Some(tls) => Some(Box::new(import_tls(tls)?)),
            None => None,
        };
        Some(Leg {
            socket: Socket::Own(socket),
            flags,
            fault,
            tls,
        })
    }

    /// Whether [`Leg::import`] gives a leg.
    pub(in crate::relay) fn is_importable(moved: &MovedLeg) -> bool {
        let is_fault = |word: &str| Cause::of_word(word).is_some();
        let is_tls = |tls: &MovedTls| import_tls(tls).is_some();
        moved.fault.as_deref().is_none_or(is_fault) && moved.tls.as_deref().is_none_or(is_tls)
    }
}

fn export_tls(tls: &Tls) -> Option<MovedTls> {
    let keys = tls.session.export()?;
    Some(MovedTls {
        version: match keys.version {
            TlsVersion::Tls12 => MovedVersion::Tls12,
            TlsVersion::Tls13 => MovedVersion::Tls13,
        },
        cipher: match keys.cipher {
            RecordCipher::Aes128Gcm => MovedCipher::Aes128Gcm,
            RecordCipher::Aes256Gcm => MovedCipher::Aes256Gcm,
            RecordCipher::Chacha20Poly1305 => MovedCipher::Chacha20Poly1305,
        },
        is_server: keys.is_server,
        read: export_secret(&keys.read),
        write: export_secret(&keys.write),
        is_peer_closed: keys.is_peer_closed,
        is_finished: keys.is_finished,
        pending_update: match keys.pending.key_update {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        },
        pending_refusal: keys.pending.no_renegotiation,
        pending_alert: keys
            .pending
            .last
            .map(|(level, description)| u16::from_be_bytes([level, description])),
        empty_records: keys.counts.empty_records,
        idle_messages: keys.counts.idle_messages,
        warnings: keys.counts.warnings,
        is_renegotiation_refused: keys.counts.is_renegotiation_refused,
        partial_record: keys.partial_record,
        partial_message: keys.partial_message,
        output: tls.output.clone(),
    })
}

fn import_tls(moved: &MovedTls) -> Option<Tls> {
    let keys = TlsKeys {
        version: match moved.version {
            MovedVersion::Tls12 => TlsVersion::Tls12,
            MovedVersion::Tls13 => TlsVersion::Tls13,
        },
        cipher: match moved.cipher {
            MovedCipher::Aes128Gcm => RecordCipher::Aes128Gcm,
            MovedCipher::Aes256Gcm => RecordCipher::Aes256Gcm,
            MovedCipher::Chacha20Poly1305 => RecordCipher::Chacha20Poly1305,
        },
        is_server: moved.is_server,
        read: import_secret(&moved.read),
        write: import_secret(&moved.write),
        partial_record: moved.partial_record.clone(),
        partial_message: moved.partial_message.clone(),
        is_peer_closed: moved.is_peer_closed,
        is_finished: moved.is_finished,
        pending: PendingControl {
            key_update: match moved.pending_update {
                0 => None,
                1 => Some(false),
                2 => Some(true),
                _ => return None,
            },
            no_renegotiation: moved.pending_refusal,
            last: moved.pending_alert.map(|alert| alert.to_be_bytes().into()),
        },
        counts: MessageCounts {
            empty_records: moved.empty_records,
            idle_messages: moved.idle_messages,
            warnings: moved.warnings,
            is_renegotiation_refused: moved.is_renegotiation_refused,
        },
    };
    Some(Tls {
        session: Box::new(TlsSession::import(keys).ok()?),
        output: moved.output.clone(),
    })
}

fn export_secret(secret: &DirectionSecret) -> MovedSecret {
    MovedSecret {
        secret: secret.secret.to_vec(),
        sequence: secret.sequence,
    }
}

fn import_secret(moved: &MovedSecret) -> DirectionSecret {
    DirectionSecret {
        secret: Zeroizing::new(moved.secret.clone()),
        sequence: moved.sequence,
    }
}
