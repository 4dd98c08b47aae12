//! The file of session-ticket keys that several balancers share, in the format of HAProxy's
//! `tls-ticket-keys`: one key per line, the base64 of 48 or 80 random bytes, the newest last.
//!
//! Only parsing. Errors never show a line, as it is a secret.

use std::fmt;

use data_encoding::BASE64;

/// Keys in use: the last ones of the file, as in HAProxy, where a rotation appends a line.
pub const MAX_KEYS: usize = 3;
const NAME_BYTES: usize = 16;
const SHORT_BYTES: usize = 48;
const LONG_BYTES: usize = 80;

/// The keys of a file, at least one and at most [`MAX_KEYS`], the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketKeys(Vec<TicketKey>);

/// A key: 16 bytes of AES and of HMAC from a line of 48 bytes, 32 from one of 80.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// In clear in each ticket, to find the key again.
    pub name: [u8; NAME_BYTES],
    pub aes: Vec<u8>,
    pub hmac: Vec<u8>,
}

/// Why a file of keys is refused. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeysError {
    #[error("no key found; a line is the base64 of {SHORT_BYTES} or {LONG_BYTES} random bytes")]
    NoKey,
    #[error("line {line}: not valid base64")]
    Base64 { line: usize },
    #[error("line {line}: a key of {length} bytes; allowed: {SHORT_BYTES} or {LONG_BYTES}")]
    Length { line: usize, length: usize },
    #[error("line {line}: a key of {length} bytes beside others of another length")]
    Mixed { line: usize, length: usize },
}

impl TicketKeys {
    /// Parses a file. Every line must be valid, also those of old keys: half of a file is refused.
    /// All keys have one length, as in HAProxy: 64 letters of a line of 80 bytes that is being
    /// written are a whole key of 48.
    ///
    /// # Errors
    /// Names the first line that is not a key.
    pub fn parse(text: &[u8]) -> Result<TicketKeys, TicketKeysError> {
        let mut keys = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if keys.len() == MAX_KEYS {
                keys.remove(0);
            }
            let key = TicketKey::parse(line, index + 1)?;
            if keys
                .iter()
                .any(|other: &TicketKey| other.length() != key.length())
            {
                return Err(TicketKeysError::Mixed {
                    line: index + 1,
                    length: key.length(),
                });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(TicketKeysError::NoKey);
        }
        Ok(TicketKeys(keys))
    }

    /// The oldest first.
    pub fn all(&self) -> &[TicketKey] {
        &self.0
    }

    /// Index of the key that seals: the last but one, as in HAProxy, so that an appended key opens
    /// tickets on every balancer before any of them seals with it. A single key seals, too.
    pub fn sealing(&self) -> usize {
        self.0.len().saturating_sub(2)
    }
}

impl TicketKey {
    /// Length of the line, in bytes.
    fn length(&self) -> usize {
        NAME_BYTES + self.aes.len() + self.hmac.len()
    }

    fn parse(text: &[u8], line: usize) -> Result<TicketKey, TicketKeysError> {
        let bytes = BASE64
            .decode(text)
            .map_err(|_| TicketKeysError::Base64 { line })?;
        let wrong = TicketKeysError::Length {
            line,
            length: bytes.len(),
        };
        let (name, secret) = bytes.split_first_chunk().ok_or(wrong)?;
        // The order within is HAProxy's; tickets are not shared with it.
        let (aes, hmac) = match bytes.len() {
            SHORT_BYTES => secret.split_at(16),
            LONG_BYTES => {
                let (hmac, aes) = secret.split_at(32);
                (aes, hmac)
            }
            _ => return Err(wrong),
        };
        Ok(TicketKey {
            name: *name,
            aes: aes.to_vec(),
            hmac: hmac.to_vec(),
        })
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(length: usize, fill: u8) -> String {
        BASE64.encode(&vec![fill; length])
    }

    fn file(fills: &[u8]) -> String {
        fills.iter().map(|fill| line(80, *fill) + "\n").collect()
    }

    #[test]
    fn the_last_but_one_of_three_seals() {
        for (fills, kept, sealing) in [
            (&[1][..], &[1][..], 1),
            (&[1, 2], &[1, 2], 1),
            (&[1, 2, 3], &[1, 2, 3], 2),
            (&[1, 2, 3, 4, 5], &[3, 4, 5], 4),
        ] {
            let keys = TicketKeys::parse(file(fills).as_bytes()).unwrap();
            let names: Vec<u8> = keys.all().iter().map(|key| key.name[0]).collect();
            assert_eq!(names, kept);
            assert_eq!(keys.all()[keys.sealing()].name[0], sealing, "{fills:?}");
        }
    }

    #[test]
    fn a_line_is_named_and_its_secret_is_not_shown() {
        let error = |text: &str| TicketKeys::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error("\n \r\n").starts_with("no key found; "));
        let wrong = error(&format!("\n{}\n{}\n", line(48, 1), line(47, 2)));
        assert_eq!(wrong, "line 3: a key of 47 bytes; allowed: 48 or 80");
        assert_eq!(error("c2VjcmV0!"), "line 1: not valid base64");
        // Cut in the middle of a line that was being written.
        let cut = file(&[1, 2]);
        assert!(error(&cut[..cut.len() - 9]).starts_with("line 2: "));
        let shown = format!("{:?}", TicketKeys::parse(file(&[7]).as_bytes()).unwrap());
        assert!(
            shown.contains("name: [7, ") && !shown.contains("aes"),
            "{shown}"
        );
    }

    #[test]
    fn both_lengths_are_taken_apart_as_haproxy_does() {
        let bytes: Vec<u8> = (0..80).collect();
        let key = |length: usize| {
            let text = format!("\r\n{}\r\n\n", BASE64.encode(&bytes[..length]));
            let keys = TicketKeys::parse(text.as_bytes()).unwrap();
            let key = keys.all()[0].clone();
            (key.name.to_vec(), key.aes, key.hmac)
        };
        let part = |from: usize, to: usize| bytes[from..to].to_vec();
        assert_eq!(key(48), (part(0, 16), part(16, 32), part(32, 48)));
        assert_eq!(key(80), (part(0, 16), part(48, 80), part(16, 48)));
    }

    // Found by cutting files: 64 of the 108 letters of a long key are a short one.
    #[test]
    fn keys_of_two_lengths_are_refused() {
        let whole = file(&[1, 2]);
        let cut = &whole[..109 + 64];
        let error = TicketKeys::parse(cut.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            TicketKeysError::Mixed {
                line: 2,
                length: 48
            }
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_in_the_format_is_read_back(
            keys in prop_oneof![Just(48_usize), Just(80)].prop_flat_map(|length| {
                prop::collection::vec(prop::collection::vec(any::<u8>(), length), 1..8)
            }),
            blank in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n \n")], 8),
        ) {
            let text: String = keys.iter().zip(&blank).map(|(key, end)| BASE64.encode(key) + end).collect();
            let read = TicketKeys::parse(text.as_bytes()).unwrap();
            let back: Vec<Vec<u8>> = read.all().iter().map(|key| {
                let secret = match key.aes.len() { 16 => [&key.aes[..], &key.hmac], _ => [&key.hmac[..], &key.aes] };
                [&key.name[..], secret[0], secret[1]].concat()
            }).collect();
            prop_assert_eq!(&back[..], &keys[keys.len().saturating_sub(MAX_KEYS)..]);
            prop_assert!(read.sealing() < back.len());
        }

        #[test]
        fn a_cut_file_is_an_error_or_whole_lines(
            count in 1_usize..6, cut in 0_usize..700,
        ) {
            let fills: Vec<u8> = (1..).take(count).collect();
            let text = file(&fills);
            let cut = cut.min(text.len());
            if let Ok(keys) = TicketKeys::parse(&text.as_bytes()[..cut]) {
                // A first line has no other beside it that shows it to be cut.
                prop_assert!(text[..cut].trim_end().lines().all(|line| line.len() == 108) || cut == 64);
                prop_assert_eq!(keys.all().len(), text[..cut].trim_end().lines().count().min(MAX_KEYS));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = TicketKeys::parse(&text);
        }
    }
}
