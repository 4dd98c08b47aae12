//! The socket of a leg, or of one that is gone: between two backends a session has no socket on that side, and a place kept
//! for the next one costs no descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};

/// One for the process, which is no socket: whatever a socket is asked for fails on it, and nothing happens.
static NOWHERE: OnceLock<OwnedFd> = OnceLock::new();

pub(in super::super) enum Socket {
    Own(OwnedFd),
    Nowhere,
}

/// Makes [`Socket::nowhere`] possible; once is enough.
///
/// # Errors
/// The kernel refused a descriptor.
pub(in super::super) fn prepare() -> io::Result<()> {
    if NOWHERE.get().is_none() {
        // Another one may have been faster: one of both is kept.
        let _ = NOWHERE.set(eventfd(0, EventfdFlags::CLOEXEC)?);
    }
    Ok(())
}

impl Socket {
    /// `None` before [`prepare`].
    pub fn nowhere() -> Option<Socket> {
        NOWHERE.get().map(|_| Socket::Nowhere)
    }

    pub fn into_owned(self) -> Option<OwnedFd> {
        match self {
            Socket::Own(socket) => Some(socket),
            Socket::Nowhere => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match (self, NOWHERE.get()) {
            (Socket::Own(socket), _) => socket.as_fd(),
            (Socket::Nowhere, Some(nowhere)) => nowhere.as_fd(),
            // Never: see `nowhere`.
            (Socket::Nowhere, None) => rustix::stdio::stderr(),
        }
    }
}
