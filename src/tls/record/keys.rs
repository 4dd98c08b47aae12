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

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::error::RecordError;
use super::frame::{HEADER_BYTES, TlsRecord, Version};
use super::schedule::{MAX_SECRET_BYTES, Secret, next_secret, traffic_keys};
use super::suite::{EXPLICIT_NONCE_BYTES, Keying, RecordCipher, Suite, TAG_BYTES};

/// Bytes of a nonce before its counter.
const NONCE_PREFIX_BYTES: usize = NONCE_LEN - EXPLICIT_NONCE_BYTES;

/// Keys of one direction. Which suite they are for, the caller knows: it is the same both ways.
pub(super) struct DirectionKeys {
    /// Made of the secret when it is needed, dropped by [`DirectionKeys::drop_key`].
    made: Option<Box<MadeKey>>,
    /// TLS 1.3: the traffic secret. Where there is none, the key and the IV behind it.
    secret: Secret,
    /// Number of the next record.
    sequence: u64,
}

/// A key that is ready for use, and its IV.
struct MadeKey {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

/// Key and IV of one direction, as rustls has them, and the number of the next record.
pub(super) struct RustlsKeys {
    pub cipher: RecordCipher,
    key: AeadKey,
    iv: Iv,
    sequence: u64,
}

impl RustlsKeys {
    /// `None`: the cipher is not supported here.
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (RecordCipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (RecordCipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (RecordCipher::Chacha20Poly1305, key, iv)
            }
            _ => return None,
        };
        Some(Self {
            cipher,
            key,
            iv,
            sequence,
        })
    }

    /// Key and IV, one behind the other.
    fn joined(&self) -> Secret {
        let mut joined = Secret::new([0; MAX_SECRET_BYTES]);
        let bytes = self.key.as_ref().iter().chain(self.iv.as_ref());
        joined
            .iter_mut()
            .zip(bytes)
            .for_each(|(into, from)| *into = *from);
        joined
    }
}

/// Content of a record.
pub(super) struct RecordContent {
    pub kind: u8,
    /// Bytes at the front of the output.
    pub length: usize,
}

impl DirectionKeys {
    /// Goes on under keys of rustls, which are also those of the traffic `secret` if that is given.
    /// `None`: the provider refuses the key.
    pub(super) fn new(keys: &RustlsKeys, secret: Option<Box<Secret>>) -> Option<Self> {
        Some(Self {
            // Making it of the secret would derive it once more.
            made: Some(Box::new(MadeKey {
                key: make(keys.cipher, keys.key.as_ref()).ok()?,
                iv: keys.iv.as_ref().try_into().ok()?,
            })),
            secret: match secret {
                Some(secret) => Secret::clone(&secret),
                None => keys.joined(),
            },
            sequence: keys.sequence,
        })
    }

    /// Goes on where another one has left off.
    pub(super) fn resume(secret: Secret, sequence: u64) -> Self {
        Self {
            made: None,
            secret,
            sequence,
        }
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Forgets the expanded key until it is needed again; the secret stays.
    pub(super) fn drop_key(&mut self) {
        self.made = None;
    }

    /// Goes on to the keys behind a key update, which begin to count anew.
    pub(super) fn renew(&mut self, cipher: RecordCipher) -> Result<(), RecordError> {
        *self = Self::resume(next_secret(cipher, &self.secret)?, 0);
        Ok(())
    }

    /// Decrypts `record` to the front of `plain`, which has [`Suite::room_for`] it.
    pub(super) fn open(
        &mut self,
        suite: Suite,
        record: &TlsRecord<'_>,
        plain: &mut [u8],
    ) -> Result<RecordContent, RecordError> {
        let body = record.body;
        let (explicit, sealed) = body
            .split_at_checked(suite.explicit_nonce())
            .ok_or(RecordError::BadRecord)?;
        let (ciphertext, tag) = sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(RecordError::BadRecord)?;
        if ciphertext.len() > suite.max_inner() {
            return Err(RecordError::TooLong);
        }
        let sequence = self.sequence;
        let (aad, aad_length) = aad(suite.version(), sequence, record.header, ciphertext.len());
        let aad = aad.get(..aad_length).ok_or(RecordError::Internal)?;
        let plain = plain
            .get_mut(..ciphertext.len())
            .ok_or(RecordError::Internal)?;
        let made = self.made(suite)?;
        let mut nonce = made.nonce(sequence);
        let counter = nonce.iter_mut().skip(NONCE_PREFIX_BYTES);
        counter.zip(explicit).for_each(|(into, from)| *into = *from);
        made.key
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                ciphertext,
                tag,
                plain,
            )
            .map_err(|_| RecordError::BadRecord)?;
        self.step()?;
        content(suite.version(), record.header, plain)
    }

    /// Writes one record to the front of `out` and returns its length; `None`: it does not fit, and
    /// nothing was done.
    pub(super) fn seal(
        &mut self,
        suite: Suite,
        kind: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>, RecordError> {
        let total = plain.len() + suite.overhead();
        let Some(out) = out.get_mut(..total) else {
            return Ok(None);
        };
        let header = suite.header(kind, total - HEADER_BYTES);
        let sequence = self.sequence;
        let (aad, aad_length) = aad(suite.version(), sequence, header, plain.len());
        let aad = aad.get(..aad_length).ok_or(RecordError::Internal)?;
        let made = self.made(suite)?;
        let nonce = made.nonce(sequence);
        let (front, sealed) = out
            .split_at_mut_checked(HEADER_BYTES + suite.explicit_nonce())
            .ok_or(RecordError::Internal)?;
        let (head, explicit) = front.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        explicit.copy_from_slice(
            nonce
                .get(NONCE_LEN - explicit.len()..)
                .ok_or(RecordError::Internal)?,
        );
        let (ciphertext, behind) = sealed.split_at_mut(plain.len());
        let inner_kind: &[u8] = match suite.version() {
            Version::Tls12 => &[],
            Version::Tls13 => &[kind],
        };
        made.key
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

    fn made(&mut self, suite: Suite) -> Result<&MadeKey, RecordError> {
        if self.made.is_none() {
            self.made = Some(Box::new(MadeKey::of(suite, &self.secret)?));
        }
        self.made.as_deref().ok_or(RecordError::Internal)
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

impl MadeKey {
    fn of(suite: Suite, secret: &Secret) -> Result<Self, RecordError> {
        let cipher = suite.cipher;
        if suite.keying == Keying::Tls13 {
            let keys = traffic_keys(cipher, secret)?;
            let key = keys.key.get(..cipher.key_bytes());
            let key = key.ok_or(RecordError::Internal)?;
            return Ok(Self {
                key: make(cipher, key)?,
                iv: keys.iv,
            });
        }
        let (key, behind) = secret
            .split_at_checked(cipher.key_bytes())
            .ok_or(RecordError::Internal)?;
        Ok(Self {
            key: make(cipher, key)?,
            iv: *behind.first_chunk().ok_or(RecordError::Internal)?,
        })
    }

    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let counter = nonce.iter_mut().skip(NONCE_PREFIX_BYTES);
        let sequence = sequence.to_be_bytes();
        counter.zip(sequence).for_each(|(into, from)| *into ^= from);
        nonce
    }
}

fn make(cipher: RecordCipher, key: &[u8]) -> Result<LessSafeKey, RecordError> {
    let key = UnboundKey::new(cipher.algorithm(), key).map_err(|_| RecordError::Internal)?;
    Ok(LessSafeKey::new(key))
}

/// The additional data in a buffer for the longer of its two forms, and its length. The header goes
/// in as it came, so that a change to any of its bits is seen.
fn aad(
    version: Version,
    sequence: u64,
    header: [u8; HEADER_BYTES],
    plain_length: usize,
) -> ([u8; 13], usize) {
    let [kind, major, minor, high, low] = header;
    match version {
        Version::Tls13 => ([kind, major, minor, high, low, 0, 0, 0, 0, 0, 0, 0, 0], 5),
        Version::Tls12 => {
            let [a, b, c, d, e, f, g, h] = sequence.to_be_bytes();
            let length = u16::try_from(plain_length).unwrap_or(u16::MAX);
            let [high, low] = length.to_be_bytes();
            ([a, b, c, d, e, f, g, h, kind, major, minor, high, low], 13)
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
