//! A worker's listeners: it accepts a few connections at a time, and gives each to the lighter of
//! two workers.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use crate::net::Peer;
use crate::relay::accept::{ACCEPTS_PER_TURN, Accepted, LastAccept, OnAccept, OpenListener};
use crate::relay::inbox::WorkerCommand;

impl Worker {
    /// Accepts a few connections from each listener that has some.
    pub(super) fn accept(&mut self, now: Instant) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listener) = self.listeners.get_mut(index) else {
                    break;
                };
                let Some((socket, peer)) = listener.accept() else {
                    break;
                };
                let on_accept = Arc::clone(&listener.on_accept);
                self.assign(on_accept, socket, peer, now);
            }
        }
    }

    /// Gives a connection to a worker: those that last must stay balanced over the threads.
    fn assign(&mut self, on_accept: Arc<dyn OnAccept>, socket: OwnedFd, peer: Peer, now: Instant) {
        let worker = self.workers.lighter_of_two();
        self.workers.count(worker);
        if Arc::ptr_eq(worker, &self.inbox) {
            self.begin_accepted(&*on_accept, socket, peer, now);
        } else {
            worker.send(WorkerCommand::Accepted(on_accept, socket, peer));
        }
    }

    /// Begins an accepted connection, which is counted already.
    pub(super) fn begin_accepted(
        &mut self,
        on_accept: &dyn OnAccept,
        socket: OwnedFd,
        peer: Peer,
        now: Instant,
    ) {
        let accepted = catch_unwind(AssertUnwindSafe(|| on_accept.accepted(socket, peer)));
        match accepted {
            Ok(Accepted::Session(session)) => self.adopt(*session, now),
            Ok(Accepted::SetUp(socket, set_up)) => self.set_up(set_up, socket, now),
            Ok(Accepted::Elsewhere) => self.workers.uncount(&self.inbox),
            Err(_) => {
                tracing::error!("an accepted connection panicked and was closed");
                self.workers.uncount(&self.inbox);
            }
        }
    }

    /// Takes note that a listener has connections.
    pub(super) fn note_ready(&mut self, number: u32) {
        if let Some(listener) = self.listeners.iter_mut().find(|one| one.number == number) {
            listener.is_ready = true;
        }
    }

    pub(super) fn resume_accept(&mut self, number: u32) {
        let registry = self.poll.registry();
        if let Some(listener) = self.listeners.iter_mut().find(|one| one.number == number) {
            listener.resume(registry);
        }
    }

    pub(super) fn listen(&mut self, mut listener: OpenListener) {
        listener.resume(self.poll.registry());
        self.listeners.push(listener);
    }

    pub(super) fn unlisten(&mut self, number: u32, queued: u32, now: Instant) {
        let Some(index) = self.listeners.iter().position(|one| one.number == number) else {
            return;
        };
        let mut listener = self.listeners.swap_remove(index);
        listener.deregister(self.poll.registry());
        for _ in 0..queued {
            match listener.accept_last() {
                LastAccept::Accepted(socket, peer) => {
                    self.assign(Arc::clone(&listener.on_accept), socket, peer, now);
                }
                LastAccept::Lost => {}
                LastAccept::None => break,
            }
        }
    }
}
