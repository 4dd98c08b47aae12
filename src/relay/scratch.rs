//! Buffers and counts that a worker lends to the session whose turn it is: the buffers through
//! which every byte goes, pipes for bulk, and the account of bytes that are held because a peer
//! does not take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clock::Tick;
use super::pipe::Pipes;
use crate::tls::record::TlsSession;

/// Large enough that bulk costs few system calls, small enough to stay in the second-level cache.
pub(super) const LENGTH: usize = 64 * 1024;

pub(super) struct Scratch {
    /// Plaintext.
    pub plain: Box<[u8]>,
    /// Ciphertext as it comes from the socket. Its plaintext, beside a record begun before it, fits
    /// `plain`.
    pub cipher: Box<[u8]>,
    /// Ciphertext on its way out: room for all of `plain`.
    pub sealed: Box<[u8]>,
    pub pipes: Pipes,
    pub held: BufferBudget,
    /// The time of this round of events.
    pub now: Tick,
}

impl Scratch {
    pub(super) fn new(held: BufferBudget, pipes: usize, now: Tick) -> Self {
        Self {
            plain: vec![0; LENGTH].into_boxed_slice(),
            cipher: vec![0; LENGTH / 2].into_boxed_slice(),
            sealed: vec![0; TlsSession::sealed_bound(LENGTH)].into_boxed_slice(),
            pipes: Pipes::new(pipes),
            held,
            now,
        }
    }
}

/// Bytes that the sessions of a worker hold for peers that do not take them.
#[derive(Debug)]
pub(super) struct BufferBudget {
    bytes: usize,
    /// The bound of each worker.
    max: Arc<AtomicUsize>,
    /// Bytes held in set-up, of which each worker takes its share.
    set_up_held: Arc<AtomicUsize>,
    workers: usize,
}

impl BufferBudget {
    /// The account of one of so many workers.
    pub(super) fn new(
        max: Arc<AtomicUsize>,
        set_up_held: Arc<AtomicUsize>,
        workers: usize,
    ) -> BufferBudget {
        BufferBudget {
            bytes: 0,
            max,
            set_up_held,
            workers: workers.max(1),
        }
    }

    /// Whether bytes that one more read may leave behind still fit.
    pub(super) fn has_room(&self) -> bool {
        self.room() >= LENGTH
    }

    /// Bytes that may still be held.
    pub(super) fn room(&self) -> usize {
        let elsewhere = self.set_up_held.load(Ordering::Relaxed) / self.workers;
        let max = self.max.load(Ordering::Relaxed);
        max.saturating_sub(self.bytes).saturating_sub(elsewhere)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Accounts for a holder that held `before` and holds `now`.
    pub(super) fn change(&mut self, before: usize, now: usize) {
        self.bytes = (self.bytes + now).saturating_sub(before);
    }
}
