//! Sealed memory files: data for another process of which neither side can change a byte any more
//! (memfd_create(2)). They are in no folder, and secrets in them never touch a disk.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// Longest file that is read: the counters and states of forty thousand backends take a third.
const MAX_BYTES: u64 = 64 << 20;

/// Name that /proc shows.
const NAME: &str = "evenkeel-upgrade";

fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Writes a file of these bytes and seals it.
///
/// # Errors
/// The kernel lacks memory or a descriptor.
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file()?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, seals())?;
    Ok(file.into())
}

/// No program: a system may refuse files that could be executed (`vm.memfd_noexec`). Kernels before
/// 6.3 do not know the flag.
fn memory_file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => memfd_create(NAME, flags),
        made => made,
    };
    Ok(made?)
}

/// Reads a sealed file from its beginning.
///
/// # Errors
/// The file is not sealed, too long, or cannot be read.
pub(crate) fn read_sealed(file: OwnedFd) -> io::Result<Vec<u8>> {
    if !fcntl_get_seals(&file).is_ok_and(|found| found.contains(seals())) {
        return Err(io::Error::other("the file is not sealed"));
    }
    let mut file = File::from(file);
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(io::Error::other("the file is too long"));
    }
    file.rewind()?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_is_read_and_cannot_be_written() {
        let file = seal(b"state").unwrap();
        let copy = file.try_clone().unwrap();
        assert!(File::from(copy).write_all(b"x").is_err());
        assert_eq!(read_sealed(file).unwrap(), b"state");
    }

    #[test]
    fn a_file_that_could_change_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(read_sealed(file.into()).is_err());
    }
}
