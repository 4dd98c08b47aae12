//! Numbers of a cipher suite that protect records: nothing here has state.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384};

use super::frame::{HEADER_BYTES, KIND_DATA, MAX_FRAGMENT_BYTES, TlsRecord, Version};

/// Tag length of all three ciphers.
pub(super) const TAG_BYTES: usize = 16;
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;
/// Version on the wire: that of TLS 1.2 for both.
const WIRE_VERSION: [u8; 2] = [3, 3];

/// Bytes of a record beyond its plaintext, at most: header, explicit nonce or content type, tag.
pub(super) const MAX_OVERHEAD_BYTES: usize = HEADER_BYTES + EXPLICIT_NONCE_BYTES + TAG_BYTES;

/// Sequence numbers never wrap; rustls keeps the same distance.
pub(super) const MAX_SEQUENCE: u64 = 0xffff_ffff_ffff_0000;
/// Base-2 logarithm of the records that one AES-GCM key may seal (RFC 8446 section 5.5), as rustls
/// has it. ChaCha20-Poly1305 has no such limit.
const AES_GCM_LIMIT: u8 = 24;
const NO_LIMIT: u8 = 64;

/// Cipher that protects records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl RecordCipher {
    pub(super) fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    pub(super) fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Hash of the TLS 1.3 suite with this cipher: each has one (RFC 8446 appendix B.4).
    pub(super) fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes256Gcm => HKDF_SHA384,
            Self::Aes128Gcm | Self::Chacha20Poly1305 => HKDF_SHA256,
        }
    }

    /// Bytes of a TLS 1.3 traffic secret: those of the hash.
    pub(super) fn secret_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm => 48,
            Self::Aes128Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Base-2 logarithm of the records that one key may seal.
    pub(super) fn key_limit(self) -> u8 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => AES_GCM_LIMIT,
            Self::Chacha20Poly1305 => NO_LIMIT,
        }
    }
}

/// Version of a session, and where its next keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keying {
    /// Key and IV for good.
    Tls12,
    /// A traffic secret, of which key, IV and the next secret are made.
    Tls13,
    /// Key and IV; the next ones are rustls' to make. Its handshake did not tell the secrets.
    Tls13ByRustls,
}

/// Protection of records, the same both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suite {
    pub cipher: RecordCipher,
    pub keying: Keying,
}

impl Suite {
    pub(super) fn version(self) -> Version {
        match self.keying {
            Keying::Tls12 => Version::Tls12,
            Keying::Tls13 | Keying::Tls13ByRustls => Version::Tls13,
        }
    }

    /// Bytes of a sealed record beyond its plaintext.
    pub(super) fn overhead(self) -> usize {
        let kind = usize::from(self.version() == Version::Tls13);
        HEADER_BYTES + self.explicit_nonce() + kind + TAG_BYTES
    }

    /// Bytes before the ciphertext.
    pub(super) fn explicit_nonce(self) -> usize {
        match (self.version(), self.cipher) {
            (Version::Tls12, RecordCipher::Aes128Gcm | RecordCipher::Aes256Gcm) => {
                EXPLICIT_NONCE_BYTES
            }
            _ => 0,
        }
    }

    /// Room that opening a record needs: the plaintext, a type and padding.
    pub(super) fn room_for(self, record: &TlsRecord<'_>) -> usize {
        let around = self.explicit_nonce() + TAG_BYTES;
        record.body.len().saturating_sub(around)
    }

    /// Decrypted bytes of one record at most: TLS 1.3 counts the content type and the padding.
    pub(super) fn max_inner(self) -> usize {
        MAX_FRAGMENT_BYTES + usize::from(self.version() == Version::Tls13)
    }

    /// Header of a record of this content type and body length.
    pub(super) fn header(self, kind: u8, length: usize) -> [u8; HEADER_BYTES] {
        let outer = match self.version() {
            Version::Tls12 => kind,
            Version::Tls13 => KIND_DATA,
        };
        let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let [major, minor] = WIRE_VERSION;
        [outer, major, minor, high, low]
    }
}
