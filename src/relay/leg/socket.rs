//! The socket of a leg, or of one that is gone: between two backends a session has no socket on
//! that side, and a place kept for the next one costs no descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{RecvFlags, recv};

/// A descriptor of the process that is no socket: every socket call fails on it, and nothing
/// happens.
static NOWHERE: OnceLock<OwnedFd> = OnceLock::new();

pub(in crate::relay) enum Socket {
    Own(OwnedFd),
    Nowhere,
}

/// Makes [`Socket::nowhere`] possible; once is enough.
///
/// # Errors
/// The kernel refused a descriptor.
pub(in crate::relay) fn prepare() -> io::Result<()> {
    if NOWHERE.get().is_none() {
        // Another one may have been faster: one of both is kept.
        let _ = NOWHERE.set(eventfd(0, EventfdFlags::CLOEXEC)?);
    }
    Ok(())
}

impl Socket {
    /// `None` before [`prepare`].
    pub(super) fn nowhere() -> Option<Socket> {
        NOWHERE.get().map(|_| Socket::Nowhere)
    }

    pub(super) fn into_owned(self) -> Option<OwnedFd> {
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

/// True when the kernel holds an error for the socket. Asking does not consume it, as reading
/// SO_ERROR would.
pub(super) fn has_error(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    // Without waiting; a failure of poll itself says nothing about the socket.
    let _ = poll(&mut fds, Some(&Timespec::default()));
    fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}

/// Reads bytes that have come, as many as fit.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, count)) => return Ok(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
