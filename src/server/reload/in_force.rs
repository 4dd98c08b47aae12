//! The configuration in force: its text, and the version by which others name it.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// Version and text of the configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigurationInForce {
    /// 1 at start; grows by 1 with every reload that is applied, also of the same text.
    pub number: u64,
    /// SHA-256 of the text, in hexadecimal: the same in every process that has loaded it. Empty
    /// where the text is not known.
    pub hash: String,
    pub loaded_at: SystemTime,
    /// Empty where the file changed while the process started.
    pub text: Arc<str>,
}

impl ConfigurationInForce {
    pub(in crate::server) fn first(text: &str) -> Arc<ConfigurationInForce> {
        Arc::new(ConfigurationInForce::numbered(1, text))
    }

    /// The next version, of `text`.
    pub(super) fn next(&self, text: &str) -> Arc<ConfigurationInForce> {
        Arc::new(ConfigurationInForce::numbered(self.number + 1, text))
    }

    fn numbered(number: u64, text: &str) -> ConfigurationInForce {
        ConfigurationInForce {
            number,
            hash: hash(text),
            loaded_at: SystemTime::now(),
            text: text.into(),
        }
    }
}

/// Nobody has written an empty text: it is none.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_grows_and_the_hash_is_of_the_text() {
        let first = ConfigurationInForce::first("abc");
        let same = first.next("abc");
        let other = same.next("abd");
        assert_eq!([first.number, same.number, other.number], [1, 2, 3]);
        assert_eq!(first.hash, same.hash);
        assert_ne!(same.hash, other.hash);
        assert!(first.hash.starts_with("ba7816bf8f01cfea"), "SHA-256 of abc");
        assert_eq!(ConfigurationInForce::first("").hash, "", "not known");
    }
}
