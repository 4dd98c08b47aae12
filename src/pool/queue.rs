//! Connections that wait for a backend with room, first come first served.
//!
//! The task that makes room (a lease dropped, a state changed, a limit raised) serves the queue: it
//! picks for the first in line and hands over the lease. So a later connection cannot be quicker,
//! and no wake-up can be lost between "there is room" and "I take it". A connection that waits for
//! a backend it has not tried yet is passed over while only tried ones have room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::backend::Backend;
use super::lease::Lease;
use super::view::{PickError, PickRequest};
use super::waiting::WaitingCount;

pub(super) type Answer = Result<Lease, PickError>;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: WaitingCount,
    line: Mutex<WaitingLine>,
}

#[derive(Debug, Default)]
struct WaitingLine {
    next_ticket: u64,
    entries: VecDeque<QueueEntry>,
}

#[derive(Debug)]
struct QueueEntry {
    ticket: u64,
    hash: Option<u64>,
    tried: Vec<Arc<Backend>>,
    answer: oneshot::Sender<Answer>,
}

/// A place in the line; dropping it leaves the line.
#[derive(Debug)]
pub(super) struct QueueWait {
    queue: Arc<Queue>,
    ticket: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.get()
    }

    /// The count that the pool's backends read.
    pub(super) fn waiting(&self) -> &WaitingCount {
        &self.waiting
    }

    /// Joins the end of the line, unless `max` are in it. The caller must serve the queue then:
    /// room made before it had joined is not offered to it otherwise.
    pub(super) fn join(
        self: &Arc<Self>,
        max: usize,
        request: &PickRequest<'_>,
    ) -> Option<QueueWait> {
        let mut line = self.line();
        if line.entries.len() >= max {
            return None;
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        let (sender, receiver) = oneshot::channel();
        line.entries.push_back(QueueEntry {
            ticket,
            hash: request.hash,
            tried: request.tried.to_vec(),
            answer: sender,
        });
        self.waiting.set(line.entries.len());
        Some(QueueWait {
            queue: self.clone(),
            ticket,
            answer: receiver,
        })
    }

    /// Answers each request in line for which `attempt` has an answer other than "full".
    pub(super) fn serve(&self, mut attempt: impl FnMut(&PickRequest<'_>) -> Answer) {
        // A lease that nobody takes is dropped behind the lock: its drop serves the queue.
        let mut unclaimed = Vec::new();
        let mut line = self.line();
        let mut position = 0;
        while let Some(entry) = line.entries.get(position) {
            let request = PickRequest {
                hash: entry.hash,
                tried: &entry.tried,
            };
            let answer = match attempt(&request) {
                Err(PickError::Full) if entry.tried.is_empty() => break,
                Err(PickError::Full) => {
                    position += 1;
                    continue;
                }
                answer => answer,
            };
            if let Some(entry) = line.entries.remove(position) {
                unclaimed.extend(entry.answer.send(answer).err());
            }
            self.waiting.set(line.entries.len());
        }
        drop(line);
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.line();
        let found = line
            .entries
            .binary_search_by_key(&ticket, |entry| entry.ticket);
        let entry = found.ok().and_then(|at| line.entries.remove(at));
        self.waiting.set(line.entries.len());
        drop(line);
        drop(entry);
    }

    fn line(&self) -> MutexGuard<'_, WaitingLine> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueWait {
    /// Waits for the answer.
    ///
    /// # Cancel safety
    /// An answer that was not taken yet is given by the next call.
    pub(super) async fn answer(&mut self) -> Answer {
        // The sender is dropped without an answer only by `leave`, which needs this to be gone.
        (&mut self.answer)
            .await
            .unwrap_or(Err(PickError::NoBackend))
    }

    /// Leaves the line and returns the answer that came at the last moment, if one did.
    pub(super) fn give_up(mut self) -> Option<Answer> {
        self.queue.leave(self.ticket);
        self.answer.try_recv().ok()
    }
}

impl Drop for QueueWait {
    /// Leaves the line before the receiver goes, so that no lease is handed to nobody.
    fn drop(&mut self) {
        self.queue.leave(self.ticket);
    }
}
