//! The record of one HTTP request while it is served. It is finished with the end that was set; if
//! none was (the request was dropped where it stood), with the reason for that: the process stops,
//! or the client has left.

use std::sync::Arc;

use super::connection::HttpConnection;
use super::interval::Interval;
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::{AcquireError, Pool};
use crate::proxy::connect::{
    BackendUnavailable, ConnectBy, Connected, RetryState, RetryStep, connect,
};

/// The record of a request; dropping it finishes it.
pub(super) struct RequestRecord {
    /// Taken by the relay with the session, or by the end.
    record: Option<ConnectionRecord>,
    end: Option<Termination>,
    http: Arc<HttpConnection>,
}

impl RequestRecord {
    /// The record of the next request of a connection.
    pub(super) fn new(http: &Arc<HttpConnection>) -> RequestRecord {
        Self::of(http, http.record())
    }

    /// A record that was begun before.
    pub(super) fn of(http: &Arc<HttpConnection>, record: ConnectionRecord) -> RequestRecord {
        RequestRecord {
            record: Some(record),
            end: None,
            http: Arc::clone(http),
        }
    }

    /// Writes to the record.
    pub(super) fn note(&mut self, write: impl FnOnce(&mut ConnectionRecord)) {
        if let Some(record) = &mut self.record {
            write(record);
        }
    }

    /// Id of its lines; 0 once the record is taken.
    pub(super) fn id(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.id)
    }

    /// A clock for its interval lines.
    pub(super) fn clock(&self) -> Option<Interval> {
        self.record.as_ref().map(Interval::of)
    }

    pub(super) fn phase(&mut self, phase: Phase) {
        self.note(|record| record.enter(phase));
    }

    /// Notes that a head has come.
    pub(super) fn begins(&mut self) {
        self.note(|record| {
            record.heard();
            record.enter(Phase::Head);
        });
    }

    /// The phase that the request has come to.
    pub(super) fn reached(&self) -> Phase {
        self.record
            .as_ref()
            .map_or(Phase::Head, ConnectionRecord::phase)
    }

    /// Sets the end; the first one counts.
    pub(super) fn ends(&mut self, end: Termination) {
        self.end.get_or_insert(end);
    }

    /// As [`connect`], for the record of this request; `None` begins the search.
    pub(super) async fn connect(
        &mut self,
        search: &mut RetryState,
        step: Option<RetryStep>,
        pool: &Pool,
        by: ConnectBy<'_>,
    ) -> Result<Connected, BackendUnavailable> {
        let Some(record) = &mut self.record else {
            return Err(AcquireError::NoBackend.into());
        };
        let step = match step {
            Some(step) => step,
            None => RetryState::begin(record),
        };
        connect(search, step, pool, by, record).await
    }

    /// Takes the record, for the session that goes on.
    pub(super) fn into_record(mut self) -> Option<ConnectionRecord> {
        self.record.take()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else {
            return;
        };
        // The record itself notes a panic.
        if !std::thread::panicking() {
            let (side, cause) = if self.http.is_stopped() {
                (Side::Evenkeel, Cause::Stop)
            } else {
                (Side::Client, Cause::Rst)
            };
            let dropped = Termination::new(side, record.phase(), cause);
            record.finish(self.end.unwrap_or(dropped));
        }
    }
}
