//! Result of a client's TLS handshake, for the log; a few characters among the names of its
//! session.

use crate::config::TlsVersion;

/// Limit of an ALPN name; the longest registered one has 19.
const MAX_ALPN_BYTES: usize = 32;

/// Parameters that a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandshakeFacts {
    pub version: TlsVersion,
    /// Cipher suite by its number in IANA's registry.
    pub cipher: u16,
    /// True: an earlier session was resumed.
    pub resumed: bool,
    /// ALPN name, cut at 32 bytes.
    pub alpn: Option<String>,
}

impl HandshakeFacts {
    /// Packs it into six characters, with the ALPN name behind them.
    pub(super) fn pack(&self) -> String {
        let version = match self.version {
            TlsVersion::Tls12 => '2',
            TlsVersion::Tls13 => '3',
        };
        let resumed = if self.resumed { 'r' } else { 'f' };
        let alpn = self.alpn.as_deref().unwrap_or_default();
        let alpn = &alpn[..alpn.floor_char_boundary(MAX_ALPN_BYTES)];
        format!("{version}{resumed}{:04x}{alpn}", self.cipher)
    }

    /// Unpacks the text of [`HandshakeFacts::pack`].
    pub(super) fn unpack(packed: &str) -> Option<HandshakeFacts> {
        let (head, alpn) = packed.split_at_checked(6)?;
        let (flags, cipher) = head.split_at_checked(2)?;
        Some(HandshakeFacts {
            version: match flags.as_bytes().first()? {
                b'2' => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            cipher: u16::from_str_radix(cipher, 16).ok()?,
            resumed: flags.ends_with('r'),
            alpn: (!alpn.is_empty()).then(|| alpn.to_owned()),
        })
    }

    /// IANA's name of the cipher suite; its number for an unknown one.
    pub(super) fn cipher_name(&self) -> String {
        let name = match self.cipher {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            0xc02b => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            0xc02c => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            0xc02f => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            0xc030 => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            0xcca8 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            0xcca9 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            other => return format!("0x{other:04x}"),
        };
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            tls13: bool, cipher: u16, resumed: bool, alpn in proptest::option::of("[ -~]{1,32}"),
        ) {
            let version = if tls13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
            let tls = HandshakeFacts { version, cipher, resumed, alpn };
            prop_assert_eq!(HandshakeFacts::unpack(&tls.pack()), Some(tls));
        }

        #[test]
        fn any_text_is_survived(text: String) {
            let _ = HandshakeFacts::unpack(&text);
        }
    }
}
