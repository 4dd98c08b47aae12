//! Hours of a session, and its end by a broken leg.

use crate::observe::Cause;
use crate::relay::clock::Tick;
use crate::relay::direction::Flow;
use crate::relay::phase::{SessionPhase, TurnOutcome};
use crate::relay::scratch::Scratch;
use crate::relay::session::{Session, Transfer};
use crate::relay::side::ended_by_us;

impl Session {
    pub(crate) fn turn_open(&mut self, scratch: &mut Scratch) -> TurnOutcome {
        let transfer = self.transfer(scratch);
        self.after_transfer(&transfer, scratch.now)
    }

    /// Ends the phase of an open session where its bytes, its backend or a fault say so.
    pub(crate) fn after_transfer(&mut self, transfer: &Transfer, now: Tick) -> TurnOutcome {
        self.refuse_client(now)
            .or_else(|| self.notice_backend_end(transfer, now))
            .or_else(|| self.pass_on_fault(transfer, now))
            .unwrap_or_else(|| self.go_on(transfer))
    }

    /// The outcome where nothing has happened but the transfer.
    pub(crate) fn go_on(&self, transfer: &Transfer) -> TurnOutcome {
        match transfer.flows {
            // Nothing holds the backend's FIN any more: it goes on in the next turn.
            [_, Flow::Ended] => TurnOutcome::Again,
            [Flow::Finished, Flow::Finished] => {
                TurnOutcome::Ended(self.fin_end().unwrap_or(ended_by_us(Cause::Error)))
            }
            _ => transfer.or_wait(),
        }
    }

    /// Resets the other leg once its queue is sent. A close with linger 0 throws away what is
    /// queued.
    pub(crate) fn turn_resetting(&mut self) -> TurnOutcome {
        let SessionPhase::Resetting { side, end } = self.phase else {
            return TurnOutcome::Wait;
        };
        let leg = self.leg(side.into());
        if !leg.is_broken() && leg.unsent_bytes() > 0 {
            return TurnOutcome::Soon;
        }
        leg.reset();
        TurnOutcome::Ended(end)
    }
}
