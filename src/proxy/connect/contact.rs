//! What has passed on a connection to a backend: that decides whether a request may be sent again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// Record of what has passed on one connection to a backend.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Contact {
    sent: AtomicBool,
    heard: AtomicBool,
    reset: AtomicBool,
}

impl Contact {
    /// Whether a byte of the request has left.
    pub fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether a byte of the backend has come.
    pub fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether the backend has reset the connection in place of an answer.
    pub fn was_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed) && !self.has_heard()
    }

    fn note<T>(&self, poll: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = poll
            && error.kind() == io::ErrorKind::ConnectionReset
        {
            self.reset.store(true, Ordering::Relaxed);
        }
    }

    pub fn note_write(&self, poll: &Poll<io::Result<usize>>) {
        self.note(poll);
        if matches!(poll, Poll::Ready(Ok(1..))) {
            self.sent.store(true, Ordering::Relaxed);
        }
    }

    pub fn note_read(&self, poll: &Poll<io::Result<()>>, has_bytes: bool) {
        if has_bytes {
            self.heard.store(true, Ordering::Relaxed);
        }
        self.note(poll);
    }
}
