//! What a worker does with its doors: accepting a few connections at a time, and giving each to the lighter of two workers.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::super::inbox::WorkerCommand;
use super::super::listener::{ACCEPTS_PER_TURN, Last, OnAccept, OpenListener};
use super::Worker;
use crate::net::Peer;

impl Worker {
    /// A few connections from each door that has some.
    pub(super) fn accept(&mut self, now: Instant) {
        for place in 0..self.doors.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(door) = self.doors.get_mut(place) else {
                    break;
                };
                let Some((socket, peer)) = door.accept() else {
                    break;
                };
                let arrivals = Arc::clone(&door.arrivals);
                self.assign(arrivals, socket, peer, now);
            }
        }
    }

    /// Connections that last must stay balanced over the threads.
    fn assign(&mut self, arrivals: Arc<dyn OnAccept>, socket: OwnedFd, peer: Peer, now: Instant) {
        let worker = self.plane.lighter_of_two();
        self.plane.count(worker);
        if Arc::ptr_eq(worker, &self.inbox) {
            self.arrive(&*arrivals, socket, peer, now);
        } else {
            worker.send(WorkerCommand::Arrive(arrivals, socket, peer));
        }
    }

    /// One accepted connection, already counted.
    pub(super) fn arrive(
        &mut self,
        arrivals: &dyn OnAccept,
        socket: OwnedFd,
        peer: Peer,
        now: Instant,
    ) {
        let arrived = catch_unwind(AssertUnwindSafe(|| arrivals.arrived(socket, peer)));
        match arrived {
            Ok(Some(session)) => self.adopt(session, now),
            Ok(None) => self.plane.uncount(&self.inbox),
            Err(_) => {
                tracing::error!("an arriving connection panicked and was closed");
                self.plane.uncount(&self.inbox);
            }
        }
    }

    pub(super) fn door(&mut self, number: u32) -> Option<&mut OpenListener> {
        self.doors.iter_mut().find(|door| door.id == number)
    }

    pub(super) fn resume(&mut self, number: u32) {
        let registry = self.poll.registry();
        if let Some(door) = self.doors.iter_mut().find(|door| door.id == number) {
            door.resume(registry);
        }
    }

    pub(super) fn listen(&mut self, mut door: OpenListener) {
        door.resume(self.poll.registry());
        self.doors.push(door);
    }

    pub(super) fn unlisten(&mut self, number: u32, queued: u32, now: Instant) {
        let Some(place) = self.doors.iter().position(|door| door.id == number) else {
            return;
        };
        let mut door = self.doors.swap_remove(place);
        door.deregister(self.poll.registry());
        for _ in 0..queued {
            match door.accept_last() {
                Last::Accepted(socket, peer) => {
                    self.assign(Arc::clone(&door.arrivals), socket, peer, now);
                }
                Last::Lost => {}
                Last::None => break,
            }
        }
    }
}
