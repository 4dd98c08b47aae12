//! The record of one HTTP request while it is served: finished with the end that was set, and if none was (hyper dropped
//! the request where it stood) with the reason for that: the client left, or the process stops.

use std::sync::Arc;

use super::MaybeTlsStream;
use super::dialogue::GateState;
use super::dispatch::{ConnectRequest, DispatchError, dispatch};
use super::interval::Interval;
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::{AcquireError, Lease, Pool};

/// Dropping it ends the request: the record is finished and the gate told.
pub(super) struct RequestRecord {
    /// Taken by the relay with the session, or by the end.
    record: Option<ConnectionRecord>,
    end: Option<Termination>,
    dialogue: Arc<GateState>,
}

impl RequestRecord {
    pub(super) fn new(record: ConnectionRecord, dialogue: &Arc<GateState>) -> RequestRecord {
        RequestRecord {
            record: Some(record),
            end: None,
            dialogue: Arc::clone(dialogue),
        }
    }

    /// Writes to the record.
    pub(super) fn note(&mut self, write: impl FnOnce(&mut ConnectionRecord)) {
        if let Some(record) = &mut self.record {
            write(record);
        }
    }

    /// The clock of its interval lines.
    pub(super) fn clock(&self) -> Option<Interval> {
        self.record.as_ref().map(Interval::of)
    }

    pub(super) fn phase(&mut self, phase: Phase) {
        self.note(|record| record.phase = phase);
    }

    /// The first end that is set is the one that counts.
    pub(super) fn ends(&mut self, end: Termination) {
        self.end.get_or_insert(end);
    }

    /// As `dispatch`, for the record of this ticket.
    pub(super) async fn dispatch(
        &mut self,
        pool: &Arc<Pool>,
        wanted: &mut ConnectRequest<'_>,
    ) -> Result<(MaybeTlsStream, Lease), DispatchError> {
        match &mut self.record {
            Some(record) => dispatch(pool, wanted, record).await,
            None => Err(AcquireError::NoBackend.into()),
        }
    }

    /// The record, for the session that goes on.
    pub(super) fn into_record(mut self) -> Option<ConnectionRecord> {
        self.record.take()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.dialogue.answered_one();
        let Some(record) = self.record.take() else {
            return;
        };
        // A panic is told by the record itself.
        if !std::thread::panicking() {
            let (side, how) = match self.dialogue.stopped() {
                true => (Side::Evenkeel, Cause::Stop),
                false if self.dialogue.has_left() => (Side::Client, Cause::Fin),
                false => (Side::Client, Cause::Rst),
            };
            let dropped = Termination::new(side, record.phase, how);
            record.finish(self.end.unwrap_or(dropped));
        }
    }
}
