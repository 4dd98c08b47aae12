//! Contents of the files of a TLS configuration: read whole, bounded, each once per load.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

use super::TlsError;
use super::error::FileFault;

/// Largest PEM file read. Chains are a few KiB, a bundle of every public root is about 250 KiB; a
/// larger file is a wrong path (a log, a device).
const MAX_FILE_BYTES: u64 = 4 << 20;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// SHA-256 over contents: differs when they do, whatever the stamps of the files are.
pub(crate) type Fingerprint = [u8; 32];

/// Contents of some files at one time, or why a file could not be read.
pub(crate) struct FileContents(BTreeMap<PathBuf, Result<Vec<u8>, ReadFailure>>);

#[derive(Clone)]
enum ReadFailure {
    Failed(Arc<io::Error>),
    TooLarge,
}

impl ReadFailure {
    fn of(self, file: &Path) -> TlsError {
        let limit_bytes = MAX_FILE_BYTES;
        let fault = match self {
            ReadFailure::Failed(source) => FileFault::Read(source),
            ReadFailure::TooLarge => FileFault::TooLarge { limit_bytes },
        };
        fault.of(file)
    }
}

impl FileContents {
    pub(crate) fn read<'a>(files: impl Iterator<Item = &'a PathBuf>) -> FileContents {
        let mut contents = BTreeMap::new();
        for file in files {
            let read = || read_bounded(file);
            contents.entry(file.clone()).or_insert_with(read);
        }
        FileContents(contents)
    }

    /// Contents of one file.
    ///
    /// # Errors
    /// Why this file could not be read; names it.
    pub(crate) fn get(&self, file: &Path) -> Result<&[u8], TlsError> {
        let missing = || ReadFailure::Failed(Arc::new(io::ErrorKind::NotFound.into())).of(file);
        let contents = self.0.get(file).ok_or_else(missing)?;
        let failed = |failure: &ReadFailure| failure.clone().of(file);
        contents.as_deref().map_err(failed)
    }

    /// Fingerprint of these files in this order.
    ///
    /// # Errors
    /// Names the first that could not be read.
    pub(crate) fn fingerprint_of<'a>(
        &self,
        files: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<Fingerprint, TlsError> {
        let mut hash = FileHash::new();
        for file in files {
            hash.add(self.get(file)?);
        }
        Ok(hash.finish())
    }

    /// Fingerprint of all files; an unreadable one differs from any readable one.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let mut hash = FileHash::new();
        for contents in self.0.values() {
            hash.add_optional(contents.as_ref().ok());
        }
        hash.finish()
    }
}

/// An item that is loaded from files as a whole.
pub(super) trait FromFiles {
    /// Fingerprint of the contents it was loaded from.
    fn fingerprint(&self) -> Fingerprint;
}

/// Reads a whole file, bounded.
pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, TlsError> {
    read_bounded(file).map_err(|failure| failure.of(file))
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, ReadFailure> {
    let failed = |error| ReadFailure::Failed(Arc::new(error));
    let mut contents = Vec::new();
    File::open(file)
        .map_err(failed)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut contents)
        .map_err(failed)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadFailure::TooLarge);
    }
    Ok(strip_byte_order_marks(contents))
}

/// Drops the byte order marks that editors put before a line of text. Joined files have several,
/// and the parser would miss the line behind one, which begins a certificate.
fn strip_byte_order_marks(contents: Vec<u8>) -> Vec<u8> {
    let begins_with_mark = |line: &[u8]| line.starts_with(BYTE_ORDER_MARK);
    if !contents.split(|byte| *byte == b'\n').any(begins_with_mark) {
        return contents;
    }
    let lines = contents.split_inclusive(|byte| *byte == b'\n');
    let bare = lines.map(|line| line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line));
    bare.flatten().copied().collect()
}

/// SHA-256 over parts whose bounds count.
pub(super) struct FileHash(digest::Context);

impl FileHash {
    pub(super) fn new() -> FileHash {
        FileHash(digest::Context::new(&digest::SHA256))
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        // The length keeps two parts apart: bytes moved from one to the next would hash the same.
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// Adds a part that may be absent.
    pub(super) fn add_optional(&mut self, part: Option<impl AsRef<[u8]>>) {
        match part {
            Some(part) => self.add(part.as_ref()),
            // In place of a length; no part is that long.
            None => self.0.update(&u64::MAX.to_be_bytes()),
        }
    }

    pub(super) fn finish(self) -> Fingerprint {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(self.0.finish().as_ref());
        fingerprint
    }
}

/// Metadata of a file, behind its links. A write changes the times, a rename or a swapped link the
/// inode. An equal stamp means equal content, but for a write in the same tick of the kernel's
/// clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Stamp of a file; `None`: there is no such file, or its metadata cannot be read.
pub(super) fn stamp(file: &Path) -> Option<FileStamp> {
    let meta = std::fs::metadata(file).ok()?;
    Some(FileStamp {
        device: meta.dev(),
        inode: meta.ino(),
        length: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_that_is_not_there_differs_from_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        let look = || FileContents::read([&file].into_iter());
        let gone = look();
        assert!(
            gone.get(&file)
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        std::fs::write(&file, "").unwrap();
        assert_ne!(look().fingerprint(), gone.fingerprint());
    }

    #[test]
    fn a_file_too_large_to_be_a_certificate_is_not_read_to_its_end() {
        let error = read_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(
            error.ends_with("/dev/zero: larger than 4194304 bytes"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn bytes_that_move_from_one_file_to_the_next_are_seen(
            bytes in prop::collection::vec(any::<u8>(), 1..40), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
        ) {
            let hash = |at: usize| {
                let mut hash = FileHash::new();
                hash.add(&bytes[..at]);
                hash.add(&bytes[at..]);
                hash.finish()
            };
            let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
            prop_assert_eq!(hash(at) == hash(to), at == to);
        }
    }
}
