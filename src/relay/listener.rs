//! Accepting on a relay thread: for listeners that need no byte of a connection to know where it goes. One worker holds the
//! listening socket; a connection goes to the lighter of two workers, which does the rest of its life.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use tokio::sync::oneshot;

use super::inbox::{Inbox, WorkerCommand};
use super::table::SessionKey;
use super::{NewSession, Relay};
use crate::net::{Peer, is_transient_accept_error, try_accept};

/// Accepts in a row before the sockets of others are looked at.
pub(super) const ACCEPTS_PER_TURN: usize = 16;

/// What a listener does with its connections. All of it is called on relay threads and must not wait.
pub trait OnAccept<L>: Send + Sync {
    /// Counts a connection that is to be accepted; false where there is no room for it, unless it is to be taken
    /// `anyway`.
    fn reserve(&self, anyway: bool) -> bool;

    /// The connection that was counted did not come.
    fn unreserve(&self);

    /// A connection has come, one that was counted. The session that it is to be, or `None`: it goes another way.
    fn arrived(&self, socket: OwnedFd, peer: Peer) -> Option<NewSession<L>>;

    /// Accepting pauses until [`Door::resume`]: there is no room, or the process is short of what the error says.
    fn paused(&self, why: Option<io::Error>);

    /// A connection was gone before it was accepted.
    fn lost(&self, error: io::Error);
}

/// A listening socket from which a worker accepts.
pub struct RelayListener<L> {
    id: u32,
    inbox: Arc<Inbox<L>>,
}

impl<L: Send + 'static> Relay<L> {
    /// Accepts from a listening socket from now on. `socket` is a duplicate in no epoll.
    pub fn listen(&self, socket: OwnedFd, arrivals: Arc<dyn OnAccept<L>>) -> RelayListener<L> {
        let (id, inbox) = self.next_door();
        inbox.send(WorkerCommand::Listen(OpenListener {
            id,
            socket,
            arrivals,
            is_ready: true,
            is_paused: false,
            is_watched: false,
        }));
        RelayListener { id, inbox }
    }
}

impl<L> RelayListener<L> {
    /// Goes on accepting after [`Arrivals::paused`].
    pub fn resume(&self) {
        self.inbox.send(WorkerCommand::Resume(self.id));
    }

    /// Serves what the kernel has queued, at most `queued` connections whether there is room or not, and accepts no more.
    pub async fn close(self, queued: u32) {
        let (done, closed) = oneshot::channel();
        self.inbox.send(WorkerCommand::Unlisten {
            door: self.id,
            queued,
            done,
        });
        // A worker that has ended accepts nothing.
        let _ = closed.await;
    }
}

/// A door inside its worker.
pub(super) struct OpenListener<L> {
    pub id: u32,
    pub socket: OwnedFd,
    pub arrivals: Arc<dyn OnAccept<L>>,
    /// The kernel may have a connection queued.
    pub is_ready: bool,
    pub is_paused: bool,
    pub is_watched: bool,
}

/// The index in the tokens of doors, of which no table has so many slots; their generation is the door's number.
const DOORS: u32 = u32::MAX;

/// The number of the door that a token names.
pub(super) fn door_of(key: SessionKey) -> Option<u32> {
    (key.index == DOORS).then_some(key.generation)
}

impl<L> OpenListener<L> {
    /// Watches for connections, and accepts. Where the epoll has no room for it, it pauses: resuming tries again.
    pub fn resume(&mut self, registry: &Registry) {
        self.is_paused = false;
        if self.is_watched {
            return;
        }
        match self.register(registry) {
            Ok(()) => self.is_watched = true,
            Err(error) => self.pause(Some(error)),
        }
    }

    fn register(&self, registry: &Registry) -> io::Result<()> {
        let key = SessionKey {
            index: DOORS,
            generation: self.id,
        };
        let token = Token(key.token(0));
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// The socket itself stays open elsewhere, so closing this descriptor would not take it out of the epoll.
    pub fn deregister(&self, registry: &Registry) {
        let fd = self.socket.as_raw_fd();
        // Fails where it was never watched.
        let _ = registry.deregister(&mut SourceFd(&fd));
    }

    pub fn wants_turn(&self) -> bool {
        self.is_ready && !self.is_paused
    }

    /// The next connection, unless there is none or accepting pauses.
    pub fn accept(&mut self) -> Option<(OwnedFd, Peer)> {
        if !self.wants_turn() {
            return None;
        }
        if !self.arrivals.reserve(false) {
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
        self.arrivals.unreserve();
        match error {
            Some(error) if is_transient_accept_error(&error) => self.arrivals.lost(error),
            // Whatever it is, it must not become a busy loop.
            Some(error) => self.pause(Some(error)),
            None => {}
        }
        None
    }

    /// One of the connections that are still queued when the door closes.
    pub fn accept_last(&mut self) -> Last {
        match try_accept(self.socket.as_fd()) {
            Ok(Some((socket, peer))) => {
                self.arrivals.reserve(true);
                Last::Accepted(socket, peer)
            }
            Ok(None) => Last::None,
            Err(error) if is_transient_accept_error(&error) => {
                self.arrivals.lost(error);
                Last::Lost
            }
            Err(error) => {
                tracing::warn!(%error, "connections still queued are reset");
                Last::None
            }
        }
    }

    fn pause(&mut self, why: Option<io::Error>) {
        self.is_paused = true;
        self.arrivals.paused(why);
    }
}

/// What a closing door still gave.
pub(super) enum Last {
    Accepted(OwnedFd, Peer),
    Lost,
    None,
}
