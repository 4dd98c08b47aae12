//! The source of the configuration, and reading it.

use std::path::{Path, PathBuf};

/// Bytes shown of the line before a bad byte.
const SHOWN: usize = 40;

/// The file of a configuration; a reload reads it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigSource(pub PathBuf);

/// The file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {source}", .file.display())]
pub(crate) struct SourceError {
    file: PathBuf,
    source: ReadError,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
    #[error("line {line} is not UTF-8: byte 0x{byte:02x} after {before:?}; save the file as UTF-8")]
    NotUtf8 {
        line: usize,
        byte: u8,
        before: String,
    },
}

impl ConfigSource {
    pub(crate) fn file(&self) -> &Path {
        &self.0
    }

    /// Reads the present text. Blocks on file I/O.
    ///
    /// # Errors
    /// The file cannot be read or is not UTF-8.
    pub(crate) fn read(&self) -> Result<String, SourceError> {
        read(&self.0).map_err(|source| SourceError {
            file: self.0.clone(),
            source,
        })
    }
}

fn read(file: &Path) -> Result<String, ReadError> {
    text(std::fs::read(file)?)
}

fn text(bytes: Vec<u8>) -> Result<String, ReadError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ReadError::Utf16);
    }
    String::from_utf8(bytes).map_err(|error| {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let good = String::from_utf8_lossy(good);
        let line_start = good.rfind('\n').map_or(0, |end| end + 1);
        let before = &good[line_start..];
        let shown = before.ceil_char_boundary(before.len().saturating_sub(SHOWN));
        ReadError::NotUtf8 {
            line: good.matches('\n').count() + 1,
            byte: bad.first().copied().unwrap_or_default(),
            before: before[shown..].to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_utf_8_says_where_or_what_it_is() {
        let said = |bytes: &[u8]| text(bytes.to_vec()).unwrap_err().to_string();
        let latin = said(b"[global]\nname = \"caf\xe9\"\n");
        assert!(
            latin.starts_with("line 2 is not UTF-8: byte 0xe9 after "),
            "{latin}"
        );
        assert!(latin.contains("caf"), "{latin}");
        for bytes in [b"\xff\xfe[\0g\0", b"\xfe\xff\0[\0g"] {
            assert_eq!(said(bytes), "it is UTF-16; save it as UTF-8");
        }
        let long = said(&[&b"\xc3\xa9".repeat(900)[..], b"\xff"].concat());
        assert!(long.len() < 200, "{long}");
    }
}
