//! TLS of a leg: keys, sequence numbers, and parts of records and messages.

use minicbor::{Decode, Encode};
use zeroize::Zeroize;

use super::is_default;

/// TLS of a leg.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a number of the format"
)]
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedTls {
    #[n(0)]
    pub version: MovedVersion,
    #[n(1)]
    pub cipher: MovedCipher,
    /// This side accepted the connection.
    #[n(2)]
    #[cbor(skip_if = "is_default")]
    pub is_server: bool,
    #[n(3)]
    pub read: MovedSecret,
    #[n(4)]
    pub write: MovedSecret,
    /// Ciphertext of a record that has not come whole.
    #[n(5)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub partial_record: Vec<u8>,
    /// The front of a handshake message.
    #[n(6)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub partial_message: Vec<u8>,
    /// The peer has sent close_notify.
    #[n(7)]
    #[cbor(skip_if = "is_default")]
    pub is_peer_closed: bool,
    /// Our close_notify was sealed.
    #[n(8)]
    #[cbor(skip_if = "is_default")]
    pub is_finished: bool,
    /// A key update waits to be sealed: 1, or 2 for one that asks for the peer's; 0: none.
    #[n(9)]
    #[cbor(skip_if = "is_default")]
    pub pending_update: u8,
    /// A refusal of a renegotiation waits to be sealed.
    #[n(10)]
    #[cbor(skip_if = "is_default")]
    pub pending_refusal: bool,
    /// Level and description of an alert that waits to be sealed, as its two bytes.
    #[n(11)]
    pub pending_alert: Option<u16>,
    /// Records without content in a row.
    #[n(12)]
    #[cbor(skip_if = "is_default")]
    pub empty_records: u8,
    /// Handshake messages since the last data.
    #[n(13)]
    #[cbor(skip_if = "is_default")]
    pub idle_messages: u8,
    #[n(14)]
    #[cbor(skip_if = "is_default")]
    pub warnings: u8,
    #[n(15)]
    #[cbor(skip_if = "is_default")]
    pub is_renegotiation_refused: bool,
    /// Ciphertext that was sealed and that the socket has not taken.
    #[n(16)]
    #[cbor(with = "minicbor::bytes", skip_if = "is_default")]
    pub output: Vec<u8>,
}

/// Secret of one direction.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct MovedSecret {
    /// TLS 1.3: the traffic secret. TLS 1.2: the key, and the IV behind it.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: Vec<u8>,
    /// Number of the next record.
    #[n(1)]
    #[cbor(skip_if = "is_default")]
    pub sequence: u64,
}

impl Drop for MovedSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedVersion {
    #[n(2)]
    Tls12,
    #[n(3)]
    Tls13,
}

/// Cipher that protects records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum MovedCipher {
    #[n(1)]
    Aes128Gcm,
    #[n(2)]
    Aes256Gcm,
    #[n(3)]
    Chacha20Poly1305,
}
