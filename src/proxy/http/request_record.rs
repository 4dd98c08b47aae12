//! The record of one HTTP request while it is served. It is finished with the end that was set; if
//! none was (hyper dropped the request where it stood), with the reason for that: the client left,
//! or the process stops.

use std::sync::Arc;

use super::gate_state::GateState;
use super::interval::Interval;
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::{AcquireError, Lease, Pool};
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::connect::{BackendUnavailable, RetryState, connect};

/// The record of a request; dropping it ends the request and notifies the gate.
pub(super) struct RequestRecord {
    /// Taken by the relay with the session, or by the end.
    record: Option<ConnectionRecord>,
    end: Option<Termination>,
    gate_state: Arc<GateState>,
}

impl RequestRecord {
    pub(super) fn new(record: ConnectionRecord, gate_state: &Arc<GateState>) -> RequestRecord {
        RequestRecord {
            record: Some(record),
            end: None,
            gate_state: Arc::clone(gate_state),
        }
    }

    /// Writes to the record.
    pub(super) fn note(&mut self, write: impl FnOnce(&mut ConnectionRecord)) {
        if let Some(record) = &mut self.record {
            write(record);
        }
    }

    /// A clock for its interval lines.
    pub(super) fn clock(&self) -> Option<Interval> {
        self.record.as_ref().map(Interval::of)
    }

    pub(super) fn phase(&mut self, phase: Phase) {
        self.note(|record| record.phase = phase);
    }

    /// Sets the end; the first one counts.
    pub(super) fn ends(&mut self, end: Termination) {
        self.end.get_or_insert(end);
    }

    /// As [`connect`], for the record of this request.
    pub(super) async fn connect(
        &mut self,
        search: &mut RetryState,
        pool: &Pool,
        header: &OutgoingProxyHeader,
    ) -> Result<(MaybeTlsStream, Lease), BackendUnavailable> {
        let Some(record) = &mut self.record else {
            return Err(AcquireError::NoBackend.into());
        };
        let step = RetryState::begin(record);
        connect(search, step, pool, Some(header), record).await
    }

    /// Takes the record, for the session that goes on.
    pub(super) fn into_record(mut self) -> Option<ConnectionRecord> {
        self.record.take()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.gate_state.answered_one();
        let Some(record) = self.record.take() else {
            return;
        };
        // The record itself notes a panic.
        if !std::thread::panicking() {
            let (side, cause) = if self.gate_state.stopped() {
                (Side::Evenkeel, Cause::Stop)
            } else if self.gate_state.has_left() {
                (Side::Client, Cause::Fin)
            } else {
                (Side::Client, Cause::Rst)
            };
            let dropped = Termination::new(side, record.phase, cause);
            record.finish(self.end.unwrap_or(dropped));
        }
    }
}
