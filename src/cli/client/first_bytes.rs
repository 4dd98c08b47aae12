//! First bytes of an answer: they tell what listens where an admin endpoint was expected.

use std::sync::{Arc, Mutex, PoisonError};

/// Limit of the bytes that are kept and shown.
const MAX_SEEN_BYTES: usize = 64;

/// First bytes that a peer sent.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstBytes(Arc<Mutex<Vec<u8>>>);

impl FirstBytes {
    pub(super) fn add(&self, bytes: &[u8]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_SEEN_BYTES.saturating_sub(seen.len());
        seen.extend(bytes.iter().take(room));
    }

    /// Describes a peer that does not speak HTTP; `None`: it does, or sent nothing.
    pub(super) fn describe(&self) -> Option<String> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.as_slice() {
            [] => None,
            bytes if bytes.starts_with(b"HTTP/") => None,
            // Record of an alert or a handshake.
            [0x15 | 0x16, 0x03, ..] => Some("it speaks TLS; use https://".to_owned()),
            bytes => {
                let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next();
                let line = line.unwrap_or_default().escape_ascii();
                Some(format!(
                    "it does not speak HTTP: its answer begins with \"{line}\""
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Option<String> {
        let seen = FirstBytes::default();
        seen.add(bytes);
        seen.describe()
    }

    #[test]
    fn what_speaks_there_is_told_by_its_first_bytes() {
        assert_eq!(said(b""), None);
        assert_eq!(said(b"HTTP/1.1 404 Not Found\r\n"), None);
        let tls = said(b"\x15\x03\x03\0\x02\x02\x32").unwrap();
        assert!(tls.contains("https://"), "{tls}");
        let ssh = said(b"SSH-2.0-OpenSSH_9.6\r\n\x1b[2J").unwrap();
        assert!(
            ssh.ends_with("begins with \"SSH-2.0-OpenSSH_9.6\""),
            "{ssh}"
        );
        assert!(said(&[0x1b; 500]).is_some_and(|text| text.len() < 400));
    }
}
