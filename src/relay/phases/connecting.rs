//! Begin of a session: its backend is being connected, or no byte has gone either way. Until then
//! the client may go back to its handler, to be given another backend.

use std::time::Duration;

use crate::net::ConnectError;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::relay::clock::Tick;
use crate::relay::connect_handler::ConnectFailure;
use crate::relay::direction::Flow;
use crate::relay::leg::Connect;
use crate::relay::phase::{SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::Session;
use crate::relay::side::{BACKEND, CLIENT};

/// A client that resets while its backend is being connected is given up after this long. Nearly
/// every connect is done before, and then the bytes of the client are delivered.
const LEAVE_AFTER: Duration = Duration::from_millis(50);

impl Session {
    /// Waits for the backend's leg to be connected.
    pub(crate) fn turn_connecting(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let has_left = self.legs[CLIENT].is_broken();
        match self.legs[BACKEND].connect() {
            Connect::UnderWay if !has_left => TurnOutcome::Wait,
            Connect::UnderWay if self.idle(scratch.now) < LEAVE_AFTER => TurnOutcome::Soon,
            Connect::UnderWay | Connect::Failed if has_left => {
                // The backend may be connected meanwhile: no FIN of ours is to look like the
                // client's.
                self.legs[BACKEND].reset();
                let end = Termination::new(Side::Client, Phase::Connect, Cause::Rst);
                TurnOutcome::Ended(end)
            }
            Connect::UnderWay | Connect::Failed => {
                let error = self.legs[BACKEND].connect_error();
                TurnOutcome::ConnectFailed(ConnectFailure::Connect(error))
            }
            Connect::Done => {
                self.last_activity = scratch.now;
                if let SessionPhase::Connecting(mut handler) = std::mem::take(&mut self.phase) {
                    handler.connected(&mut self.record);
                    self.phase = SessionPhase::Unserved(handler);
                }
                self.turn_unserved(scratch)
            }
        }
    }

    /// Relays until the first byte, or the client's FIN; until then another backend may serve.
    pub(crate) fn turn_unserved(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        let SessionPhase::Unserved(handler) = &self.phase else {
            return self.after_transfer(&transfer, scratch.now);
        };
        if !self.is_untouched() {
            if self.record.bytes_from_client + self.record.bytes_from_backend > 0 {
                handler.served();
            }
            self.phase = SessionPhase::Open;
            return self.after_transfer(&transfer, scratch.now);
        }
        let [client, backend] = &self.legs;
        if backend.is_broken() && !client.is_broken() && transfer.is_over(BACKEND) {
            return TurnOutcome::ConnectFailed(ConnectFailure::Reset);
        }
        if let Some(outcome) = self.pass_on_fault(&transfer, scratch.now) {
            return outcome;
        }
        if transfer.flows[BACKEND] == Flow::Ended {
            return self.try_another_backend();
        }
        transfer.or_wait()
    }

    /// The backend has finished before a byte went either way: another one may serve.
    fn try_another_backend(&mut self) -> TurnOutcome {
        if let SessionPhase::Unserved(handler) = &self.phase
            && handler.has_other()
        {
            return TurnOutcome::ConnectFailed(ConnectFailure::Fin);
        }
        // There is none: the FIN goes on in the next turn.
        self.phase = SessionPhase::Open;
        TurnOutcome::Again
    }

    /// Gives an overdue connect up where another backend is to serve.
    pub(crate) fn give_up_connect(&mut self, now: Tick) -> Option<ConnectFailure> {
        let SessionPhase::Connecting(handler) = &mut self.phase else {
            return None;
        };
        // A connect that is done before epoll says so is no fault of the backend's.
        if self.legs[BACKEND].is_reached() || !handler.gives_up() {
            return None;
        }
        // It may be connected this very moment: no FIN is to look like a client's.
        self.legs[BACKEND].reset();
        let waited = self.idle(now);
        Some(ConnectFailure::Connect(ConnectError::TimedOut(waited)))
    }

    /// No byte and no FIN of the client has gone either way.
    pub(crate) fn is_untouched(&self) -> bool {
        self.record.bytes_from_client == 0
            && self.record.bytes_from_backend == 0
            && !self.directions[CLIENT].has_ended()
    }
}
