//! The key schedule of an established TLS 1.3 connection: keys, IVs and updates of a traffic secret
//! (RFC 8446 sections 7.1 to 7.3). HKDF is the provider's.
//!
//! rustls has the same, but inside a connection that holds the peer's certificates and that cannot
//! be written down. It is the judge in the tests.

use aws_lc_rs::aead::NONCE_LEN;
use aws_lc_rs::hkdf::{KeyType, Prk};
use zeroize::Zeroizing;

use super::error::RecordError;
use super::suite::RecordCipher;

/// Longest traffic secret: that of SHA-384.
pub(super) const MAX_SECRET_BYTES: usize = 48;
pub(super) const MAX_KEY_BYTES: usize = 32;

/// A secret, or a key with its IV behind it, at the front of the array. Wiped when it is dropped.
pub(super) type Secret = Zeroizing<[u8; MAX_SECRET_BYTES]>;

/// Key and IV of one generation.
pub(super) struct TrafficKeys {
    pub key: Zeroizing<[u8; MAX_KEY_BYTES]>,
    pub iv: [u8; NONCE_LEN],
}

/// Prefix of every label.
const LABEL_PREFIX: &[u8] = b"tls13 ";

/// Key and IV of a traffic secret (RFC 8446 section 7.3). The key has the cipher's length.
pub(super) fn traffic_keys(
    cipher: RecordCipher,
    secret: &Secret,
) -> Result<TrafficKeys, RecordError> {
    let mut keys = TrafficKeys {
        key: Zeroizing::default(),
        iv: [0; NONCE_LEN],
    };
    let key = keys.key.get_mut(..cipher.key_bytes());
    let key = key.ok_or(RecordError::Internal)?;
    let secret = pseudo_random_key(cipher, secret)?;
    expand_label(&secret, b"key", key)?;
    expand_label(&secret, b"iv", &mut keys.iv)?;
    Ok(keys)
}

/// The traffic secret behind a key update (RFC 8446 section 7.2).
pub(super) fn next_secret(cipher: RecordCipher, secret: &Secret) -> Result<Secret, RecordError> {
    let mut next = Secret::new([0; MAX_SECRET_BYTES]);
    let out = next.get_mut(..cipher.secret_bytes());
    let out = out.ok_or(RecordError::Internal)?;
    let secret = pseudo_random_key(cipher, secret)?;
    expand_label(&secret, b"traffic upd", out)?;
    Ok(next)
}

fn pseudo_random_key(cipher: RecordCipher, secret: &Secret) -> Result<Prk, RecordError> {
    let secret = secret.get(..cipher.secret_bytes());
    let secret = secret.ok_or(RecordError::Internal)?;
    Ok(Prk::new_less_safe(cipher.hash(), secret))
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label(secret: &Prk, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
    let length = u16::try_from(out.len()).map_err(|_| RecordError::Internal)?;
    let label_length = u8::try_from(LABEL_PREFIX.len() + label.len());
    let label_length = label_length.map_err(|_| RecordError::Internal)?;
    let info = [
        &length.to_be_bytes()[..],
        &[label_length],
        LABEL_PREFIX,
        label,
        &[0],
    ];
    let expanded = secret.expand(&info, OutputLength(out.len()));
    expanded
        .and_then(|expanded| expanded.fill(out))
        .map_err(|_| RecordError::Internal)
}

struct OutputLength(usize);

impl KeyType for OutputLength {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(hex: &str) -> Secret {
        let bytes = bytes(hex);
        let mut secret = Secret::new([0; MAX_SECRET_BYTES]);
        secret[..bytes.len()].copy_from_slice(&bytes);
        secret
    }

    fn bytes(hex: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    /// Section 3 of RFC 8448: a simple handshake with AES-128-GCM.
    #[test]
    fn keys_are_those_of_rfc_8448() {
        for (from, key, iv) in [
            (
                "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
                "17422dda596ed5d9acd890e3c63f5051",
                "5b78923dee08579033e523d9",
            ),
            (
                "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
                "9f02283b6c9c07efc26bb9f2ac92e356",
                "cf782b88dd83549aadf1e984",
            ),
        ] {
            let keys = traffic_keys(RecordCipher::Aes128Gcm, &secret(from)).unwrap();
            assert_eq!(keys.key[..16], bytes(key));
            assert_eq!(keys.iv[..], bytes(iv));
        }
    }
}
