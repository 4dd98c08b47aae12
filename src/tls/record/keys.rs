//! The keys of one direction: protects and unprotects single records with the provider's AEADs.
//!
//! TLS 1.3 (RFC 8446 sections 5.2 and 5.3): the nonce is the IV xor the sequence number, the
//! additional data is the record header, the true content type stands behind the plaintext, zeros
//! may follow it. TLS 1.2: the additional data is sequence, type, version and plaintext length (RFC
//! 5246 section 6.2.3.3). AES-GCM (RFC 5288) sends the last eight bytes of its nonce before the
//! ciphertext: the peer's may be any, ours are IV xor sequence as rustls', which may have sealed
//! records under the key before. ChaCha20-Poly1305 (RFC 7905) makes its nonce as TLS 1.3 does.
//!
//! A sequence number is used once: it grows with every record, and no other code may seal under the
//! key.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::error::RecordError;
use super::frame::{HEADER_BYTES, KIND_DATA, MAX_FRAGMENT_BYTES, TlsRecord, Version};

/// Tag length of all three ciphers.
const TAG_BYTES: usize = 16;
const EXPLICIT_NONCE_BYTES: usize = 8;
/// Bytes of a nonce before its counter.
const NONCE_PREFIX_BYTES: usize = NONCE_LEN - EXPLICIT_NONCE_BYTES;
/// Version on the wire: that of TLS 1.2 for both.
const WIRE_VERSION: [u8; 2] = [3, 3];

/// Bytes of a record beyond its plaintext, at most: header, explicit nonce or content type, tag.
pub(super) const MAX_OVERHEAD_BYTES: usize = HEADER_BYTES + EXPLICIT_NONCE_BYTES + TAG_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// Keys of one direction.
pub(super) struct DirectionKeys {
    /// Made from `secret` when it is needed (164 ns), dropped by [`DirectionKeys::drop_key`].
    made: Option<LessSafeKey>,
    /// Wiped when it is dropped.
    secret: AeadKey,
    iv: Iv,
    /// Number of the next record.
    sequence: u64,
    cipher: Cipher,
    version: Version,
}

/// Content of a record.
pub(super) struct RecordContent {
    pub kind: u8,
    /// Bytes at the front of the output.
    pub length: usize,
}

impl DirectionKeys {
    /// Keys of one direction; `None`: the cipher is not supported here.
    pub(super) fn new(version: Version, secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (sequence, secrets) = secrets;
        let (cipher, secret, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::Chacha20Poly1305, key, iv)
            }
            _ => return None,
        };
        Some(Self {
            made: None,
            secret,
            iv,
            sequence,
            cipher,
            version,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Forgets the expanded key until it is needed again; the secret stays.
    pub(super) fn drop_key(&mut self) {
        self.made = None;
    }

    /// Bytes of a sealed record beyond its plaintext.
    pub(super) fn overhead(&self) -> usize {
        HEADER_BYTES
            + self.explicit_nonce()
            + usize::from(self.version == Version::Tls13)
            + TAG_BYTES
    }

    /// Bytes before the ciphertext.
    fn explicit_nonce(&self) -> usize {
        match (self.version, self.cipher) {
            (Version::Tls12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => EXPLICIT_NONCE_BYTES,
            _ => 0,
        }
    }

    /// Room that [`DirectionKeys::open`] needs: the plaintext, a type and padding.
    pub(super) fn room_for(&self, record: &TlsRecord<'_>) -> usize {
        record
            .body
            .len()
            .saturating_sub(self.explicit_nonce() + TAG_BYTES)
    }

    /// Decrypts `record` to the front of `plain`, which has [`DirectionKeys::room_for`] it.
    pub(super) fn open(
        &mut self,
        record: &TlsRecord<'_>,
        plain: &mut [u8],
    ) -> Result<RecordContent, RecordError> {
        let body = record.body;
        let (explicit, sealed) = body
            .split_at_checked(self.explicit_nonce())
            .ok_or(RecordError::BadRecord)?;
        let (ciphertext, tag) = sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(RecordError::BadRecord)?;
        if ciphertext.len() > self.max_inner() {
            return Err(RecordError::TooLong);
        }
        let mut nonce = self.nonce();
        let counter = nonce.iter_mut().skip(NONCE_PREFIX_BYTES);
        counter.zip(explicit).for_each(|(into, from)| *into = *from);
        let (aad, aad_length) = self.aad(record.header, ciphertext.len());
        let aad = aad.get(..aad_length).ok_or(RecordError::Internal)?;
        let plain = plain
            .get_mut(..ciphertext.len())
            .ok_or(RecordError::Internal)?;
        self.key()?
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                ciphertext,
                tag,
                plain,
            )
            .map_err(|_| RecordError::BadRecord)?;
        self.step()?;
        content(self.version, record.header, plain)
    }

    /// Writes one record to the front of `out` and returns its length; `None`: it does not fit, and
    /// nothing was done.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>, RecordError> {
        let total = plain.len() + self.overhead();
        let Some(out) = out.get_mut(..total) else {
            return Ok(None);
        };
        let header = self.header(kind, total - HEADER_BYTES);
        let nonce = self.nonce();
        let (aad, aad_length) = self.aad(header, plain.len());
        let aad = aad.get(..aad_length).ok_or(RecordError::Internal)?;
        let (front, sealed) = out
            .split_at_mut_checked(HEADER_BYTES + self.explicit_nonce())
            .ok_or(RecordError::Internal)?;
        let (head, explicit) = front.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        explicit.copy_from_slice(
            nonce
                .get(NONCE_LEN - explicit.len()..)
                .ok_or(RecordError::Internal)?,
        );
        let (ciphertext, behind) = sealed.split_at_mut(plain.len());
        let inner_kind: &[u8] = match self.version {
            Version::Tls12 => &[],
            Version::Tls13 => &[kind],
        };
        self.key()?
            .seal_out_of_place_scatter(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                plain,
                ciphertext,
                inner_kind,
                behind,
            )
            .map_err(|_| RecordError::Internal)?;
        self.step()?;
        Ok(Some(total))
    }

    fn header(&self, kind: u8, length: usize) -> [u8; HEADER_BYTES] {
        let outer = match self.version {
            Version::Tls12 => kind,
            Version::Tls13 => KIND_DATA,
        };
        let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let [major, minor] = WIRE_VERSION;
        [outer, major, minor, high, low]
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        let iv = nonce.iter_mut().zip(self.iv.as_ref());
        iv.for_each(|(into, from)| *into = *from);
        let counter = nonce.iter_mut().skip(NONCE_PREFIX_BYTES);
        let sequence = self.sequence.to_be_bytes();
        counter.zip(sequence).for_each(|(into, from)| *into ^= from);
        nonce
    }

    /// The additional data in a buffer for the longer of its two forms, and its length. The header
    /// goes in as it came, so that a change to any of its bits is seen.
    fn aad(&self, header: [u8; HEADER_BYTES], plain_length: usize) -> ([u8; 13], usize) {
        let [kind, major, minor, high, low] = header;
        match self.version {
            Version::Tls13 => ([kind, major, minor, high, low, 0, 0, 0, 0, 0, 0, 0, 0], 5),
            Version::Tls12 => {
                let [a, b, c, d, e, f, g, h] = self.sequence.to_be_bytes();
                let length = u16::try_from(plain_length).unwrap_or(u16::MAX);
                let [high, low] = length.to_be_bytes();
                ([a, b, c, d, e, f, g, h, kind, major, minor, high, low], 13)
            }
        }
    }

    /// Decrypted bytes of one record at most: TLS 1.3 counts the content type and the padding.
    fn max_inner(&self) -> usize {
        MAX_FRAGMENT_BYTES + usize::from(self.version == Version::Tls13)
    }

    fn key(&mut self) -> Result<&LessSafeKey, RecordError> {
        if self.made.is_none() {
            let key = UnboundKey::new(self.cipher.algorithm(), self.secret.as_ref())
                .map_err(|_| RecordError::Internal)?;
            self.made = Some(LessSafeKey::new(key));
        }
        self.made.as_ref().ok_or(RecordError::Internal)
    }

    fn step(&mut self) -> Result<(), RecordError> {
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Internal)?;
        Ok(())
    }

    #[cfg(test)]
    pub fn is_dropped(&self) -> bool {
        self.made.is_none()
    }
}

impl Cipher {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// The type and the length of what was decrypted: TLS 1.3 hides both behind padding.
fn content(
    version: Version,
    [kind, ..]: [u8; HEADER_BYTES],
    inner: &[u8],
) -> Result<RecordContent, RecordError> {
    if version == Version::Tls12 {
        let length = inner.len();
        return Ok(RecordContent { kind, length });
    }
    let length = inner.iter().rposition(|&byte| byte != 0);
    let length = length.ok_or(RecordError::Unexpected)?;
    let kind = *inner.get(length).ok_or(RecordError::Internal)?;
    Ok(RecordContent { kind, length })
}
