//! Accepting on a relay thread, for listeners that need no byte of a connection to know where it
//! goes. One worker holds the listening socket; a connection goes to the lighter of two workers,
//! which does the rest of its life.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::key::SessionKey;
use super::new_session::NewSession;
use super::set_up::SetUp;
use crate::net::{Peer, is_transient_accept_error, try_accept};

/// Accepts in a row before the sockets of others are looked at.
pub(super) const ACCEPTS_PER_TURN: usize = 16;

/// Actions of a listener on its connections. They are called on relay threads and must not wait.
pub(crate) trait OnAccept: Send + Sync {
    /// Counts a connection that is to be accepted; false where there is no room for it, unless it
    /// is to be taken `anyway`.
    fn reserve(&self, anyway: bool) -> bool;

    /// Uncounts a connection that did not come.
    fn unreserve(&self);

    /// Takes a connection that has come and was counted.
    fn accepted(&self, socket: OwnedFd, peer: Peer) -> Accepted;

    /// Accepting pauses until [`RelayListener::resume`](super::listener::RelayListener::resume):
    /// there is no room, or the process is short of what the error says.
    fn paused(&self, why: Option<io::Error>);

    /// A connection was gone before it was accepted.
    fn lost(&self, error: io::Error);
}

/// Way of an accepted connection.
pub(crate) enum Accepted {
    /// It is a session.
    Session(Box<NewSession>),
    /// It is set up on the relay thread.
    SetUp(OwnedFd, Box<dyn SetUp>),
    /// It goes another way, or was refused.
    Elsewhere,
}

/// A listening socket inside its worker.
pub(super) struct OpenListener {
    pub number: u32,
    socket: OwnedFd,
    pub on_accept: Arc<dyn OnAccept>,
    /// The kernel may have a connection queued.
    pub is_ready: bool,
    is_paused: bool,
    is_registered: bool,
}

impl OpenListener {
    pub(super) fn new(number: u32, socket: OwnedFd, on_accept: Arc<dyn OnAccept>) -> OpenListener {
        OpenListener {
            number,
            socket,
            on_accept,
            is_ready: true,
            is_paused: false,
            is_registered: false,
        }
    }

    /// Watches for connections, and accepts. Where the epoll has no room for it, it pauses:
    /// resuming tries again.
    pub(super) fn resume(&mut self, registry: &Registry) {
        self.is_paused = false;
        if self.is_registered {
            return;
        }
        match self.register(registry) {
            Ok(()) => self.is_registered = true,
            Err(error) => self.pause(Some(error)),
        }
    }

    fn register(&self, registry: &Registry) -> io::Result<()> {
        let token = Token(SessionKey::of_listener(self.number).token(0));
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Takes the socket out of the epoll. It stays open elsewhere, so closing this descriptor would
    /// not.
    pub(super) fn deregister(&self, registry: &Registry) {
        let fd = self.socket.as_raw_fd();
        // Fails where it was never registered.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    pub(super) fn wants_turn(&self) -> bool {
        self.is_ready && !self.is_paused
    }

    /// The next connection, unless there is none or accepting pauses.
    pub(super) fn accept(&mut self) -> Option<(OwnedFd, Peer)> {
        if !self.wants_turn() {
            return None;
        }
        if !self.on_accept.reserve(false) {
            self.pause(None);
            return None;
        }
        let error = match try_accept(self.socket.as_fd()) {
            Ok(Some(accepted)) => return Some(accepted),
            Ok(None) => {
                self.is_ready = false;
                None
            }
            Err(error) => Some(error),
        };
        self.on_accept.unreserve();
        match error {
            Some(error) if is_transient_accept_error(&error) => self.on_accept.lost(error),
            // Whatever it is, it must not become a busy loop.
            Some(error) => self.pause(Some(error)),
            None => {}
        }
        None
    }

    /// Accepts a connection that is still queued when the listener closes.
    pub(super) fn accept_last(&mut self) -> LastAccept {
        match try_accept(self.socket.as_fd()) {
            Ok(Some((socket, peer))) => {
                self.on_accept.reserve(true);
                LastAccept::Accepted(socket, peer)
            }
            Ok(None) => LastAccept::None,
            Err(error) if is_transient_accept_error(&error) => {
                self.on_accept.lost(error);
                LastAccept::Lost
            }
            Err(error) => {
                tracing::warn!(%error, "connections still queued are reset");
                LastAccept::None
            }
        }
    }

    fn pause(&mut self, why: Option<io::Error>) {
        self.is_paused = true;
        self.on_accept.paused(why);
    }
}

/// Outcome of one accept of a listener that closes.
pub(super) enum LastAccept {
    Accepted(OwnedFd, Peer),
    Lost,
    None,
}
