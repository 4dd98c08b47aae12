//! Files that a process keeps for its next start. Written beside and renamed, so that no half of
//! one is ever read.

use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Writes a file in place of the one of before.
///
/// # Errors
/// Names the file.
pub(crate) fn keep_file(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let write = || {
        let mut new = fs::File::create(&beside)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    write().map_err(|error: std::io::Error| format!("{}: {error}", file.display()))
}
