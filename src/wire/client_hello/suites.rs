//! Preference for ChaCha20 among a client's cipher suites, as of clients without AES in hardware
//! (phones, small boards).

use super::{ClientHelloReader, HelloBody};

/// Suites of TLS 1.3 (RFC 8446, B.4), and of TLS 1.2 with RSA and ECDSA (RFC 7905).
const CHACHA20_POLY1305: [[u8; 2]; 3] = [[0x13, 0x03], [0xcc, 0xa8], [0xcc, 0xa9]];

impl ClientHelloReader {
    /// Whether ChaCha20 is first in a complete ClientHello. False if that is malformed: a hint is
    /// not a check.
    pub fn prefers_chacha(&self) -> bool {
        let Some(HelloBody { suites, .. }) = self.body() else {
            return false;
        };
        let pairs = suites.0.chunks_exact(2);
        let mut suites = pairs.filter_map(|pair| pair.first_chunk().copied());
        let first = suites.find(|suite| !is_grease(*suite));
        first.is_some_and(|first| CHACHA20_POLY1305.contains(&first))
    }
}

/// Whether a suite is a reserved value, which browsers send so that servers keep ignoring unknown
/// ones (RFC 8701).
fn is_grease([high, low]: [u8; 2]) -> bool {
    high == low && high & 0x0f == 0x0a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(suites: &[u8]) -> bool {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, suites.len() as u8]);
        body.extend(suites);
        body.extend([1, 0]);
        let mut message = vec![1, 0, 0, body.len() as u8];
        message.extend(body);
        let mut record = vec![22, 3, 1, 0, message.len() as u8];
        record.extend(message);
        let mut reader = ClientHelloReader::new();
        reader.feed(&record);
        reader.prefers_chacha()
    }

    #[test]
    fn the_first_suite_that_is_one_decides() {
        assert!(prefers(&[0x13, 3, 0x13, 1]));
        assert!(prefers(&[0xca, 0xca, 0x13, 3]));
        assert!(prefers(&[0xcc, 0xa9, 0xc0, 0x2b]));
        assert!(!prefers(&[0x13, 1, 0x13, 3]));
        assert!(!prefers(&[0x0a, 0x0a, 0x13, 2, 0x13, 3]));
        assert!(!prefers(&[0x0a, 0x0a]));
        assert!(!ClientHelloReader::new().prefers_chacha());
    }
}
