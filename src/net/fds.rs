//! The process's file descriptors: the limit, and the shares of all but the data path. The bounds
//! are together here because they leave the budget for proxied connections.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Checks under way at once in the process. Each holds a socket for up to its timeout: 256 is more
/// than the checks of a thousand backends need.
pub(crate) const MAX_PARALLEL_CHECKS: usize = 256;
/// Connections at once of the admin endpoint, and as many of the metrics endpoint; further ones
/// wait in the kernel.
pub(crate) const MAX_ENDPOINT_CONNECTIONS: usize = 64;

/// Viewers of events at once, beside those connections: every operator of a large team with a few
/// pages open.
pub(crate) const MAX_EVENT_VIEWERS: usize = 128;

/// Raises the soft NOFILE limit to the hard one. Returns the limit that holds now.
///
/// # Errors
/// The kernel's refusal; the old limit stays.
pub(crate) fn raise_limit() -> io::Result<u64> {
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

/// The limit that [`raise_limit`] can reach.
pub(crate) fn limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// Descriptors that are open now, as `/proc/self/fd` lists them; `None` where that cannot be read.
pub(crate) fn open_count() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // The listing itself has one open.
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
