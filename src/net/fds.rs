//! The process's file descriptors: how many it may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft NOFILE limit to the hard one. Returns the limit that holds now.
///
/// # Errors
/// The kernel's refusal; the old limit stays.
pub fn raise_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.unwrap_or(u64::MAX) < maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(maximum)
}

/// Descriptors that are open now, as `/proc/self/fd` lists them; `None` where that cannot be read.
pub fn open_count() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // The listing itself holds one.
    Some((entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_covers_what_is_open() {
        let limit = raise_limit().unwrap();
        assert!(limit > open_count().unwrap());
    }
}
