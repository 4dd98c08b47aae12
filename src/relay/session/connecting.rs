//! The beginning of a session: its backend's leg is being connected, or nobody was sent anything yet. Until the first
//! byte it may go back to where it came from, to be given another backend.

use std::time::Duration;

use super::super::clock::Tick;
use super::super::connect_handler::{ConnectFailure, ConnectHandler};
use super::super::leg::Connect;
use super::super::scratch::Scratch;
use super::{BACKEND, CLIENT, Session, TurnOutcome};
use crate::net::ConnectError;
use crate::observe::{Cause, Phase, Side, Termination};

/// A client that resets while its backend is being connected is given up after this long. Nearly every connect is done
/// before, and then what the client said before it left is delivered.
const LEAVE_AFTER: Duration = Duration::from_millis(50);

/// What a session has besides as long as nobody was sent anything.
pub(super) struct Connecting {
    pub origin: Box<dyn ConnectHandler>,
    /// Its backend's leg is not connected yet.
    pub opening: bool,
}

impl Session {
    /// Waits for the backend's leg to be connected.
    pub(super) fn open(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let has_left = self.legs[CLIENT].is_broken();
        match self.legs[BACKEND].connect() {
            Connect::UnderWay if has_left && self.idle(scratch.now) < LEAVE_AFTER => {
                TurnOutcome::Soon
            }
            Connect::UnderWay if !has_left => TurnOutcome::Wait,
            Connect::UnderWay | Connect::Failed if has_left => {
                // The backend may be connected meanwhile: no FIN of ours is to look like the client's.
                self.legs[BACKEND].reset();
                self.end = Some(Termination::new(Side::Client, Phase::Connect, Cause::Rst));
                TurnOutcome::Ended
            }
            Connect::UnderWay | Connect::Failed => TurnOutcome::ConnectFailed(
                ConnectFailure::Connect(self.legs[BACKEND].connect_error()),
            ),
            Connect::Done => {
                self.last_activity = scratch.now;
                if let Some(early) = self.role.early_mut() {
                    early.opening = false;
                    early.origin.connected(&mut self.record);
                }
                self.relay(scratch)
            }
        }
    }

    /// Its connect is overdue: it goes back where another backend is to serve.
    pub fn give_up_connect(&mut self, now: Tick) -> Option<TurnOutcome> {
        // What epoll has not told yet is no fault of the backend's.
        if !self.is_opening() || self.legs[BACKEND].is_reached() {
            return None;
        }
        let gives_up = self.role.early_mut()?.origin.gives_up();
        gives_up.then(|| {
            // It may be connected this very moment: no FIN is to look like a client's.
            self.legs[BACKEND].reset();
            let waited = self.idle(now);
            TurnOutcome::ConnectFailed(ConnectFailure::Connect(ConnectError::TimedOut(waited)))
        })
    }

    /// No byte and no FIN has gone either way.
    pub(super) fn is_untouched(&self) -> bool {
        self.record.bytes_from_client == 0
            && self.record.bytes_from_backend == 0
            && !self.directions[CLIENT].has_ended()
    }

    /// Behind the first byte it goes back no more.
    pub(super) fn leave_origin(&mut self) {
        let Some(early) = self.role.early().filter(|_| !self.is_untouched()) else {
            return;
        };
        if self.record.bytes_from_client + self.record.bytes_from_backend > 0 {
            early.origin.served();
        }
        self.role.end_early();
    }

    /// The backend has finished before a byte went either way. If the client has not been heard of, another may serve.
    pub(super) fn leave_to_another(&mut self) -> TurnOutcome {
        let has_other = |early: &Connecting| early.origin.has_other();
        if self.is_untouched() && self.role.early().is_some_and(has_other) {
            return TurnOutcome::ConnectFailed(ConnectFailure::Fin);
        }
        // There is none, or the client spoke in this very turn: the FIN goes on in the next.
        self.role.end_early();
        TurnOutcome::Again
    }

    /// A backend that broke before a byte went either way, under a client that is still there.
    pub(super) fn can_be_given_back(&self) -> bool {
        self.role.early().is_some() && self.is_untouched() && !self.legs[CLIENT].is_broken()
    }

    /// Gives the client's leg back.
    pub fn give_back(self, why: ConnectFailure) {
        let Self {
            legs: [client, backend],
            record,
            guards,
            role,
            ..
        } = self;
        drop(backend);
        let early = role.into_early();
        let is_early = early.is_some();
        if !is_early {
            client.reset();
        }
        match (early, client.into_session_leg()) {
            (Some(early), Some(client)) => early.origin.failed(why, client, record, guards),
            _ => record.finish(Termination::new(Side::Backend, Phase::Connect, Cause::Rst)),
        }
    }
}
